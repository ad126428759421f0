//! The audit log, in Postgres.

use async_trait::async_trait;
use sqlx::{PgConnection, Row as _, query, query_as, raw_sql};
use time::OffsetDateTime;

use super::{PostgresStore, StoreError, bounded, lease::Lease, sql};
use crate::store::{
    audit::{self, AuditQuery, AuditRecords, AuditRow, Entry, Hash, NewEntry, TRIMMED_AT_ONCE},
    failure::ANSWER_WITHIN,
    rows,
};

/// A transaction that waits and works for a bounded time.
const BEGIN: &str = "
    BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL lock_timeout = '5s';
    SET LOCAL statement_timeout = '10s';
    SET LOCAL idle_in_transaction_session_timeout = '10s'";

/// Takes the chain's lock and answers with its head. The number is the second after the writers': the next is that of leases.
const LOCK: &str = "
    SELECT pg_advisory_xact_lock(7163082334074663547);
    SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1";

const APPEND: &str = "
    INSERT INTO audit (sequence, at, actor, address, action, outcome, kind, name, detail, before, after, times, revision, digest,
        previous, hash)
    SELECT sequence, at, actor, address, action, outcome, kind, name, detail, before, after, times, revision, digest,
        previous, hash
    FROM json_to_recordset($1::json) AS e (sequence bigint, at bigint, actor text, address text, action text, outcome text,
        kind text, name text, detail text, before text, after text, times bigint, revision bigint, digest text, previous text,
        hash text)";

// About a revision is what is about anything that it changed.
const AUDIT: &str = "
    SELECT sequence, at, actor, address, action, outcome, kind, name, detail, before, after, times, revision, digest,
        previous, hash
    FROM audit AS a
    WHERE sequence < $1 AND ($3::text IS NULL OR actor = $3) AND ($4::text IS NULL OR action = $4)
        AND ($5::text IS NULL OR outcome = $5) AND ($8::bigint IS NULL OR at >= $8) AND ($9::bigint IS NULL OR at < $9)
        AND (($6::text IS NULL OR lower(kind) = lower($6)) AND ($7::text IS NULL OR name = $7)
            OR EXISTS (SELECT 1 FROM changes AS c WHERE c.revision = a.revision
                AND ($6::text IS NULL OR lower(c.kind) = lower($6)) AND ($7::text IS NULL OR c.name = $7)))
    ORDER BY sequence DESC LIMIT $2";

const AUDIT_AFTER: &str = "
    SELECT sequence, at, actor, address, action, outcome, kind, name, detail, before, after, times, revision, digest,
        previous, hash
    FROM audit WHERE sequence > $1 ORDER BY sequence LIMIT $2";

// The last of the oldest that may go, none of them younger.
const TRIM_TO: &str = "
    SELECT sequence, hash FROM audit
    WHERE sequence < coalesce((SELECT min(sequence) FROM audit WHERE at >= $1), 9223372036854775807)
        AND sequence < (SELECT min(sequence) FROM audit) + $2
    ORDER BY sequence DESC LIMIT 1";

const TRIM: &str = "DELETE FROM audit WHERE sequence <= $1";

