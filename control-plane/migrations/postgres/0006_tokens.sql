-- Who may use the API. A token itself is never here, only its SHA-256. `grants` is JSON as text; `ttl` and times are microseconds.
CREATE TABLE tokens (
    id             TEXT PRIMARY KEY,
    name           TEXT    NOT NULL,
    grants         TEXT    NOT NULL,
    hash           BYTEA    NOT NULL,
    previous_hash  BYTEA,
    previous_until BIGINT,
    created_by     TEXT    NOT NULL,
    created_at     BIGINT NOT NULL,
    ttl            BIGINT NOT NULL,
    expires_at     BIGINT NOT NULL,
    last_used_at   BIGINT,
    revoked_at     BIGINT
);

-- Changes are recorded under the name, so no two that are in force have the same.
CREATE UNIQUE INDEX tokens_by_name ON tokens (name) WHERE revoked_at IS NULL;

-- One row: how often what a token allows has changed.
CREATE TABLE token_serial (
    serial BIGINT NOT NULL
);

INSERT INTO token_serial (serial) VALUES (0);
