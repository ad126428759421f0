-- Who may use the API. A token itself is never here, only its SHA-256. `grants` is JSON as text; `ttl` and times are microseconds.
CREATE TABLE tokens (
    id             TEXT PRIMARY KEY,
    name           TEXT    NOT NULL,
    grants         TEXT    NOT NULL,
    hash           BLOB    NOT NULL,
    previous_hash  BLOB,
    previous_until INTEGER,
    created_by     TEXT    NOT NULL,
    created_at     INTEGER NOT NULL,
    ttl            INTEGER NOT NULL,
    expires_at     INTEGER NOT NULL,
    last_used_at   INTEGER,
    revoked_at     INTEGER
) STRICT;

-- Changes are recorded under the name, so no two that are in force have the same.
CREATE UNIQUE INDEX tokens_by_name ON tokens (name) WHERE revoked_at IS NULL;

-- One row: how often what a token allows has changed.
CREATE TABLE token_serial (
    serial INTEGER NOT NULL
) STRICT;

INSERT INTO token_serial (serial) VALUES (0);
