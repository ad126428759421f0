-- What was done under the idempotency keys of the last day, written with the revision that it tells of. `fingerprint` is the SHA-256
-- of the request, `outcome` JSON as text; times are microseconds. `number` says which came first.
CREATE TABLE idempotency (
    number      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner       TEXT   NOT NULL,
    key         TEXT   NOT NULL,
    fingerprint BYTEA  NOT NULL,
    outcome     TEXT   NOT NULL,
    at          BIGINT NOT NULL,
    UNIQUE (owner, key)
);

CREATE INDEX idempotency_by_time ON idempotency (at);
