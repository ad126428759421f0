-- Times are microseconds since the Unix epoch, so that both back ends hold the same value.
-- Documents are `json`, not `jsonb`: kept as they were written, and readable with `->>`.

CREATE TABLE revisions (
    number       BIGINT PRIMARY KEY,
    author       TEXT   NOT NULL,
    message      TEXT   NOT NULL,
    at           BIGINT NOT NULL,
    change_count BIGINT NOT NULL
);

-- History, audit and replication log in one: `before` is NULL for a creation, `after` for a deletion.
CREATE TABLE changes (
    revision BIGINT NOT NULL REFERENCES revisions (number),
    kind     TEXT   NOT NULL,
    name     TEXT   NOT NULL,
    before   JSON,
    after    JSON,
    PRIMARY KEY (revision, kind, name)
);

CREATE INDEX changes_of_resource ON changes (kind, name, revision);

-- What there is now, so that a start reads no history.
CREATE TABLE resources (
    kind       TEXT   NOT NULL,
    name       TEXT   NOT NULL,
    document   JSON   NOT NULL,
    revision   BIGINT NOT NULL REFERENCES revisions (number),
    updated_at BIGINT NOT NULL,
    updated_by TEXT   NOT NULL,
    PRIMARY KEY (kind, name)
);
