//! What every store promises.
//!
//! Revisions are numbered 1, 2, 3 … in commit order without gaps: a writer holds one exclusive lock
//! from [`Store::begin`] to [`Write::commit`], so a reader that has seen revision *n* has seen
//! all that came before it, and `revisions_after(n)` can never skip one that commits late.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::{
    AuditRecords, EndpointStore, EnrolmentRecords, IdempotencyKey, IdempotencyRecord, IdempotencyRecords, ProxyRecords,
    QuarantineRecords, RolloutRecords, TokenRecords, TraceRecords,
};
use crate::model::{Document, Key};

/// A resource as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// What the user wrote.
    pub document: Arc<Document>,
    /// The revision that last changed it; its `ETag`.
    pub revision: u64,
    /// When that was.
    pub updated_at: OffsetDateTime,
    /// Who did it.
    pub updated_by: String,
}

/// What one revision did to one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Which resource.
    pub key: Key,
    /// What it was, `None` if it was created.
    pub before: Option<Arc<Document>>,
    /// What it is, `None` if it was deleted.
    pub after: Option<Arc<Document>>,
}

/// A revision with all its changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// Number, author, message, time.
    pub summary: RevisionSummary,
    /// The changes, sorted by key, each key once.
    pub changes: Vec<Change>,
}

/// A revision without its changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionSummary {
    /// Its number, from 1.
    pub number: u64,
    /// Who committed it.
    pub author: String,
    /// Why.
    pub message: String,
    /// When.
    pub at: OffsetDateTime,
    /// How many resources it changed.
    pub change_count: u64,
}

/// Everything at one revision.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The revision; 0 when nothing was ever committed.
    pub revision: u64,
    /// Every resource, sorted by key.
    pub resources: Vec<Stored>,
}

/// A revision to be committed.
#[derive(Clone, Debug)]
pub struct NewRevision {
    /// Who commits it.
    pub author: String,
    /// Why.
    pub message: String,
    /// When.
    pub at: OffsetDateTime,
    /// What it changes, each key at most once, at least one.
    pub changes: Vec<NewChange>,
    /// The address that it came from, for the audit log; empty: from inside.
    pub from: String,
}

/// A change to be committed.
#[derive(Clone, Debug)]
pub struct NewChange {
    /// Which resource.
    pub key: Key,
    /// What it was, as the committer saw it under the lock.
    pub before: Option<Arc<Document>>,
    /// What it becomes, `None` to delete it.
    pub after: Option<Arc<Document>>,
}

/// Which revisions a listing is about, newest first.
#[derive(Clone, Debug, Default)]
pub struct HistoryQuery {
    /// Only those that changed this resource.
    pub key: Option<Key>,
    /// Only those with a smaller number (the cursor of a page).
    pub before: Option<u64>,
    /// At most so many.
    pub limit: u32,
}

/// Which differences between two revisions are wanted.
#[derive(Clone, Debug)]
pub struct SpanQuery {
    /// The older revision; 0 for nothing at all.
    pub from: u64,
    /// The newer one.
    pub to: u64,
    /// Only resources that come after this one (the cursor of a page).
    pub after: Option<Key>,
    /// At most so many.
    pub limit: u32,
}

/// What a store uses of what it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Connections of this process that are at work, and how many it may have.
    pub pool: Share,
    /// Connections of all clients of the server; none where there is no server.
    pub server: Option<Share>,
    /// How large the database is on its disk.
    pub bytes: u64,
}

/// So many of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// In use.
    pub used: u32,
    /// At most.
    pub most: u32,
}

/// Why a store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, or did not answer in time. Worth trying again.
    #[error("the database is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The schema in the database, or in a backup, is one that this program cannot work with.
    #[error("the database schema is at version {found}; {}", beyond(*found, *needed))]
    Schema {
        /// What is there.
        found: i64,
        /// What this program makes of a database that is behind.
        needed: i64,
    },
    /// The database refused a statement, or holds what cannot be read.
    #[error("the database failed: {context}")]
    Failed {
        /// What was being done.
        context: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The URL names no store we know.
    #[error("cannot use database URL: {0}")]
    Url(String),
}

