-- Endpoints that registered themselves. `content` is JSON as text, NULL once the endpoint is gone: the row stays for a while, so
-- that whoever reads what changed hears of it. `ttl` and `expires_at` are microseconds, the latter by the database's clock.
-- `expires_at` has no index: it is written with every renewal, which should touch nothing else.

CREATE TABLE endpoints (
    service    TEXT   NOT NULL,
    id         TEXT   NOT NULL,
    content    TEXT,
    ttl        INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    sequence   INTEGER NOT NULL,
    PRIMARY KEY (service, id)
) STRICT;

CREATE INDEX endpoints_changed ON endpoints (sequence);

-- One row: the number of the last batch that changed an endpoint. Batches are written one at a time.
CREATE TABLE endpoint_sequence (
    sequence INTEGER NOT NULL
) STRICT;

INSERT INTO endpoint_sequence (sequence) VALUES (0);
