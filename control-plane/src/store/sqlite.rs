//! The store in one SQLite file: the default, for one control plane.
//!
//! - One connection writes, several read. Write-ahead logging lets readers go on while a write is
//!   held, and `BEGIN IMMEDIATE` takes SQLite's own writer lock, so even a second process on the
//!   same file keeps revisions in order.
//! - `synchronous = FULL`: what was acknowledged survives a power cut, not just a crash. It costs one
//!   `fsync` per revision; `NORMAL` would save it and could lose the last revisions, which proxies
//!   may already have applied.
//! - Other processes are not noticed: [`Store::wakeups`] never fires. Who shares a file
//!   between processes finds their revisions by asking for [`Store::head`].
//! - Write-ahead logging needs a local disk, not a network file system.

mod audit;
mod endpoints;
mod enrolments;
mod idempotency;
mod proxies;
mod quarantine;
mod rollouts;
pub(super) mod state;
pub(super) mod survey;
mod tokens;
mod traces;

use std::{collections::BTreeMap, fs::OpenOptions, io, path::Path, time::Duration};

use async_trait::async_trait;
use sqlx::{
    Connection, Sqlite, SqliteConnection, SqlitePool, Transaction,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{
    Change, HistoryQuery, IdempotencyKey, IdempotencyRecord, Loaded, NewRevision, Revision, RevisionSummary, Share,
    SpanQuery, Store, StoreError, Usage, Write,
    failure::{ANSWER_WITHIN, LOAD_WITHIN, MIGRATE_WITHIN, bounded, failure, late},
    rows, schema,
};
use crate::model::Key;

/// How long to wait for another process that writes; less than [`ANSWER_WITHIN`], so that SQLite
/// itself says that it was busy.
const BUSY_TIMEOUT: Duration = Duration::from_secs(4);

const READERS: u32 = 4;

const HEAD: &str = "SELECT coalesce(max(number), 0) FROM revisions";

const LOAD: &str = "
    SELECT h.head, r.document, r.revision, r.updated_at, r.updated_by
    FROM (SELECT coalesce(max(number), 0) AS head FROM revisions) AS h LEFT JOIN resources AS r ON true";

const REVISIONS_AFTER: &str = "
    SELECT r.number, r.author, r.message, r.at, r.change_count, c.kind, c.name, c.before, c.after
    FROM revisions AS r LEFT JOIN changes AS c ON c.revision = r.number
    WHERE r.number > ?1 ORDER BY r.number";

const REVISION: &str = "
    SELECT r.number, r.author, r.message, r.at, r.change_count, c.kind, c.name, c.before, c.after
    FROM revisions AS r LEFT JOIN changes AS c ON c.revision = r.number
    WHERE r.number = ?1";

const REVISIONS_BETWEEN: &str = "
    SELECT r.number, r.author, r.message, r.at, r.change_count, c.kind, c.name, c.before, c.after
    FROM revisions AS r LEFT JOIN changes AS c ON c.revision = r.number
    WHERE r.number BETWEEN ?1 AND ?2 ORDER BY r.number";

const HISTORY: &str = "
    SELECT r.number, r.author, r.message, r.at, r.change_count
    FROM revisions AS r WHERE r.number < ?1 ORDER BY r.number DESC LIMIT ?2";

const HISTORY_OF_RESOURCE: &str = "
    SELECT r.number, r.author, r.message, r.at, r.change_count
    FROM changes AS c JOIN revisions AS r ON r.number = c.revision
    WHERE c.kind = ?3 AND c.name = ?4 AND c.revision < ?1 ORDER BY c.revision DESC LIMIT ?2";

const CHANGES_OF: &str = "
    SELECT r.number, r.author, r.message, r.at, r.change_count, c.kind, c.name, c.before, c.after
    FROM changes AS c JOIN revisions AS r ON r.number = c.revision
    WHERE c.kind = ?3 AND c.name = ?4 AND c.revision < ?1 ORDER BY c.revision DESC LIMIT ?2";

// The first change after the one revision says what was there, the last up to the other what is there.
const CHANGES_BETWEEN: &str = "
    SELECT k.kind, k.name,
        (SELECT c.before FROM changes AS c WHERE c.kind = k.kind AND c.name = k.name AND c.revision > ?1
            ORDER BY c.revision LIMIT 1),
        (SELECT c.after FROM changes AS c WHERE c.kind = k.kind AND c.name = k.name AND c.revision <= ?2
            ORDER BY c.revision DESC LIMIT 1)
    FROM (SELECT c.kind, c.name FROM changes AS c
        WHERE c.revision > ?1 AND c.revision <= ?2 AND (c.kind, c.name) > (?3, ?4)
        GROUP BY c.kind, c.name ORDER BY c.kind, c.name LIMIT ?5) AS k
    ORDER BY k.kind, k.name";

const INSERT_REVISION: &str =
    "INSERT INTO revisions (number, author, message, at, change_count) VALUES (?1, ?2, ?3, ?4, ?5)";

// All changes travel as one JSON array: one statement each, however many resources are changed.
const INSERT_CHANGES: &str = "
    INSERT INTO changes (revision, kind, name, before, after)
    SELECT ?1, e.value ->> 'kind', e.value ->> 'name', e.value ->> 'before', e.value ->> 'after'
    FROM json_each(?2) AS e";

const DELETE_RESOURCES: &str = "
    DELETE FROM resources WHERE (kind, name) IN (
        SELECT e.value ->> 'kind', e.value ->> 'name'
        FROM json_each(?1) AS e WHERE e.value ->> 'after' IS NULL)";

const WRITE_RESOURCES: &str = "
    INSERT INTO resources (kind, name, document, revision, updated_at, updated_by)
    SELECT e.value ->> 'kind', e.value ->> 'name', e.value ->> 'after', ?2, ?3, ?4
    FROM json_each(?1) AS e WHERE e.value ->> 'after' IS NOT NULL
    ON CONFLICT (kind, name) DO UPDATE SET
        document = excluded.document, revision = excluded.revision,
        updated_at = excluded.updated_at, updated_by = excluded.updated_by";

/// A store in a SQLite file, or in memory.
pub(super) struct SqliteStore {
    /// One connection: the pool's queue is the queue of this process's writers.
    writer: SqlitePool,
    readers: SqlitePool,
    wakeups: watch::Sender<()>,
    endpoint_wakeups: watch::Sender<()>,
    rollout_wakeups: watch::Sender<()>,
    token_wakeups: watch::Sender<()>,
}

impl SqliteStore {
    /// Opens the store at `place`, what follows `sqlite:` in its URL, and brings its schema to where `migrator` leads.
    pub(super) async fn open(place: &str, migrator: &Migrator) -> Result<Self, StoreError> {
        let options = connect_options(place)?.busy_timeout(BUSY_TIMEOUT).synchronous(SqliteSynchronous::Full);
        // Connections are kept: an in-memory database lives as long as one of them does.
        let pool = || SqlitePoolOptions::new().acquire_timeout(ANSWER_WITHIN).idle_timeout(None).max_lifetime(None);
        let writer = bounded(
            "opening the database file",
            ANSWER_WITHIN,
            pool()
                .max_connections(1)
                .before_acquire(|connection, _| Box::pin(is_fit(connection)))
                .connect_with(options.clone().journal_mode(SqliteJournalMode::Wal)),
        )
        .await?;
        migrate(&writer, migrator).await?;
        let readers = pool().max_connections(READERS).connect_lazy_with(options.pragma("query_only", "ON"));
        let [wakeups, endpoint_wakeups, rollout_wakeups, token_wakeups] =
            std::array::from_fn(|_| watch::Sender::new(()));
        Ok(Self { writer, readers, wakeups, endpoint_wakeups, rollout_wakeups, token_wakeups })
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn load(&self) -> Result<Loaded, StoreError> {
        // One statement, hence one snapshot.
        let rows = bounded("loading the catalog", LOAD_WITHIN, sqlx::query_as(LOAD).fetch_all(&self.readers));
        rows::loaded(rows.await?)
    }

    async fn head(&self) -> Result<u64, StoreError> {
        let head = sqlx::query_scalar(HEAD).fetch_one(&self.readers);
        rows::number(bounded("reading the newest revision", ANSWER_WITHIN, head).await?)
    }

    async fn usage(&self) -> Result<Usage, StoreError> {
        let busy = |pool: &SqlitePool| pool.size().saturating_sub(u32::try_from(pool.num_idle()).unwrap_or(u32::MAX));
        let used = busy(&self.writer) + busy(&self.readers);
        let size = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
        let size = sqlx::query_scalar::<_, i64>(size).fetch_one(&self.readers);
        let bytes = bounded("reading what is used", ANSWER_WITHIN, size).await?.unsigned_abs();
        Ok(Usage { pool: Share { used, most: 1 + READERS }, server: None, bytes })
    }

    async fn revisions_after(&self, after: u64) -> Result<Vec<Revision>, StoreError> {
        let rows = sqlx::query_as(REVISIONS_AFTER).bind(rows::column(after)).fetch_all(&self.readers);
        rows::revisions(bounded("reading new revisions", ANSWER_WITHIN, rows).await?)
    }

    async fn revision(&self, number: u64) -> Result<Option<Revision>, StoreError> {
        let rows = sqlx::query_as(REVISION).bind(rows::column(number)).fetch_all(&self.readers);
        Ok(rows::revisions(bounded("reading a revision", ANSWER_WITHIN, rows).await?)?.pop())
    }

    async fn history(&self, query: HistoryQuery) -> Result<Vec<RevisionSummary>, StoreError> {
        let HistoryQuery { key, before, limit } = query;
        let before = before.map_or(i64::MAX, rows::column);
        let rows = match key {
            None => sqlx::query_as(HISTORY).bind(before).bind(limit),
            Some(key) => sqlx::query_as(HISTORY_OF_RESOURCE)
                .bind(before)
                .bind(limit)
                .bind(key.kind.as_str())
                .bind(key.name.to_string()),
        };
        let rows = bounded("reading the history", ANSWER_WITHIN, rows.fetch_all(&self.readers)).await?;
        rows.into_iter().map(rows::summary).collect()
    }

    async fn changes_of(&self, key: &Key, before: Option<u64>, limit: u32) -> Result<Vec<Revision>, StoreError> {
        let rows = sqlx::query_as(CHANGES_OF)
            .bind(before.map_or(i64::MAX, rows::column))
            .bind(limit)
            .bind(key.kind.as_str())
            .bind(key.name.as_str())
            .fetch_all(&self.readers);
        rows::revisions(bounded("reading the history of a resource", ANSWER_WITHIN, rows).await?)
    }

    async fn changes_between(&self, span: SpanQuery) -> Result<Vec<Change>, StoreError> {
        let SpanQuery { from, to, after, limit } = span;
        let (kind, name) = rows::place(after.as_ref());
        let rows = sqlx::query_as(CHANGES_BETWEEN)
            .bind(rows::column(from))
            .bind(rows::column(to))
            .bind(kind)
            .bind(name)
            .bind(limit)
            .fetch_all(&self.readers);
        rows::span(to, bounded("comparing revisions", ANSWER_WITHIN, rows).await?)
    }

    async fn begin(&self) -> Result<Box<dyn Write>, StoreError> {
        let locked = async {
            let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            let head = sqlx::query_scalar(HEAD).fetch_one(&mut *transaction).await?;
            Ok((transaction, head))
        };
        let (transaction, head) = bounded("taking the writers' lock", ANSWER_WITHIN, locked).await?;
        Ok(Box::new(SqliteWrite { transaction, head: rows::number(head)? }))
    }

    fn wakeups(&self) -> watch::Receiver<()> {
        self.wakeups.subscribe()
    }

    async fn close(&self) {
        let closed = async {
            self.readers.close().await;
            self.writer.close().await;
        };
        if tokio::time::timeout(ANSWER_WITHIN, closed).await.is_err() {
            tracing::warn!("the database is closed while a write is still held; the write is lost");
        }
    }
}

/// A write that holds SQLite's writer lock; dropping it rolls back.
struct SqliteWrite {
    transaction: Transaction<'static, Sqlite>,
    head: u64,
}

#[async_trait]
impl Write for SqliteWrite {
    fn head(&self) -> u64 {
        self.head
    }

    async fn revisions_after(&mut self, after: u64) -> Result<Vec<Revision>, StoreError> {
        let rows = sqlx::query_as(REVISIONS_AFTER).bind(rows::column(after)).fetch_all(&mut *self.transaction);
        rows::revisions(bounded("reading new revisions", ANSWER_WITHIN, rows).await?)
    }

    async fn idempotency(
        &mut self,
        key: &IdempotencyKey,
        since: OffsetDateTime,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        idempotency::find(&mut *self.transaction, key, since).await
    }

    async fn keep(&mut self, record: IdempotencyRecord, most: u32) -> Result<(), StoreError> {
        idempotency::keep(&mut self.transaction, record, most).await
    }

    async fn traced(&mut self, traceparent: &str) -> Result<(), StoreError> {
        traces::keep(&mut self.transaction, self.head + 1, traceparent).await
    }

    async fn traces_after(&mut self, after: u64) -> Result<BTreeMap<u64, String>, StoreError> {
        traces::find(&mut *self.transaction, after).await
    }

    async fn end(self: Box<Self>) -> Result<(), StoreError> {
        bounded("ending a write", ANSWER_WITHIN, self.transaction.commit()).await
    }

    async fn commit(self: Box<Self>, revision: NewRevision) -> Result<Revision, StoreError> {
        let Self { mut transaction, head } = *self;
        let encoded = rows::encode(head + 1, revision)?;
        let written = async {
            write(&mut transaction, &encoded).await?;
            transaction.commit().await
        };
        bounded("writing a revision", ANSWER_WITHIN, written).await?;
        Ok(encoded.revision)
    }
}

async fn write(connection: &mut SqliteConnection, encoded: &rows::Encoded) -> Result<(), sqlx::Error> {
    let rows::Encoded { number, at, change_count, changes, revision, digest, entry } = encoded;
    let changes = serde_json::to_string(changes).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
    sqlx::query(INSERT_REVISION)
        .bind(number)
        .bind(&revision.summary.author)
        .bind(&revision.summary.message)
        .bind(at)
        .bind(change_count)
        .execute(&mut *connection)
        .await?;
    sqlx::query(INSERT_CHANGES).bind(number).bind(&changes).execute(&mut *connection).await?;
    sqlx::query(DELETE_RESOURCES).bind(&changes).execute(&mut *connection).await?;
    sqlx::query(WRITE_RESOURCES)
        .bind(&changes)
        .bind(number)
        .bind(at)
        .bind(&revision.summary.author)
        .execute(&mut *connection)
        .await?;
    audit::append(connection, vec![entry.clone()], Some((revision.summary.number, digest.clone()))).await
}

/// Whether a transaction can begin on a connection; one that is not fit is closed, and another opened. When the disk is full SQLite
/// itself rolls back, the driver's own attempt fails, and the driver goes on to believe that the transaction is open.
async fn is_fit(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    Ok(!connection.is_in_transaction())
}

/// SQLite has no lock for migrations, so all of them run under its writer lock.
async fn migrate(pool: &SqlitePool, migrator: &Migrator) -> Result<(), StoreError> {
    const CONTEXT: &str = "bringing the schema up to date";
    let migrated = async {
        let mut connection = pool.acquire().await.map_err(|error| failure(CONTEXT, error))?;
        let mut transaction =
            connection.begin_with("BEGIN IMMEDIATE").await.map_err(|error| failure(CONTEXT, error))?;
        schema::migrate(migrator, &mut *transaction).await?;
        transaction.commit().await.map_err(|error| failure(CONTEXT, error))
    };
    tokio::time::timeout(MIGRATE_WITHIN, migrated).await.unwrap_or_else(|_| Err(late(CONTEXT, MIGRATE_WITHIN)))
}

fn connect_options(place: &str) -> Result<SqliteConnectOptions, StoreError> {
    let path = path_of(place)?;
    if path == ":memory:" {
        // Shared between the connections of one store, by a name that no other store has.
        return "sqlite::memory:".parse().map_err(|error| failure("opening the database", error));
    }
    create_private(Path::new(path))?;
    Ok(SqliteConnectOptions::new().filename(path))
}

/// The path in what follows `sqlite:` in a URL.
fn path_of(place: &str) -> Result<&str, StoreError> {
    let path = place.strip_prefix("//").unwrap_or(place);
    if path.is_empty() || path.contains('?') {
        return Err(StoreError::Url("a SQLite URL is sqlite://PATH, without parameters".to_owned()));
    }
    Ok(path)
}

/// Of a file that is there.
fn existing_options(place: &str) -> Result<SqliteConnectOptions, StoreError> {
    let path = place.strip_prefix("//").unwrap_or(place);
    if !Path::new(path).is_file() {
        return Err(StoreError::Url(format!("there is no database file {path:?}")));
    }
    Ok(SqliteConnectOptions::new().filename(path).create_if_missing(false))
}

/// Creates the file, readable to its owner only: it holds everything the proxies are told. SQLite
/// gives the files it adds beside it the same mode.
fn create_private(path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(_) if path.is_dir() => Err(StoreError::Url(format!("{} is a directory", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::Url(format!("the directory of {} does not exist", path.display())))
        }
        Err(error) => Err(StoreError::Failed { context: "creating the database file", source: Box::new(error) }),
    }
}

#[cfg(test)]
mod tests;
