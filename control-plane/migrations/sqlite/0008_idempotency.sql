-- What was done under the idempotency keys of the last day, written with the revision that it tells of. `fingerprint` is the SHA-256
-- of the request, `outcome` JSON as text; times are microseconds. `number` says which came first.
CREATE TABLE idempotency (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    owner       TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    outcome     TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    UNIQUE (owner, key)
) STRICT;

CREATE INDEX idempotency_by_time ON idempotency (at);
