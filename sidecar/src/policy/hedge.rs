//! A second try before the first has failed: when a request takes longer than nearly all others of its route, another is sent,
//! and the first answer counts ("The Tail at Scale", Dean and Barroso, 2013).
//!
//! Only where it was asked for, only for what may be repeated, and paid from the retry budget: a service that is slow since it has too
//! much to do is not to get twice as much. One hedge for each request.
//!
//! What "nearly all others" take is estimated from a histogram of fixed size, in which what was long ago weighs less and less.

use std::time::Duration;

use super::retry_budget::RetryBudget;

/// When to hedge.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The share of requests that are answered before a hedge is sent; 0.95.
    pub quantile: f64,
    /// Answers of the route to know, before the first hedge; 100.
    pub samples: u32,
    /// The shortest wait; 1 ms. Below it, a hedge costs more than it gains.
    pub least: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { quantile: 0.95, samples: 100, least: Duration::from_millis(1) }
    }
}

impl Settings {
    /// After which time without an answer to hedge; none if too little is known, or there is no time for it.
    pub fn delay(&self, latencies: &Latencies, remaining: Option<Duration>) -> Option<Duration> {
        let known = latencies.total >= self.samples.max(1);
        let delay = latencies.quantile(self.quantile).filter(|_| known)?.max(self.least);
        (remaining.is_none_or(|remaining| delay < remaining)).then_some(delay)
    }

    /// Whether to hedge a request now, whose delay has passed. Pays for it.
    pub fn may_hedge(&self, repeatable: bool, replayable: bool, budget: &mut RetryBudget, now: Duration) -> bool {
        repeatable && replayable && budget.withdraw(now)
    }
}

/// Below so many microseconds each has a bucket; above, each power of two has eight, so that a bucket is off by an eighth at most.
const EXACT: u64 = 16;
const EIGHTHS: u32 = 3;
/// The first power of two that is divided: 16.
const FIRST_POWER: u32 = 4;
/// The last, 2²⁷ µs, is two minutes.
const LAST_POWER: u32 = 27;
const BUCKETS: usize = EXACT as usize + ((LAST_POWER - FIRST_POWER + 1) << EIGHTHS) as usize;

/// At so many answers, all counts are halved.
const MOST: u32 = 2_000;

/// How long the requests of a route took lately.
#[derive(Clone, Debug)]
pub struct Latencies {
    buckets: Box<[u32; BUCKETS]>,
    total: u32,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: Box::new([0; BUCKETS]), total: 0 }
    }
}

impl Latencies {
    /// A request was answered after this time, be it by its hedge.
    pub fn record(&mut self, time: Duration) {
        if self.total >= MOST {
            self.buckets.iter_mut().for_each(|count| *count /= 2);
            self.total = self.buckets.iter().sum();
        }
        self.buckets[bucket(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))] += 1;
        self.total += 1;
    }

    /// The time in which the share `quantile` of them was answered, rounded up to a bucket; none if there are none.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let rank = ((f64::from(self.total) * quantile).ceil() as u32).clamp(1, self.total.max(1));
        let mut counted = 0;
        let index = self.buckets.iter().position(|count| {
            counted += count;
            counted >= rank
        })?;
        Some(Duration::from_micros(largest(index)))
    }
}

fn bucket(microseconds: u64) -> usize {
    if microseconds < EXACT {
        return microseconds as usize;
    }
    let power = microseconds.ilog2();
    if power > LAST_POWER {
        return BUCKETS - 1;
    }
    let eighth = (microseconds >> (power - EIGHTHS)) & 7;
    EXACT as usize + ((power - FIRST_POWER) << EIGHTHS) as usize + eighth as usize
}

/// The largest number of microseconds in a bucket.
fn largest(index: usize) -> u64 {
    let Some(above) = index.checked_sub(EXACT as usize) else { return index as u64 };
    let (power, eighth) = (FIRST_POWER + (above >> EIGHTHS) as u32, (above & 7) as u64);
    ((8 + eighth + 1) << (power - EIGHTHS)) - 1
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::policy::retry_budget;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn latencies(milliseconds: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::default();
        milliseconds.into_iter().for_each(|time| latencies.record(ms(time)));
        latencies
    }

    #[test]
    fn a_hedge_waits_for_the_95th_percentile() {
        let settings = Settings::default();
        let delay = settings.delay(&latencies(1..=100), None).unwrap();
        assert!(delay >= ms(95) && delay <= ms(95) * 9 / 8, "{delay:?}");
        assert_eq!(settings.delay(&latencies(1..=99), None), None, "too little is known");
        assert_eq!(settings.delay(&latencies(1..=100), Some(ms(95))), None, "no time");
        assert_eq!(settings.delay(&latencies([0; 100]), None), Some(ms(1)), "the shortest wait");
    }

    #[test]
    fn a_hedge_is_for_what_may_be_repeated_and_is_paid() {
        let one = retry_budget::Settings { ratio: 1.0, least_per_second: 0, ..retry_budget::Settings::default() };
        let mut budget = RetryBudget::new(one);
        budget.deposit(Duration::ZERO);
        let mut hedge =
            |repeatable, replayable| Settings::default().may_hedge(repeatable, replayable, &mut budget, Duration::ZERO);
        assert!(!hedge(false, true) && !hedge(true, false));
        assert!(hedge(true, true));
        assert!(!hedge(true, true), "the budget is spent");
    }

    #[test]
    fn what_was_long_ago_weighs_less() {
        let mut latencies = latencies([1_000; 2_000]);
        (0..20_000).for_each(|_| latencies.record(ms(10)));
        assert!(latencies.quantile(0.95).unwrap() <= ms(12));
        assert!(latencies.total <= MOST);
    }

    proptest! {
        #[test]
        fn a_quantile_is_no_less_than_the_exact_one_and_an_eighth_more_at_most(
            mut times in vec(0..100_000_000_u64, 1..1_000), quantile in 0.0..1.0_f64,
        ) {
            let mut latencies = Latencies::default();
            times.iter().for_each(|time| latencies.record(Duration::from_micros(*time)));
            times.sort_unstable();
            let rank = (times.len() as f64 * quantile).ceil() as usize;
            let exact = times[rank.clamp(1, times.len()) - 1];
            let estimate = latencies.quantile(quantile).unwrap().as_micros() as u64;
            prop_assert!(exact <= estimate && estimate <= exact + exact / 8, "{exact} {estimate}");
        }

        #[test]
        fn no_time_breaks_it(time: Duration, quantile: f64) {
            let mut latencies = Latencies::default();
            assert_eq!(latencies.quantile(quantile), None);
            latencies.record(time);
            prop_assert!(latencies.quantile(quantile).is_some());
        }
    }
}
