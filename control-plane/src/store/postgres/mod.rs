//! The store in Postgres: for several control planes on one database.
//!
//! - Writers take one transaction-level advisory lock *before* they read the head, so revision
//!   numbers are in commit order. A sequence would not do: of two open transactions the one with the
//!   higher number may commit first, and a reader that has gone past it never sees the other.
//! - Within a process, writers queue for one connection, so that waiting ones do not take those
//!   that readers need.
//! - Whoever holds the lock and falls silent (a machine that lost power, a paused process) is cut off by
//!   Postgres after ten seconds, so the others can write again without waiting for TCP to notice.
//! - A connection goes back to the pool only after it has answered. One that was left in the middle
//!   of a statement is closed: nobody knows what state it is in, and behind a network that swallows
//!   packets it would hold its place in the pool for a quarter of an hour.
//! - Timeouts are set per transaction, not in the connection's start-up packet, which many poolers
//!   refuse. A pooler must keep sessions, though: `LISTEN` does not survive transaction pooling.
//!
//! If the connection breaks while `COMMIT` is under way, nobody can know whether it took effect. The
//! writer gets [`StoreError::Unavailable`], and a wake-up makes this process look.

mod audit;
mod endpoints;
mod enrolments;
mod hosts;
mod idempotency;
mod lease;
mod listen;
mod pool;
mod proxies;
mod quarantine;
mod rollouts;
mod sql;
pub(super) mod state;
pub(super) mod survey;
mod tokens;
mod traces;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{Connection, Row, migrate::Migrator};
use time::OffsetDateTime;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Change, HistoryQuery, IdempotencyKey, IdempotencyRecord, Loaded, NewRevision, Revision, RevisionSummary, Share,
    SpanQuery, Store, StoreError, Usage, Write,
    failure::{ANSWER_WITHIN, LOAD_WITHIN, MIGRATE_WITHIN, bounded, failure, late},
    rows, schema,
};
use crate::model::Key;
use hosts::Hosts;
use lease::Lease;
use pool::Pool;

/// How long to try to connect. A restart of Postgres that is quicker is not noticed by callers.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

const MAX_CONNECTIONS: u32 = 8;

/// A store in a Postgres database.
pub(super) struct PostgresStore {
    pool: Pool,
    /// The queue of this process's writers.
    turn: Arc<Mutex<()>>,
    /// The newest revision that this process committed: its notification wakes nobody here.
    committed: Arc<AtomicU64>,
    wakeups: watch::Sender<()>,
    endpoint_wakeups: watch::Sender<()>,
    rollout_wakeups: watch::Sender<()>,
    token_wakeups: watch::Sender<()>,
    /// Ends with the store.
    listener: AbortOnDropHandle<()>,
}

impl PostgresStore {
    /// Connects to `url`, brings the schema to where `migrator` leads and listens for other writers.
    pub(super) async fn open(url: &str, migrator: &Migrator) -> Result<Self, StoreError> {
        let hosts = Hosts::parse(url, "chancery")?;
        migrate(&hosts, migrator).await?;
        let pool = Pool::new(hosts.clone());
        let committed = Arc::new(AtomicU64::new(0));
        let [wakeups, endpoint_wakeups, rollout_wakeups, token_wakeups] =
            std::array::from_fn(|_| watch::Sender::new(()));
        let wake = listen::Wake {
            revisions: wakeups.clone(),
            endpoints: endpoint_wakeups.clone(),
            rollouts: rollout_wakeups.clone(),
            tokens: token_wakeups.clone(),
        };
        let listener = AbortOnDropHandle::new(tokio::spawn(listen::listen(hosts, Arc::clone(&committed), wake)));
        let turn = Arc::default();
        Ok(Self { pool, turn, committed, wakeups, endpoint_wakeups, rollout_wakeups, token_wakeups, listener })
    }

    async fn change_rows(
        &self,
        context: &'static str,
        sql: &'static str,
        number: u64,
    ) -> Result<Vec<Revision>, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let rows = sqlx::query_as(sql).bind(rows::column(number)).fetch_all(lease.connection());
        let rows = bounded(context, ANSWER_WITHIN, rows).await?;
        lease.answered();
        rows::revisions(rows)
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn load(&self) -> Result<Loaded, StoreError> {
        // One statement, hence one snapshot.
        let mut lease = Lease::take(&self.pool).await?;
        let rows = sqlx::query_as(sql::LOAD).fetch_all(lease.connection());
        let rows = bounded("loading the catalog", LOAD_WITHIN, rows).await?;
        lease.answered();
        rows::loaded(rows)
    }

