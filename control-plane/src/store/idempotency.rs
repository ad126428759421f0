//! What was done under an idempotency key, so that a request that is sent again is not done again.
//!
//! A record is part of the transaction that does what it tells of: whoever finds none knows that nothing was done, whichever replica was
//! asked and whatever ended in between. Nothing is kept of what was refused.

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};

use super::{StoreError, rows};

/// How long a record is kept.
pub const IDEMPOTENCY_KEPT_FOR: Duration = Duration::hours(24);

/// Under which key somebody wants something done once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Whose key it is: keys of others are others.
    pub owner: String,
    /// The key.
    pub key: String,
    /// Tells the request from others, which must not come under the same key.
    pub fingerprint: Vec<u8>,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// Under which key.
    pub key: IdempotencyKey,
    /// What came of it, as JSON.
    pub outcome: String,
    /// When.
    pub at: OffsetDateTime,
}

/// The table of what was done; it is written by [`Write::keep`](super::Write::keep).
#[async_trait]
pub trait IdempotencyRecords: Send + Sync {
    /// What was done under `key`, of `key`'s owner, since then. Whether it was the same request is left to the caller.
    async fn idempotency(
        &self,
        key: &IdempotencyKey,
        since: OffsetDateTime,
    ) -> Result<Option<IdempotencyRecord>, StoreError>;
}

/// `fingerprint, outcome, at`.
pub(super) type IdempotencyRow = (Vec<u8>, String, i64);

pub(super) fn record(key: &IdempotencyKey, row: IdempotencyRow) -> Result<IdempotencyRecord, StoreError> {
    let (fingerprint, outcome, at) = row;
    let key = IdempotencyKey { fingerprint, ..key.clone() };
    Ok(IdempotencyRecord { key, outcome, at: rows::time(at)? })
}
