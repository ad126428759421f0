-- Who may become a proxy. The token itself is never here, only its SHA-256; `life` and times are microseconds. What was used says by which
-- proxy, with which key (its SHA-256, and that of the key before), and until when its newest certificate is good.
CREATE TABLE enrolments (
    id           TEXT PRIMARY KEY,
    fleet        TEXT    NOT NULL,
    proxy        TEXT,
    hash         BYTEA   NOT NULL,
    life         BIGINT  NOT NULL,
    created_by   TEXT    NOT NULL,
    created_at   BIGINT  NOT NULL,
    expires_at   BIGINT  NOT NULL,
    used_by      TEXT,
    used_from    TEXT,
    used_at      BIGINT,
    key          BYTEA,
    previous_key BYTEA,
    valid_until  BIGINT,
    revoked_at   BIGINT
);

CREATE UNIQUE INDEX enrolments_by_token ON enrolments (hash);

-- A proxy is what one enrolment has made it.
CREATE UNIQUE INDEX enrolments_by_proxy ON enrolments (fleet, used_by) WHERE revoked_at IS NULL;
