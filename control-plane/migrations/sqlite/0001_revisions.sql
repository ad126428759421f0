-- Times are microseconds since the Unix epoch, so that both back ends hold the same value.
-- Documents are JSON as text, kept as they were written.

CREATE TABLE revisions (
    number       INTEGER NOT NULL PRIMARY KEY,
    author       TEXT    NOT NULL,
    message      TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    change_count INTEGER NOT NULL
) STRICT;

-- History, audit and replication log in one: `before` is NULL for a creation, `after` for a deletion.
CREATE TABLE changes (
    revision INTEGER NOT NULL REFERENCES revisions (number),
    kind     TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    before   TEXT,
    after    TEXT,
    PRIMARY KEY (revision, kind, name)
) STRICT;

CREATE INDEX changes_of_resource ON changes (kind, name, revision);

-- What there is now, so that a start reads no history.
CREATE TABLE resources (
    kind       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    document   TEXT    NOT NULL,
    revision   INTEGER NOT NULL REFERENCES revisions (number),
    updated_at INTEGER NOT NULL,
    updated_by TEXT    NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;