#[async_trait]
impl AuditRecords for PostgresStore {
    async fn append_audit(&self, entries: Vec<NewEntry>) -> Result<(), StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let appended = async {
            raw_sql(BEGIN).execute(lease.connection()).await?;
            append(lease.connection(), entries, None).await?;
            raw_sql("COMMIT").execute(lease.connection()).await
        };
        bounded("writing the audit log", ANSWER_WITHIN, appended).await?;
        lease.answered();
        Ok(())
    }

    async fn audit(&self, wanted: AuditQuery) -> Result<Vec<Entry>, StoreError> {
        let AuditQuery { actor, action, outcome, kind, name, since, until, before, limit } = wanted;
        let mut lease = Lease::take(&self.pool).await?;
        let found = query_as(AUDIT).bind(before.map_or(i64::MAX, rows::column)).bind(i64::from(limit));
        let found = found.bind(actor).bind(action).bind(outcome).bind(kind).bind(name);
        let found = found.bind(since.map(rows::moment)).bind(until.map(rows::moment)).fetch_all(lease.connection());
        let found: Vec<AuditRow> = bounded("reading the audit log", ANSWER_WITHIN, found).await?;
        lease.answered();
        audit::entries(found)
    }

    async fn audit_after(&self, sequence: u64, limit: u32) -> Result<Vec<Entry>, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let found = query_as(AUDIT_AFTER).bind(rows::column(sequence)).bind(i64::from(limit));
        let found = bounded("reading the audit log", ANSWER_WITHIN, found.fetch_all(lease.connection())).await?;
        lease.answered();
        audit::entries(found)
    }

    async fn revision_digests(&self, first: u64, last: u64) -> Result<Vec<(u64, Hash)>, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let found = query_as(sql::REVISIONS_BETWEEN).bind(rows::column(first)).bind(rows::column(last));
        let digests = rows::digests(found.fetch(lease.connection()));
        let digests = bounded("reading revisions", ANSWER_WITHIN, digests).await?;
        lease.answered();
        rows::numbered(digests)
    }

    async fn trim_audit(&self, before: OffsetDateTime, now: OffsetDateTime) -> Result<u64, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let trimmed = async {
            raw_sql(BEGIN).execute(lease.connection()).await?;
            // Under the lock: of two replicas, one forgets them.
            raw_sql(LOCK).fetch_all(lease.connection()).await?;
            let to: Option<(i64, Hash)> = query_as(TRIM_TO)
                .bind(rows::moment(before))
                .bind(rows::column(TRIMMED_AT_ONCE))
                .fetch_optional(lease.connection())
                .await?;
            let mut gone = 0;
            if let Some((sequence, hash)) = to {
                let said = audit::of_trim(sequence.cast_unsigned(), &hash, now);
                append(lease.connection(), vec![said], None).await?;
                gone = query(TRIM).bind(sequence).execute(lease.connection()).await?.rows_affected();
            }
            raw_sql("COMMIT").execute(lease.connection()).await?;
            Ok(gone)
        };
        let gone = bounded("forgetting old entries of the audit log", ANSWER_WITHIN, trimmed).await?;
        lease.answered();
        Ok(gone)
    }
}

/// Appends entries in the transaction that `connection` is in, which holds the chain's lock from here to its end.
pub(super) async fn append(
    connection: &mut PgConnection,
    entries: Vec<NewEntry>,
    revision: Option<(u64, Hash)>,
) -> Result<(), sqlx::Error> {
    let head = raw_sql(LOCK).fetch_all(&mut *connection).await?;
    // The row of the lock comes first.
    let last = match head.get(1) {
        Some(row) => Some((row.try_get::<i64, _>(0)?.cast_unsigned(), row.try_get(1)?)),
        None => None,
    };
    let entries = rows::audit(&audit::sealed(entries, last, revision))?;
    query(APPEND).bind(entries).execute(connection).await?;
    Ok(())
}

impl PostgresStore {
    /// Makes a change, which says whether it changed anything: if it did, with `entry`; if not, nothing is left of it.
    pub(super) async fn with_entry(
        &self,
        context: &'static str,
        entry: NewEntry,
        change: impl AsyncFnOnce(&mut PgConnection) -> Result<bool, sqlx::Error>,
    ) -> Result<bool, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let changed = bounded(context, ANSWER_WITHIN, with_entry(lease.connection(), entry, change)).await?;
        lease.answered();
        Ok(changed)
    }
}

/// The same, by a connection that is in no transaction.
pub(super) async fn with_entry(
    connection: &mut PgConnection,
    entry: NewEntry,
    change: impl AsyncFnOnce(&mut PgConnection) -> Result<bool, sqlx::Error>,
) -> Result<bool, sqlx::Error> {
    raw_sql(BEGIN).execute(&mut *connection).await?;
    let changed = change(&mut *connection).await?;
    if changed {
        append(connection, vec![entry], None).await?;
    }
    raw_sql(if changed { "COMMIT" } else { "ROLLBACK" }).execute(connection).await?;
    Ok(changed)
}
