//! Clears expired cells away, a little at a time, and tells the metrics how full the table is.
//!
//! Nothing depends on it: an expired cell counts as absent, and its slot is taken by whoever needs one. The
//! sweep keeps the number of cells true. It runs on a thread that decides requests, so one round is kept to some
//! twenty microseconds; a table for a million cells is swept in forty seconds.

use std::{sync::Arc, time::Duration};

use metrics::{counter, describe_counter, describe_gauge, gauge};
use tokio::time::MissedTickBehavior;

use super::Memory;

/// Gauge: cells in memory.
pub const CELLS: &str = "chancery_rate_limiter_cells";
/// Counter: cells that were given up while they still counted.
pub const CELLS_EVICTED: &str = "chancery_rate_limiter_cells_evicted_total";

/// How often the sweep goes on.
const PAUSE: Duration = Duration::from_millis(100);
/// Buckets looked at in one go.
const BUDGET: usize = 512;

/// Tells the recorder what the metrics of this module mean.
pub fn describe() {
    describe_gauge!(CELLS, "Cells in memory, including those that expired and wait to be swept");
    describe_counter!(CELLS_EVICTED, "Cells given up for others before they expired: raise the number of cells");
}

/// Sweeps `memory` and reports, until it is dropped: the caller owns the task.
pub async fn tend(memory: Arc<Memory>) {
    let (cells, evicted) = (gauge!(CELLS), counter!(CELLS_EVICTED));
    let mut pauses = tokio::time::interval(PAUSE);
    pauses.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pauses.tick().await;
        memory.sweep(BUDGET);
        cells.set(memory.cells() as f64);
        evicted.absolute(memory.evicted());
    }
}
