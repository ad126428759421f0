//! Which trace each of the newest revisions was made in, so that other replicas can go on with it.
//!
//! In a table, and not in the notification of the revision: that one may be lost, and the revision is found all the same. In a table of
//! its own, and not in a column of the revisions: where nothing is traced nothing is written, and history is not read with what is of use for
//! minutes.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::StoreError;

/// How many revisions back a trace is kept.
pub(super) const KEPT: i64 = 1_000;

/// The table of traces.
#[async_trait]
pub trait TraceRecords: Send + Sync {
    /// The `traceparent` of each revision above `after` that was made in a trace that is recorded, by number.
    async fn traces_after(&self, after: u64) -> Result<BTreeMap<u64, String>, StoreError>;
}

/// What rows of `revision, traceparent` say.
pub(super) fn by_revision(rows: Vec<(i64, String)>) -> Result<BTreeMap<u64, String>, StoreError> {
    rows.into_iter().map(|(revision, traceparent)| Ok((super::rows::number(revision)?, traceparent))).collect()
}
