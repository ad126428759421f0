-- Who did what, when and from where, each entry chained to the one before by its hash. Times are microseconds since the Unix epoch,
-- hashes SHA-256 in hexadecimal. `before` and `after` are JSON as text; what a revision changed stands in `changes`, and `digest` is
-- the hash of that.
CREATE TABLE audit (
    sequence INTEGER NOT NULL PRIMARY KEY,
    at       INTEGER NOT NULL,
    actor    TEXT    NOT NULL,
    address  TEXT    NOT NULL,
    action   TEXT    NOT NULL,
    outcome  TEXT    NOT NULL,
    kind     TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    detail   TEXT    NOT NULL,
    before   TEXT,
    after    TEXT,
    times    INTEGER NOT NULL,
    revision INTEGER,
    digest   TEXT,
    previous TEXT    NOT NULL,
    hash     TEXT    NOT NULL
) STRICT;

CREATE INDEX audit_by_time ON audit (at);

-- Entries are added and never changed. They go from the old end only, as far as the latest entry about that says.
CREATE TRIGGER audit_keeps_what_it_says BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_keeps_its_rows BEFORE DELETE ON audit
WHEN OLD.sequence > coalesce(
    (SELECT CAST(r.name AS INTEGER) FROM audit AS r WHERE r.action = 'retention' ORDER BY r.sequence DESC LIMIT 1), 0)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
