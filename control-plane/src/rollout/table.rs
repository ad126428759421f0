//! Rollouts as they stand in the database.

use std::collections::BTreeMap;

use super::Rollout;
use crate::{
    model::Name,
    store::{RolloutRecord, Store, StoreError},
};

/// A rollout, and how often it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) step: u64,
    pub(super) rollout: Rollout,
}

/// What is written down, by fleet. What a newer program wrote and this one cannot read is left out.
pub(super) async fn read(store: &dyn Store) -> Result<BTreeMap<Name, Row>, StoreError> {
    let row = |RolloutRecord { fleet, step, state }| {
        let rollout = serde_json::from_str(&state).inspect_err(|error| {
            tracing::error!(fleet, %error, "cannot read how far revisions have come to a fleet");
        });
        Some((fleet.parse().ok()?, Row { step, rollout: rollout.ok()? }))
    };
    Ok(store.rollouts().await?.into_iter().filter_map(row).collect())
}

/// Writes `rollout` after `step`. None if somebody else was first.
pub(super) async fn write(
    store: &dyn Store,
    fleet: &Name,
    step: u64,
    rollout: Rollout,
) -> Result<Option<Row>, StoreError> {
    let state = serde_json::to_string(&rollout).unwrap_or_default();
    let row = Row { step: step + 1, rollout };
    let record = RolloutRecord { fleet: fleet.to_string(), step: row.step, state };
    Ok(store.move_rollout(record).await?.then_some(row))
}
