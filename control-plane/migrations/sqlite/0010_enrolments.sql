-- Who may become a proxy. The token itself is never here, only its SHA-256; `life` and times are microseconds. What was used says by which
-- proxy, with which key (its SHA-256, and that of the key before), and until when its newest certificate is good.
CREATE TABLE enrolments (
    id           TEXT PRIMARY KEY,
    fleet        TEXT    NOT NULL,
    proxy        TEXT,
    hash         BLOB    NOT NULL,
    life         INTEGER NOT NULL,
    created_by   TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    used_by      TEXT,
    used_from    TEXT,
    used_at      INTEGER,
    key          BLOB,
    previous_key BLOB,
    valid_until  INTEGER,
    revoked_at   INTEGER
) STRICT;

CREATE UNIQUE INDEX enrolments_by_token ON enrolments (hash);

-- A proxy is what one enrolment has made it.
CREATE UNIQUE INDEX enrolments_by_proxy ON enrolments (fleet, used_by) WHERE revoked_at IS NULL;
