//! The statements of the Postgres back end.

/// Takes the writers' lock and answers, in its last row, the head: one round trip.
///
/// Each statement of a `READ COMMITTED` transaction sees what was committed before it, so the head
/// is read after the previous writer's commit. Everything `LOCAL` ends with the transaction. The
/// number is this lock's name among all advisory locks of the database ("chancery" in ASCII).
pub(super) const BEGIN: &str = "
    BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL lock_timeout = '5s';
    SET LOCAL statement_timeout = '10s';
    SET LOCAL idle_in_transaction_session_timeout = '10s';
    SELECT pg_advisory_xact_lock(7163082334074663545);
    SELECT coalesce(max(number), 0) FROM revisions";

pub(super) const HEAD: &str = "SELECT coalesce(max(number), 0) FROM revisions";

/// Of every role, which `pg_stat_activity` would not show to all.
pub(super) const USAGE: &str = "
    SELECT (SELECT coalesce(sum(numbackends), 0)::bigint FROM pg_stat_database),
           current_setting('max_connections')::bigint, pg_database_size(current_database())";

pub(super) const LOAD: &str = "
    SELECT h.head, r.document::text, r.revision, r.updated_at, r.updated_by
    FROM (SELECT coalesce(max(number), 0) AS head FROM revisions) AS h LEFT JOIN resources AS r ON true";

pub(super) const REVISIONS_AFTER: &str = "
    SELECT r.number, r.author, r.message, r.at, r.change_count, c.kind, c.name, c.before::text, c.after::text
    FROM revisions AS r LEFT JOIN changes AS c ON c.revision = r.number
    WHERE r.number > $1 ORDER BY r.number";

pub(super) const REVISION: &str = "
    SELECT r.number, r.author, r.message, r.at, r.change_count, c.kind, c.name, c.before::text, c.after::text
    FROM revisions AS r LEFT JOIN changes AS c ON c.revision = r.number
    WHERE r.number = $1";

pub(super) const REVISIONS_BETWEEN: &str = "
    SELECT r.number, r.author, r.message, r.at, r.change_count, c.kind, c.name, c.before::text, c.after::text
    FROM revisions AS r LEFT JOIN changes AS c ON c.revision = r.number
    WHERE r.number BETWEEN $1 AND $2 ORDER BY r.number";

pub(super) const HISTORY: &str = "
    SELECT r.number, r.author, r.message, r.at, r.change_count
    FROM revisions AS r WHERE r.number < $1 ORDER BY r.number DESC LIMIT $2";

pub(super) const HISTORY_OF_RESOURCE: &str = "
    SELECT r.number, r.author, r.message, r.at, r.change_count
    FROM changes AS c JOIN revisions AS r ON r.number = c.revision
    WHERE c.kind = $3 AND c.name = $4 AND c.revision < $1 ORDER BY c.revision DESC LIMIT $2";

pub(super) const CHANGES_OF: &str = "
    SELECT r.number, r.author, r.message, r.at, r.change_count, c.kind, c.name, c.before::text, c.after::text
    FROM changes AS c JOIN revisions AS r ON r.number = c.revision
    WHERE c.kind = $3 AND c.name = $4 AND c.revision < $1 ORDER BY c.revision DESC LIMIT $2";

/// The first change after the one revision says what was there, the last up to the other what is there.
pub(super) const CHANGES_BETWEEN: &str = "
    SELECT k.kind, k.name,
        (SELECT c.before::text FROM changes AS c WHERE c.kind = k.kind AND c.name = k.name AND c.revision > $1
            ORDER BY c.revision LIMIT 1),
        (SELECT c.after::text FROM changes AS c WHERE c.kind = k.kind AND c.name = k.name AND c.revision <= $2
            ORDER BY c.revision DESC LIMIT 1)
    FROM (SELECT c.kind, c.name FROM changes AS c
        WHERE c.revision > $1 AND c.revision <= $2 AND (c.kind COLLATE \"C\", c.name COLLATE \"C\") > ($3, $4)
        GROUP BY c.kind, c.name ORDER BY c.kind COLLATE \"C\", c.name COLLATE \"C\" LIMIT $5) AS k
    ORDER BY k.kind COLLATE \"C\", k.name COLLATE \"C\"";

/// A whole revision, and the notification of it: one round trip, however many resources are changed.
/// The notification is delivered when the transaction commits, and not at all if it does not.
pub(super) const WRITE: &str = "
    WITH change AS (
        SELECT * FROM unnest($6::text[], $7::text[], $8::text[], $9::text[]) AS c (kind, name, before, after)
    ), revision AS (
        INSERT INTO revisions (number, author, message, at, change_count)
        VALUES ($1::bigint, $2::text, $3::text, $4::bigint, $5::bigint)
    ), log AS (
        INSERT INTO changes (revision, kind, name, before, after)
        SELECT $1::bigint, c.kind, c.name, c.before::json, c.after::json FROM change AS c
    ), removed AS (
        DELETE FROM resources AS r USING change AS c
        WHERE r.kind = c.kind AND r.name = c.name AND c.after IS NULL
    ), written AS (
        INSERT INTO resources (kind, name, document, revision, updated_at, updated_by)
        SELECT c.kind, c.name, c.after::json, $1::bigint, $4::bigint, $2::text
        FROM change AS c WHERE c.after IS NOT NULL
        ON CONFLICT (kind, name) DO UPDATE SET
            document = excluded.document, revision = excluded.revision,
            updated_at = excluded.updated_at, updated_by = excluded.updated_by
    )
    SELECT pg_notify('chancery_revision', $1::bigint::text)";
