//! The arithmetic of one cell: what every store must compute.
//!
//! A token bucket is the generic cell rate algorithm (ITU-T I.371): the cell is the theoretical arrival time (TAT) of
//! the next hit at the steady rate. A hit costs `interval`, and is admitted if the cell is then no more
//! than `tolerance` ahead of now. An absent cell, a zero and a TAT in the past are the same: a full bucket.
//!
//! A fixed window's cell is the number of the window and the hits in it.
//!
//! Time is counted in ticks since some epoch; how long a tick is, is the store's choice. `interval` is
//! rounded up to whole ticks, so that rounding never admits more: in any `t` ticks at most
//! `burst + t / interval` hits are admitted.

use super::{
    descriptor::Hits,
    limit::{Algorithm, Limit},
};

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
    /// Whether the hits are within the limit.
    pub admitted: bool,
    /// Hits that would still be admitted now.
    pub remaining: u64,
    /// Ticks until nothing is used any more.
    pub reset: u64,
    /// Ticks until these hits would be admitted; zero if they were.
    pub retry: u64,
}

impl Meter {
    /// `limit` in ticks.
    pub fn new(limit: &Limit, ticks_per_second: u64) -> Self {
        let ticks = limit.per().as_nanos() * u128::from(ticks_per_second);
        let period = saturate(ticks.div_ceil(1_000_000_000)).max(1);
        match (limit.requests(), limit.algorithm()) {
            (0, _) => Self::Never,
            (requests, Algorithm::FixedWindow) => Self::Window { period, requests: requests.into() },
            (requests, Algorithm::TokenBucket) => {
                let interval = saturate(ticks.div_ceil(1_000_000_000 * u128::from(requests))).max(1);
                Self::Bucket { interval, tolerance: interval.saturating_mul(limit.burst().into()) }
            }
        }
    }

    /// Charges `hits` to `cell` at `now`. With `debt`, a bucket pays what it has not: the hits are counted whether or not
    /// they are admitted. (A window always does so.)
    pub fn charge(self, cell: u64, now: u64, hits: Hits, debt: bool) -> Charged {
        match self {
            Self::Never => Charged { cell, admitted: hits == Hits::Take(0), remaining: 0, reset: 0, retry: u64::MAX },
            Self::Bucket { interval, tolerance } => bucket(interval, tolerance, cell, now, hits, debt),
            Self::Window { period, requests } => window(period, requests, cell, now, hits),
        }
    }

    /// The first tick at which `cell` says no more than an absent one.
    pub fn expires(self, cell: u64, now: u64) -> u64 {
        match self {
            Self::Never => now,
            Self::Bucket { .. } => cell,
            Self::Window { period, .. } => (now / period + 1).saturating_mul(period),
        }
    }
}

fn bucket(interval: u64, tolerance: u64, tat: u64, now: u64, hits: Hits, debt: bool) -> Charged {
    let base = tat.max(now);
    let (next, admitted, retry) = match hits {
        Hits::GiveBack(hits) => (base.saturating_sub(interval.saturating_mul(hits)).max(now), true, 0),
        Hits::Take(hits) => {
            let next = base.saturating_add(interval.saturating_mul(hits));
            let over = (next - now).saturating_sub(tolerance);
            let admitted = over == 0 || hits == 0 && base - now < tolerance;
            (if admitted || debt { next } else { base }, admitted, if admitted { 0 } else { over })
        }
    };
    Charged {
        cell: next,
        admitted,
        remaining: tolerance.saturating_sub(next - now) / interval,
        reset: next - now,
        retry,
    }
}

fn window(period: u64, requests: u64, cell: u64, now: u64, hits: Hits) -> Charged {
    let index = now / period;
    let tag = index << COUNT_BITS;
    let before = if cell & !COUNT_MASK == tag { cell & COUNT_MASK } else { 0 };
    let (count, admitted) = match hits {
        Hits::GiveBack(hits) => (before.saturating_sub(hits), true),
        Hits::Take(0) => (before, before < requests),
        Hits::Take(hits) => {
            let count = before.saturating_add(hits).min(COUNT_MASK);
            (count, count <= requests)
        }
    };
    let rest = period - now % period;
    Charged {
        cell: tag | count,
        admitted,
        remaining: requests.saturating_sub(count),
        reset: rest,
        retry: if admitted { 0 } else { rest },
    }
}

fn saturate(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
