//! Who did what, when and from where: a log that only grows, in which each entry holds the hash of the one before.
//!
//! - A revision's entry is written in the revision's transaction, a token's in the token's: neither is there without the other.
//!   Everything else is appended by itself.
//! - One chain for all replicas. Whoever appends takes a lock that is held until its transaction ends, and takes it last: the
//!   writers' lock, where it is needed, comes before, so nobody waits in a circle.
//! - What a revision changed is not written down twice: its entry holds a hash of its rows (`entry`).
//! - Entries go from the old end only ([`AuditRecords::trim_audit`]), and an entry that stays says up to where they went and what the
//!   hash of the last one was. Triggers refuse everything else.
//!
//! What a chain cannot show: whoever owns the database can write all of it anew. Keep the head's hash elsewhere to see that.

pub mod chain;
mod entry;

use async_trait::async_trait;
use time::OffsetDateTime;

pub use entry::{Action, Entry, Hash, NewEntry, Outcome, revision_digest};
pub(super) use entry::{AuditRow, entries, of_revision, of_trim, sealed};

use super::StoreError;

/// Entries that go in one transaction of [`AuditRecords::trim_audit`].
pub const TRIMMED_AT_ONCE: u64 = 10_000;

/// Which entries are wanted, newest first. What is not given does not matter.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// Of whom.
    pub actor: Option<String>,
    /// What was done.
    pub action: Option<String>,
    /// What came of it.
    pub outcome: Option<String>,
    /// About what kind of thing; a revision is about all that it changed.
    pub kind: Option<String>,
    /// About what is called so.
    pub name: Option<String>,
    /// Not before this.
    pub since: Option<OffsetDateTime>,
    /// Before this.
    pub until: Option<OffsetDateTime>,
    /// With a smaller sequence (the cursor of a page).
    pub before: Option<u64>,
    /// At most so many.
    pub limit: u32,
}

/// The audit log.
#[async_trait]
pub trait AuditRecords: Send + Sync {
    /// Appends `entries` in their order, all or none.
    async fn append_audit(&self, entries: Vec<NewEntry>) -> Result<(), StoreError>;

    /// Entries, newest first.
    async fn audit(&self, query: AuditQuery) -> Result<Vec<Entry>, StoreError>;

    /// At most `limit` entries above `sequence`, ascending.
    async fn audit_after(&self, sequence: u64, limit: u32) -> Result<Vec<Entry>, StoreError>;

    /// The hash of each revision from `first` to `last` as its rows are now, by number; what is not there is left out.
    async fn revision_digests(&self, first: u64, last: u64) -> Result<Vec<(u64, Hash)>, StoreError>;

    /// Forgets the oldest entries, up to the first that is not older than `before`, at most [`TRIMMED_AT_ONCE`], and says so in an
    /// entry of the time `now`. Returns how many went.
    async fn trim_audit(&self, before: OffsetDateTime, now: OffsetDateTime) -> Result<u64, StoreError>;
}
