//! What is measured by looking, every ten seconds: how proxies stand, how far this replica is behind, what the database uses.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use metrics::gauge;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{
    metrics as m,
    proxies::{Proxies, Standing},
    replica::Replica,
    store::{StoreError, Usage},
};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(10);

/// How long the database may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Looks until `stop`.
pub async fn run(proxies: Arc<Proxies>, replica: Arc<Replica>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fleets = BTreeSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        show_proxies(&proxies, &mut fleets);
        let store = tokio::time::timeout(ANSWER_WITHIN, look_at_store(&replica));
        let seen = tokio::select! {
            () = stop.cancelled() => return,
            seen = store => seen,
        };
        gauge!(m::STORE_AVAILABLE).set(if matches!(seen, Ok(Ok(()))) { 1.0 } else { 0.0 });
    }
}

/// A fleet whose last proxy left is shown with none.
fn show_proxies(proxies: &Proxies, fleets: &mut BTreeSet<String>) {
    let census = proxies.census(SystemTime::now());
    fleets.extend(census.keys().cloned());
    for fleet in fleets.iter() {
        for standing in Standing::ALL {
            let count = census.get(fleet).map_or(0, |counts| counts[standing as usize]);
            gauge!(m::PROXIES, "fleet" => fleet.clone(), "status" => standing.as_str()).set(count);
        }
    }
    fleets.retain(|fleet| census.contains_key(fleet));
}

async fn look_at_store(replica: &Replica) -> Result<(), StoreError> {
    let head = replica.store().head().await?;
    gauge!(m::REVISION_BEHIND).set(head.saturating_sub(replica.current().revision) as f64);
    let Usage { pool, server, bytes } = replica.store().usage().await?;
    gauge!(m::STORE_POOL).set(pool.used);
    gauge!(m::STORE_POOL_MAX).set(pool.most);
    if let Some(server) = server {
        gauge!(m::STORE_SERVER).set(server.used);
        gauge!(m::STORE_SERVER_MAX).set(server.most);
    }
    gauge!(m::STORE_BYTES).set(bytes as f64);
    Ok(())
}
