//! Cells in this process: the whole store where there is no Redis, and what decides while Redis is away.
//!
//! Every answer is given at once. What exists is charged without a lock (`table` says how), what is new takes one
//! for the time of an insertion; the memory is bounded, and all of it is set aside at the start. When there is
//! no room, the cell that would have expired soonest is given up: the client it belongs to gets a full bucket
//! early, so this is counted, and happens only beyond the capacity that was asked for.
//!
//! A limit is not part of a cell: asking with another limit, be it edited or a replica's share of it, goes on from the
//! state that the cell is in. Only another algorithm finds another cell.

mod sweep;
mod table;
#[cfg(test)]
mod tests;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

pub use sweep::{CELLS, CELLS_EVICTED, describe, tend};
use table::{Charge, Table};

use super::{Ask, Charging, Clock, Outcome, Source, Store};
use crate::model::cell::{Charged, Meter};

/// Cells that a limiter keeps unless told otherwise.
pub const CAPACITY: usize = 1_000_000;

/// The store in memory. Shared by all threads.
pub struct Memory {
    table: Table,
    clock: Clock,
    /// The bucket at which the sweep goes on.
    swept: AtomicUsize,
}

impl Memory {
    /// A store for `capacity` live cells. It takes 24 bytes for each, and 12 more where windows are
    /// counted, which the system backs with memory as they come into use.
    pub fn new(capacity: usize, clock: Clock) -> Self {
        // At two thirds full, a key finds room in one of its two buckets; at three quarters, one in a hundred thousand does not.
        Self { table: Table::new(capacity + capacity.div_ceil(2)), clock, swept: AtomicUsize::new(0) }
    }

    /// How many cells there are, including those that expired and wait to be swept.
    pub fn cells(&self) -> usize {
        self.table.taken()
    }

    /// How many there can be at most.
    pub fn slots(&self) -> usize {
        self.table.slots()
    }

    /// How many cells were given up while they still counted, since the start.
    pub fn evicted(&self) -> u64 {
        self.table.evicted()
    }

    /// Clears away what expired, in the next `budget` buckets of eight cells. Says how many cells that were.
    pub fn sweep(&self, budget: usize) -> usize {
        let buckets = self.table.buckets();
        let budget = budget.min(buckets);
        let start = self.swept.fetch_add(budget, Ordering::Relaxed);
        (start..start + budget).map(|bucket| self.table.sweep(bucket % buckets, &self.clock)).sum()
    }

    #[inline]
    fn charge_one(&self, ask: &Ask, now: u64) -> Outcome {
        let charge = Charge {
            meter: Meter::in_nanoseconds(&ask.limit),
            hits: ask.hits,
            debt: ask.policy.debt,
            clock: &self.clock,
        };
        let charged = match charge.meter {
            Meter::Never => charge.meter.charge(0, now, ask.hits, false),
            Meter::Bucket { .. } | Meter::Window { .. } => self.table.charge(ask.key, now, charge),
        };
        outcome(charged)
    }
}

impl Store for Memory {
    fn charge(&self, asks: &[Ask]) -> Charging {
        let now = self.clock.now();
        Charging::Done(asks.iter().map(|ask| self.charge_one(ask, now)).collect())
    }
}

#[inline]
fn outcome(charged: Charged) -> Outcome {
    let time = |ticks| if ticks == u64::MAX { Duration::MAX } else { Duration::from_nanos(ticks) };
    Outcome {
        admitted: charged.admitted,
        remaining: charged.remaining,
        reset: time(charged.reset),
        retry: time(charged.retry),
        source: Source::Memory,
    }
}
