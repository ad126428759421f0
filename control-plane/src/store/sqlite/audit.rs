//! The audit log, in SQLite. Whoever writes has SQLite's writer lock, so the chain needs none of its own.

use async_trait::async_trait;
use sqlx::{SqliteConnection, query, query_as};
use time::OffsetDateTime;

use super::{REVISIONS_BETWEEN, SqliteStore, StoreError, bounded};
use crate::store::{
    audit::{self, AuditQuery, AuditRecords, AuditRow, Entry, Hash, NewEntry, TRIMMED_AT_ONCE},
    failure::ANSWER_WITHIN,
    rows,
};

pub(super) const HEAD: &str = "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1";

const APPEND: &str = "
    INSERT INTO audit (sequence, at, actor, address, action, outcome, kind, name, detail, before, after, times, revision, digest,
        previous, hash)
    SELECT e.value ->> 'sequence', e.value ->> 'at', e.value ->> 'actor', e.value ->> 'address', e.value ->> 'action',
        e.value ->> 'outcome', e.value ->> 'kind', e.value ->> 'name', e.value ->> 'detail', e.value ->> 'before',
        e.value ->> 'after', e.value ->> 'times', e.value ->> 'revision', e.value ->> 'digest', e.value ->> 'previous',
        e.value ->> 'hash'
    FROM json_each(?1) AS e";

// About a revision is what is about anything that it changed.
const AUDIT: &str = "
    SELECT sequence, at, actor, address, action, outcome, kind, name, detail, before, after, times, revision, digest,
        previous, hash
    FROM audit AS a
    WHERE sequence < ?1 AND (?3 IS NULL OR actor = ?3) AND (?4 IS NULL OR action = ?4) AND (?5 IS NULL OR outcome = ?5)
        AND (?8 IS NULL OR at >= ?8) AND (?9 IS NULL OR at < ?9)
        AND ((?6 IS NULL OR lower(kind) = lower(?6)) AND (?7 IS NULL OR name = ?7)
            OR EXISTS (SELECT 1 FROM changes AS c WHERE c.revision = a.revision
                AND (?6 IS NULL OR lower(c.kind) = lower(?6)) AND (?7 IS NULL OR c.name = ?7)))
    ORDER BY sequence DESC LIMIT ?2";

const AUDIT_AFTER: &str = "
    SELECT sequence, at, actor, address, action, outcome, kind, name, detail, before, after, times, revision, digest,
        previous, hash
    FROM audit WHERE sequence > ?1 ORDER BY sequence LIMIT ?2";

// The last of the oldest that may go, none of them younger.
const TRIM_TO: &str = "
    SELECT sequence, hash FROM audit
    WHERE sequence < coalesce((SELECT min(sequence) FROM audit WHERE at >= ?1), 9223372036854775807)
        AND sequence < (SELECT min(sequence) FROM audit) + ?2
    ORDER BY sequence DESC LIMIT 1";

const TRIM: &str = "DELETE FROM audit WHERE sequence <= ?1";

#[async_trait]
impl AuditRecords for SqliteStore {
    async fn append_audit(&self, entries: Vec<NewEntry>) -> Result<(), StoreError> {
        let appended = async {
            let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            append(&mut transaction, entries, None).await?;
            transaction.commit().await
        };
        bounded("writing the audit log", ANSWER_WITHIN, appended).await
    }

    async fn audit(&self, wanted: AuditQuery) -> Result<Vec<Entry>, StoreError> {
        let AuditQuery { actor, action, outcome, kind, name, since, until, before, limit } = wanted;
        let found = query_as(AUDIT).bind(before.map_or(i64::MAX, rows::column)).bind(limit);
        let found = found.bind(actor).bind(action).bind(outcome).bind(kind).bind(name);
        let found = found.bind(since.map(rows::moment)).bind(until.map(rows::moment)).fetch_all(&self.readers);
        let found: Vec<AuditRow> = bounded("reading the audit log", ANSWER_WITHIN, found).await?;
        audit::entries(found)
    }

    async fn audit_after(&self, sequence: u64, limit: u32) -> Result<Vec<Entry>, StoreError> {
        let found = query_as(AUDIT_AFTER).bind(rows::column(sequence)).bind(limit).fetch_all(&self.readers);
        audit::entries(bounded("reading the audit log", ANSWER_WITHIN, found).await?)
    }

    async fn revision_digests(&self, first: u64, last: u64) -> Result<Vec<(u64, Hash)>, StoreError> {
        let found = query_as(REVISIONS_BETWEEN).bind(rows::column(first)).bind(rows::column(last));
        let digests = rows::digests(found.fetch(&self.readers));
        rows::numbered(bounded("reading revisions", ANSWER_WITHIN, digests).await?)
    }

    async fn trim_audit(&self, before: OffsetDateTime, now: OffsetDateTime) -> Result<u64, StoreError> {
        let trimmed = async {
            let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            let to: Option<(i64, Hash)> = query_as(TRIM_TO)
                .bind(rows::moment(before))
                .bind(rows::column(TRIMMED_AT_ONCE))
                .fetch_optional(&mut *transaction)
                .await?;
            let Some((sequence, hash)) = to else { return Ok(0) };
            let said = audit::of_trim(sequence.cast_unsigned(), &hash, now);
            append(&mut transaction, vec![said], None).await?;
            let gone = query(TRIM).bind(sequence).execute(&mut *transaction).await?.rows_affected();
            transaction.commit().await?;
            Ok(gone)
        };
        bounded("forgetting old entries of the audit log", ANSWER_WITHIN, trimmed).await
    }
}

impl SqliteStore {
    /// Makes a change, which says whether it changed anything: if it did, with `entry`; if not, nothing is left of it.
    pub(super) async fn with_entry(
        &self,
        entry: NewEntry,
        change: impl AsyncFnOnce(&mut SqliteConnection) -> Result<bool, sqlx::Error>,
    ) -> Result<bool, sqlx::Error> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let changed = change(&mut transaction).await?;
        if changed {
            append(&mut transaction, vec![entry], None).await?;
            transaction.commit().await?;
        } else {
            transaction.rollback().await?;
        }
        Ok(changed)
    }
}

/// Appends entries in the transaction that `connection` is in, which holds the writer lock.
pub(super) async fn append(
    connection: &mut SqliteConnection,
    entries: Vec<NewEntry>,
    revision: Option<(u64, Hash)>,
) -> Result<(), sqlx::Error> {
    let head: Option<(i64, Hash)> = query_as(HEAD).fetch_optional(&mut *connection).await?;
    let last = head.map(|(sequence, hash)| (sequence.cast_unsigned(), hash));
    let entries = rows::audit(&audit::sealed(entries, last, revision))?;
    query(APPEND).bind(entries).execute(connection).await?;
    Ok(())
}