    async fn head(&self) -> Result<u64, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let head = sqlx::query_scalar(sql::HEAD).fetch_one(lease.connection());
        let head = bounded("reading the newest revision", ANSWER_WITHIN, head).await?;
        lease.answered();
        rows::number(head)
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let used = self.pool.used();
        let mut lease = Lease::take(&self.pool).await?;
        let row = sqlx::query_as::<_, (i64, i64, i64)>(sql::USAGE).fetch_one(lease.connection());
        let (connections, most, bytes) = bounded("reading what is used", ANSWER_WITHIN, row).await?;
        lease.answered();
        let count = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(Usage {
            pool: Share { used, most: MAX_CONNECTIONS },
            server: Some(Share { used: count(connections), most: count(most) }),
            bytes: bytes.unsigned_abs(),
        })
    }

    async fn revisions_after(&self, after: u64) -> Result<Vec<Revision>, StoreError> {
        self.change_rows("reading new revisions", sql::REVISIONS_AFTER, after).await
    }

    async fn revision(&self, number: u64) -> Result<Option<Revision>, StoreError> {
        Ok(self.change_rows("reading a revision", sql::REVISION, number).await?.pop())
    }

    async fn history(&self, query: HistoryQuery) -> Result<Vec<RevisionSummary>, StoreError> {
        let HistoryQuery { key, before, limit } = query;
        let before = before.map_or(i64::MAX, rows::column);
        let rows = match &key {
            None => sqlx::query_as(sql::HISTORY).bind(before).bind(i64::from(limit)),
            Some(key) => sqlx::query_as(sql::HISTORY_OF_RESOURCE)
                .bind(before)
                .bind(i64::from(limit))
                .bind(key.kind.as_str())
                .bind(key.name.as_str()),
        };
        let mut lease = Lease::take(&self.pool).await?;
        let rows = bounded("reading the history", ANSWER_WITHIN, rows.fetch_all(lease.connection())).await?;
        lease.answered();
        rows.into_iter().map(rows::summary).collect()
    }

    async fn changes_of(&self, key: &Key, before: Option<u64>, limit: u32) -> Result<Vec<Revision>, StoreError> {
        let mut lease = Lease::take(&self.pool).await?;
        let rows = sqlx::query_as(sql::CHANGES_OF)
            .bind(before.map_or(i64::MAX, rows::column))
            .bind(i64::from(limit))
            .bind(key.kind.as_str())
            .bind(key.name.as_str())
            .fetch_all(lease.connection());
        let rows = bounded("reading the history of a resource", ANSWER_WITHIN, rows).await?;
        lease.answered();
        rows::revisions(rows)
    }

    async fn changes_between(&self, span: SpanQuery) -> Result<Vec<Change>, StoreError> {
        let SpanQuery { from, to, after, limit } = span;
        let (kind, name) = rows::place(after.as_ref());
        let mut lease = Lease::take(&self.pool).await?;
        let rows = sqlx::query_as(sql::CHANGES_BETWEEN)
            .bind(rows::column(from))
            .bind(rows::column(to))
            .bind(kind)
            .bind(name)
            .bind(i64::from(limit))
            .fetch_all(lease.connection());
        let rows = bounded("comparing revisions", ANSWER_WITHIN, rows).await?;
        lease.answered();
        rows::span(to, rows)
    }

    async fn begin(&self) -> Result<Box<dyn Write>, StoreError> {
        const CONTEXT: &str = "taking the writers' lock";
        let locked = async {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            let mut lease = Lease::take(&self.pool).await?;
            let begin = sqlx::raw_sql(sql::BEGIN).fetch_all(lease.connection());
            let answers = bounded(CONTEXT, ANSWER_WITHIN, begin).await?;
            let head = answers.last().ok_or(sqlx::Error::RowNotFound).and_then(|row| row.try_get(0));
            let head = rows::number(head.map_err(|error| failure(CONTEXT, error))?)?;
            lease.answered();
            Ok((turn, lease, head))
        };
        let (turn, lease, head) =
            tokio::time::timeout(ANSWER_WITHIN, locked).await.unwrap_or_else(|_| Err(late(CONTEXT, ANSWER_WITHIN)))?;
        Ok(Box::new(PostgresWrite {
            held: Some((lease, turn)),
            head,
            committed: Arc::clone(&self.committed),
            wakeups: self.wakeups.clone(),
        }))
    }

    fn wakeups(&self) -> watch::Receiver<()> {
        self.wakeups.subscribe()
    }

    async fn close(&self) {
        self.listener.abort();
        if tokio::time::timeout(ANSWER_WITHIN, self.pool.close()).await.is_err() {
            tracing::warn!("the database is left before every connection to it could be closed");
        }
    }
}

/// A write that holds the advisory lock; dropping it rolls back.
struct PostgresWrite {
    /// `None` once it is committed, or has failed.
    held: Option<(Lease, OwnedMutexGuard<()>)>,
    head: u64,
    committed: Arc<AtomicU64>,
    wakeups: watch::Sender<()>,
}

