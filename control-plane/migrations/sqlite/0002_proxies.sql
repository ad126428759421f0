-- Which replicas live: each says so every few seconds, by the clock of the database.
CREATE TABLE replicas (
    name    TEXT    NOT NULL PRIMARY KEY,
    seen_at INTEGER NOT NULL
) STRICT;

-- What the replica that a proxy is connected to, or was last, says of it. The fleet of a rate limiter is empty.
CREATE TABLE proxies (
    fleet      TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    replica    TEXT    NOT NULL,
    connected  INTEGER NOT NULL,
    status     TEXT    NOT NULL,
    written_at INTEGER NOT NULL,
    PRIMARY KEY (fleet, id)
) STRICT;

CREATE INDEX proxies_of_replica ON proxies (replica);
