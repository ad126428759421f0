//! The arithmetic of one cell: what every store must compute.
//!
//! A token bucket is the generic cell rate algorithm (ITU-T I.371): the cell is the theoretical arrival time (TAT) of
//! the next hit at the steady rate. A hit costs `interval`, and is admitted if the cell is then no more
//! than `tolerance` ahead of now. An absent cell, a zero and a TAT in the past are the same: a full bucket.
//!
//! A cell is never taken to be further ahead of now than `most`. So an edited limit, a clock that went
//! back or a mistaken cost of a billion hits shuts a cell for a bounded time, not for centuries.
//!
//! A fixed window's cell is the number of the window (its last 24 bits: with the shortest period they repeat after
//! four hours, and a cell is forgotten long before) and the hits in it.
//!
//! A look (no hits) is answered as one hit would be, and changes nothing.
//!
//! Time is counted in ticks since some epoch; how long a tick is, is the store's choice. `interval` is
//! rounded up to whole ticks, so that rounding never admits more: in any `t` ticks at most
//! `burst + t / interval` hits are admitted.

use std::time::Duration;

use super::{
    descriptor::Hits,
    limit::{Algorithm, Limit},
};

/// What a bucket may owe at least, as time to pay it off. A bucket that takes longer to fill may owe as much as it holds.
pub const DEBT: Duration = Duration::from_secs(600);

/// Bits of a packed window cell that count hits; the others number the window.
const COUNT_BITS: u32 = 40;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// A limit in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meter {
    /// A limit of zero.
    Never,
    /// A token bucket.
    Bucket {
        /// Ticks from one hit to the next at the steady rate; at least one.
        interval: u64,
        /// How far ahead of now the cell may be: burst × interval.
        tolerance: u64,
        /// How far ahead of now the cell may ever be: `tolerance` and the largest debt.
        most: u64,
    },
    /// A fixed window.
    Window {
        /// Ticks of a window; at least one.
        period: u64,
        /// Hits admitted in each.
        requests: u64,
    },
}

/// What became of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charged {
    /// The cell afterwards.
    pub cell: u64,
    /// Whether the hits are within the limit. For none: whether one would be.
    pub admitted: bool,
    /// Hits that would still be admitted now.
    pub remaining: u64,
    /// Ticks until nothing is used any more; for a window, until it ends.
    pub reset: u64,
    /// Ticks until these hits (at least one) would be admitted if nobody else came; zero if they were. `u64::MAX`: never.
    pub retry: u64,
}

impl Meter {
    /// `limit` in ticks.
    pub fn new(limit: &Limit, ticks_per_second: u64) -> Self {
        let ticks = limit.per().as_nanos() * u128::from(ticks_per_second);
        let period = saturate(ticks.div_ceil(1_000_000_000)).max(1);
        let interval = ticks.div_ceil(1_000_000_000 * u128::from(limit.requests().max(1)));
        Self::of(limit, period, saturate(interval).max(1), ticks_per_second)
    }

    /// `limit` in nanoseconds, for whoever asks often: 64 bits hold every product.
    #[inline]
    pub fn in_nanoseconds(limit: &Limit) -> Self {
        let period = limit.per().as_secs() * 1_000_000_000 + u64::from(limit.per().subsec_nanos());
        Self::of(limit, period, period.div_ceil(limit.requests().max(1).into()), 1_000_000_000)
    }

    #[inline]
    fn of(limit: &Limit, period: u64, interval: u64, ticks_per_second: u64) -> Self {
        match (limit.requests(), limit.algorithm()) {
            (0, _) => Self::Never,
            (requests, Algorithm::FixedWindow) => Self::Window { period, requests: requests.into() },
            (_, Algorithm::TokenBucket) => {
                let tolerance = interval.saturating_mul(limit.burst().into());
                let debt = tolerance.max(DEBT.as_secs().saturating_mul(ticks_per_second));
                Self::Bucket { interval, tolerance, most: tolerance.saturating_add(debt) }
            }
        }
    }

    /// Charges `hits` to `cell` at `now`. With `debt`, a bucket pays what it has not: the hits are counted whether or not
    /// they are admitted, up to the largest debt. (A window always counts.)
    pub fn charge(self, cell: u64, now: u64, hits: Hits, debt: bool) -> Charged {
        match self {
            Self::Never => never(cell, hits),
            Self::Bucket { interval, tolerance, most } => {
                // What lies ahead of now decides; the cell itself is only how that is kept.
                let ahead = cell.saturating_sub(now).min(most);
                bucket(interval, tolerance, if debt { most } else { ahead }, ahead, now, hits)
            }
            Self::Window { period, requests } => window(period, requests, cell, now, hits),
        }
    }

    /// The first tick, not before `now`, at which `cell` says no more than an absent one.
    pub fn expires(self, cell: u64, now: u64) -> u64 {
        match self {
            Self::Never => now,
            Self::Bucket { most, .. } => now.saturating_add(cell.saturating_sub(now).min(most)),
            Self::Window { period, .. } if counted(cell, now / period) > 0 => now.saturating_add(period - now % period),
            Self::Window { .. } => now,
        }
    }
}

fn never(cell: u64, hits: Hits) -> Charged {
    let admitted = matches!(hits, Hits::GiveBack(_));
    Charged { cell, admitted, remaining: 0, reset: 0, retry: if admitted { 0 } else { u64::MAX } }
}

/// `owe` is how far ahead of now the cell may be left by hits that are not admitted.
fn bucket(interval: u64, tolerance: u64, owe: u64, ahead: u64, now: u64, hits: Hits) -> Charged {
    let (after, retry) = match hits {
        Hits::GiveBack(hits) => (ahead.saturating_sub(interval.saturating_mul(hits)), 0),
        Hits::Take(hits) => {
            let wanted = interval.saturating_mul(hits.max(1));
            let charged = ahead.saturating_add(interval.saturating_mul(hits));
            if ahead.saturating_add(wanted) <= tolerance {
                (charged, 0)
            } else {
                let after = charged.min(owe);
                // More than a full bucket holds is never admitted, however long one waits.
                let retry = if wanted > tolerance { u64::MAX } else { after.saturating_add(wanted) - tolerance };
                (after, retry)
            }
        }
    };
    Charged {
        cell: now.saturating_add(after),
        admitted: retry == 0,
        remaining: tolerance.saturating_sub(after) / interval,
        reset: after,
        retry,
    }
}

fn window(period: u64, requests: u64, cell: u64, now: u64, hits: Hits) -> Charged {
    let index = now / period;
    let before = counted(cell, index);
    let (count, wanted) = match hits {
        Hits::GiveBack(hits) => (before.saturating_sub(hits), None),
        Hits::Take(hits) => (before.saturating_add(hits).min(COUNT_MASK), Some(hits.max(1))),
    };
    let rest = period - now % period;
    let retry = match wanted {
        Some(wanted) if wanted > requests => u64::MAX,
        Some(wanted) if before + wanted > requests => rest,
        _ => 0,
    };
    Charged {
        cell: index << COUNT_BITS | count,
        admitted: retry == 0,
        remaining: requests.saturating_sub(count),
        reset: rest,
        retry,
    }
}

/// Hits that `cell` has counted in window `index`.
fn counted(cell: u64, index: u64) -> u64 {
    if cell >> COUNT_BITS == (index << COUNT_BITS) >> COUNT_BITS { cell & COUNT_MASK } else { 0 }
}

fn saturate(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