/// Cannot happen: `commit` takes the write with it.
#[derive(Debug, thiserror::Error)]
#[error("this write is finished")]
struct Finished;

impl From<Finished> for StoreError {
    fn from(source: Finished) -> Self {
        StoreError::Failed { context: "using a write", source: Box::new(source) }
    }
}

#[async_trait]
impl Write for PostgresWrite {
    fn head(&self) -> u64 {
        self.head
    }

    async fn revisions_after(&mut self, after: u64) -> Result<Vec<Revision>, StoreError> {
        let Some((lease, _)) = &mut self.held else { return Err(Finished.into()) };
        let rows = sqlx::query_as(sql::REVISIONS_AFTER).bind(rows::column(after)).fetch_all(lease.connection());
        let rows = bounded("reading new revisions", ANSWER_WITHIN, rows).await?;
        lease.answered();
        rows::revisions(rows)
    }

    async fn idempotency(
        &mut self,
        key: &IdempotencyKey,
        since: OffsetDateTime,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        let Some((lease, _)) = &mut self.held else { return Err(Finished.into()) };
        idempotency::find(lease, key, since).await
    }

    async fn keep(&mut self, record: IdempotencyRecord, most: u32) -> Result<(), StoreError> {
        let Some((lease, _)) = &mut self.held else { return Err(Finished.into()) };
        idempotency::keep(lease, record, most).await
    }

    async fn traced(&mut self, traceparent: &str) -> Result<(), StoreError> {
        let Some((lease, _)) = &mut self.held else { return Err(Finished.into()) };
        traces::keep(lease, self.head + 1, traceparent).await
    }

    async fn traces_after(&mut self, after: u64) -> Result<BTreeMap<u64, String>, StoreError> {
        let Some((lease, _)) = &mut self.held else { return Err(Finished.into()) };
        traces::find(lease, after).await
    }

    async fn end(mut self: Box<Self>) -> Result<(), StoreError> {
        let Some((mut lease, turn)) = self.held.take() else { return Err(Finished.into()) };
        let commit = sqlx::raw_sql("COMMIT").execute(lease.connection());
        bounded("ending a write", ANSWER_WITHIN, commit).await?;
        lease.answered();
        drop((lease, turn));
        Ok(())
    }

    async fn commit(mut self: Box<Self>, revision: NewRevision) -> Result<Revision, StoreError> {
        let encoded = rows::encode(self.head + 1, revision)?;
        let rows::Encoded { number, at, change_count, changes, revision, digest, entry } = encoded;
        let Some((mut lease, turn)) = self.held.take() else { return Err(Finished.into()) };
        let mut columns: (Vec<&str>, Vec<String>, Vec<Option<String>>, Vec<Option<String>>) = Default::default();
        for change in changes {
            columns.0.push(change.kind);
            columns.1.push(change.name);
            columns.2.push(change.before);
            columns.3.push(change.after);
        }
        let write = sqlx::query(sql::WRITE)
            .bind(number)
            .bind(&revision.summary.author)
            .bind(&revision.summary.message)
            .bind(at)
            .bind(change_count)
            .bind(columns.0)
            .bind(columns.1)
            .bind(columns.2)
            .bind(columns.3)
            .execute(lease.connection());
        bounded("writing a revision", ANSWER_WITHIN, write).await?;
        let digest = Some((revision.summary.number, digest));
        let audited = audit::append(lease.connection(), vec![entry], digest);
        bounded("writing the audit log", ANSWER_WITHIN, audited).await?;
        let commit = sqlx::raw_sql("COMMIT").execute(lease.connection());
        if let Err(error) = bounded("committing a revision", ANSWER_WITHIN, commit).await {
            self.wakeups.send_replace(());
            return Err(error);
        }
        self.committed.fetch_max(revision.summary.number, Ordering::Relaxed);
        lease.answered();
        drop((lease, turn));
        Ok(revision)
    }
}

impl Drop for PostgresWrite {
    fn drop(&mut self) {
        if let Some((lease, turn)) = self.held.take() {
            lease.roll_back(turn);
        }
    }
}

/// Runs on a connection of its own, closed in the end: a failed migration leaves its lock on it.
async fn migrate(hosts: &Hosts, migrator: &Migrator) -> Result<(), StoreError> {
    let mut connection = hosts.connect().await?;
    const CONTEXT: &str = "bringing the schema up to date";
    let migrated = tokio::time::timeout(MIGRATE_WITHIN, schema::migrate(migrator, &mut connection))
        .await
        .unwrap_or_else(|_| Err(late(CONTEXT, MIGRATE_WITHIN)));
    // Best effort: dropping the connection closes it as well.
    let _ = tokio::time::timeout(CONNECT_WITHIN, connection.close()).await;
    migrated
}
