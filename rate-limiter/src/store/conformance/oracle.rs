//! What a store should have answered: the model's arithmetic over a map of cells.

use std::{collections::HashMap, time::Duration};

use super::{Ask, Outcome, Ticks};
use crate::model::{
    cell::{Charged, Meter},
    key::CellKey,
    limit::Algorithm,
};

/// Cells without end, expiry or eviction.
pub(super) struct Oracle {
    ticks: Ticks,
    cells: HashMap<(CellKey, Algorithm), u64>,
}

impl Oracle {
    pub(super) fn new(ticks: Ticks) -> Self {
        Self { ticks, cells: HashMap::new() }
    }

    pub(super) fn charge(&mut self, ask: &Ask, now: Duration) -> Charged {
        // Windows are aligned to the Unix epoch, whenever a store's ticks start.
        let now = match ask.limit.algorithm() {
            Algorithm::TokenBucket => self.ticks.at(now),
            Algorithm::FixedWindow => self.ticks.count(now),
        };
        let cell = self.cells.entry((ask.key, ask.limit.algorithm())).or_default();
        let charged = Meter::new(&ask.limit, self.ticks.per_second).charge(*cell, now, ask.hits, ask.policy.debt);
        *cell = charged.cell;
        charged
    }
}

impl Ticks {
    fn at(self, now: Duration) -> u64 {
        self.count(now - self.epoch)
    }

    fn count(self, duration: Duration) -> u64 {
        u64::try_from(duration.as_nanos() / self.nanoseconds()).unwrap_or(u64::MAX)
    }

    fn nanoseconds(self) -> u128 {
        u128::from(1_000_000_000 / self.per_second)
    }
}

/// Whether an outcome says what the oracle says, times to within one tick.
pub(super) fn compare(outcome: &Outcome, expected: &Charged, ticks: Ticks) -> Result<(), String> {
    if outcome.admitted != expected.admitted {
        return Err("admitted".into());
    }
    if outcome.remaining != expected.remaining {
        return Err("remaining".into());
    }
    for (name, is, expected) in [("reset", outcome.reset, expected.reset), ("retry", outcome.retry, expected.retry)] {
        let same = match expected {
            u64::MAX => is == Duration::MAX,
            expected => ticks.count(is).abs_diff(expected) <= 1,
        };
        if !same {
            return Err(format!("{name} is {is:?} and not {expected} ticks"));
        }
    }
    Ok(())
}
