//! How far revisions have come to fleets that get them in stages, agreed upon by all replicas.
//!
//! Beside the configuration: no revision, no lock of writers. Whoever moves a rollout on says from which step; of two that do
//! so at once, one is told that it was not the first.

use async_trait::async_trait;
use tokio::sync::watch;

use super::StoreError;

/// A rollout as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutRecord {
    /// Whose.
    pub fleet: String,
    /// How often it was written, from 1.
    pub step: u64,
    /// What is to be known of it, as JSON.
    pub state: String,
}

/// `fleet, step, state`.
pub(super) type RolloutRow = (String, i64, String);

/// What `rows` say.
pub(super) fn records(rows: Vec<RolloutRow>) -> Result<Vec<RolloutRecord>, StoreError> {
    let record = |(fleet, step, state)| Ok(RolloutRecord { fleet, step: super::rows::number(step)?, state });
    rows.into_iter().map(record).collect()
}

/// The table of rollouts.
#[async_trait]
pub trait RolloutRecords: Send + Sync {
    /// All of them, sorted by fleet.
    async fn rollouts(&self) -> Result<Vec<RolloutRecord>, StoreError>;

    /// Writes `record` in place of the one of the step before it (none, for the first). Returns whether that was there still.
    async fn move_rollout(&self, record: RolloutRecord) -> Result<bool, StoreError>;

    /// Forgets that of `fleet`.
    async fn forget_rollout(&self, fleet: &str) -> Result<(), StoreError>;

    /// Marked changed whenever another process may have moved one.
    fn rollout_wakeups(&self) -> watch::Receiver<()>;
}