/// Which of both is older, and what to do.
fn beyond(found: i64, needed: i64) -> String {
    if found < needed {
        return format!(
            "this program is newer and made for {needed}: start a control plane of its version, which brings the database there, or \
             use the program of the version that made it"
        );
    }
    if found == needed + 1 {
        return format!("this program is older and made for {needed}: use a newer one for this");
    }
    format!("this program is made for {needed} and works with one version more, no further: start a newer one")
}

/// A place where configuration is kept.
#[async_trait]
pub trait Store:
    AuditRecords
    + EndpointStore
    + IdempotencyRecords
    + ProxyRecords
    + QuarantineRecords
    + RolloutRecords
    + TokenRecords
    + EnrolmentRecords
    + TraceRecords
{
    /// Everything, at one consistent revision.
    async fn load(&self) -> Result<Loaded, StoreError>;

    /// The newest revision, 0 when there is none.
    async fn head(&self) -> Result<u64, StoreError>;

    /// What the database uses, for whoever watches it.
    async fn usage(&self) -> Result<Usage, StoreError>;

    /// Every revision above `after`, ascending, whole.
    async fn revisions_after(&self, after: u64) -> Result<Vec<Revision>, StoreError>;

    /// One revision, whole.
    async fn revision(&self, number: u64) -> Result<Option<Revision>, StoreError>;

    /// Revisions, newest first.
    async fn history(&self, query: HistoryQuery) -> Result<Vec<RevisionSummary>, StoreError>;

    /// Revisions that changed one resource, newest first, each with that change alone; those below `before`, at most `limit`.
    async fn changes_of(&self, key: &Key, before: Option<u64>, limit: u32) -> Result<Vec<Revision>, StoreError>;

    /// What each resource was at `from` and is at `to`, of those that a revision in between has changed, in the order of kind and
    /// name as texts. Both may be the same: it was changed and changed back.
    async fn changes_between(&self, span: SpanQuery) -> Result<Vec<Change>, StoreError>;

    /// Takes the writers' lock, waiting a bounded time for it. Dropping the write releases it
    /// and leaves nothing behind.
    async fn begin(&self) -> Result<Box<dyn Write>, StoreError>;

    /// Marked changed whenever another process may have committed (and after every reconnect). Only a
    /// wake-up: what was committed is read with [`Store::revisions_after`].
    fn wakeups(&self) -> watch::Receiver<()>;

    /// Closes connections and ends background tasks.
    async fn close(&self);
}

/// A write under the writers' lock.
#[async_trait]
pub trait Write: Send {
    /// The newest revision; nothing can be committed above it while this write lives.
    fn head(&self) -> u64;

    /// As [`Store::revisions_after`], under the lock.
    async fn revisions_after(&mut self, after: u64) -> Result<Vec<Revision>, StoreError>;

    /// As [`IdempotencyRecords::idempotency`], under the lock.
    async fn idempotency(
        &mut self,
        key: &IdempotencyKey,
        since: OffsetDateTime,
    ) -> Result<Option<IdempotencyRecord>, StoreError>;

    /// Commits `record` with whatever else is committed; of the same key there is none any more that counts. Those that are too old
    /// are forgotten, and the oldest while there are more than `most`.
    async fn keep(&mut self, record: IdempotencyRecord, most: u32) -> Result<(), StoreError>;

    /// Keeps with the revision that will be committed which trace it is made in, as W3C's `traceparent`. Once at most.
    async fn traced(&mut self, traceparent: &str) -> Result<(), StoreError>;

    /// As [`TraceRecords::traces_after`], under the lock.
    ///
    /// [`TraceRecords::traces_after`]: super::TraceRecords::traces_after
    async fn traces_after(&mut self, after: u64) -> Result<BTreeMap<u64, String>, StoreError>;

    /// Commits what is kept, without a revision.
    async fn end(self: Box<Self>) -> Result<(), StoreError>;

    /// Commits `revision` as number `head() + 1`, whole or not at all, with its entry in the audit log, and wakes other processes.
    async fn commit(self: Box<Self>, revision: NewRevision) -> Result<Revision, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_error_says_which_of_both_is_older() {
        let told = |found| StoreError::Schema { found, needed: 8 }.to_string();
        assert!(
            told(7).starts_with("the database schema is at version 7; this program is newer and made for 8: start")
        );
        assert!(told(9).ends_with("this program is older and made for 8: use a newer one for this"));
        assert!(
            told(10)
                .ends_with("this program is made for 8 and works with one version more, no further: start a newer one")
        );
    }
}
