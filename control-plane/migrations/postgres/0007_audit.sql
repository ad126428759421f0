-- Who did what, when and from where, each entry chained to the one before by its hash. Times are microseconds since the Unix epoch,
-- hashes SHA-256 in hexadecimal. `before` and `after` are JSON as text; what a revision changed stands in `changes`, and `digest` is
-- the hash of that.
CREATE TABLE audit (
    sequence BIGINT PRIMARY KEY,
    at       BIGINT NOT NULL,
    actor    TEXT   NOT NULL,
    address  TEXT   NOT NULL,
    action   TEXT   NOT NULL,
    outcome  TEXT   NOT NULL,
    kind     TEXT   NOT NULL,
    name     TEXT   NOT NULL,
    detail   TEXT   NOT NULL,
    before   TEXT,
    after    TEXT,
    times    BIGINT NOT NULL,
    revision BIGINT,
    digest   TEXT,
    previous TEXT   NOT NULL,
    hash     TEXT   NOT NULL
);

CREATE INDEX audit_by_time ON audit (at);

-- Entries are added and never changed. They go from the old end only, as far as the latest entry about that says.
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.sequence <= (
        SELECT r.name::bigint FROM audit AS r WHERE r.action = 'retention' ORDER BY r.sequence DESC LIMIT 1
    ) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only';
END
$$;

CREATE TRIGGER audit_keeps_its_rows BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();

CREATE TRIGGER audit_keeps_all_rows BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
