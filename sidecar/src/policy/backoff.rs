//! How long to wait before trying again. Three ways, for three purposes:
//! - [`FullJitter`] between the tries of one request, as Envoy does it: callers that failed together do not return together.
//! - [`Decorrelated`] for one who tries for ever: each wait is drawn from what the last one was.
//! - [`Exponential`] for a breaker: at least the bound, since a probe that comes early is a request lost.

use std::time::Duration;

/// Before the Nth retry a time from zero up to (2^N − 1) · `base`, at most `most`.
///
/// The default is Envoy's (`RetryBackOff`): 25 ms, and at most ten times as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullJitter {
    /// The bound for the first retry.
    pub base: Duration,
    /// The bound for all retries.
    pub most: Duration,
}

impl Default for FullJitter {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), most: Duration::from_millis(250) }
    }
}

impl FullJitter {
    /// The wait before retry number `retry`, of which the first is 1.
    pub fn wait(&self, retry: u32, chance: f64) -> Duration {
        let factor = 1_u32.checked_shl(retry).map_or(u32::MAX, |power| power - 1);
        part(self.base.saturating_mul(factor).min(self.most), chance)
    }
}

/// From `base` up to three times the previous wait, at most `most` ("Exponential Backoff And Jitter", AWS, 2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decorrelated {
    /// The shortest wait.
    pub base: Duration,
    /// The longest wait.
    pub most: Duration,
}

impl Decorrelated {
    /// The wait that follows `previous`; [`Duration::ZERO`] before the first.
    pub fn wait(&self, previous: Duration, chance: f64) -> Duration {
        let bound = previous.saturating_mul(3).max(self.base);
        self.base.saturating_add(part(bound - self.base, chance)).min(self.most)
    }
}

/// `least` · 2^n, at most `most`, and up to `jitter` of that more.
///
/// The default is that of linkerd2-proxy's failure accrual: 1 s to 60 s, and up to half as much more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponential {
    /// The first wait.
    pub least: Duration,
    /// The longest wait, without jitter.
    pub most: Duration,
    /// What is added at most, as a share of the wait.
    pub jitter: f64,
}

impl Default for Exponential {
    fn default() -> Self {
        Self { least: Duration::from_secs(1), most: Duration::from_secs(60), jitter: 0.5 }
    }
}

impl Exponential {
    /// The wait after `earlier` waits in a row.
    pub fn wait(&self, earlier: u32, chance: f64) -> Duration {
        let factor = 1_u32.checked_shl(earlier).unwrap_or(u32::MAX);
        let wait = self.least.saturating_mul(factor).min(self.most);
        wait.saturating_add(part(wait, chance.clamp(0.0, 1.0) * self.jitter))
    }
}

/// The share `chance` of `whole`, whatever number that is.
fn part(whole: Duration, chance: f64) -> Duration {
    let chance = if chance.is_nan() { 0.0 } else { chance.clamp(0.0, 1.0) };
    Duration::try_from_secs_f64(whole.as_secs_f64() * chance).map_or(whole, |part| part.min(whole))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALMOST_ONE: f64 = 1.0 - f64::EPSILON;

    #[test]
    fn full_jitter_is_as_envoy_documents_it() {
        let backoff = FullJitter::default();
        let bounds = [0, 1, 2, 3, 4, 31, 32, u32::MAX].map(|retry| backoff.wait(retry, 1.0).as_millis());
        assert_eq!(bounds, [0, 25, 75, 175, 250, 250, 250, 250]);
        assert_eq!(backoff.wait(3, 0.0), Duration::ZERO);
        assert_eq!(backoff.wait(2, 0.5).as_micros(), 37_500);
    }

    #[test]
    fn decorrelated_grows_from_what_was_drawn() {
        let backoff = Decorrelated { base: Duration::from_millis(10), most: Duration::from_millis(500) };
        let mut wait = Duration::ZERO;
        let longest: Vec<_> = (0..6)
            .map(|_| {
                wait = backoff.wait(wait, ALMOST_ONE);
                wait.as_secs_f64().mul_add(1_000.0, 0.5) as u64
            })
            .collect();
        assert_eq!(longest, [10, 30, 90, 270, 500, 500]);
        assert_eq!(backoff.wait(Duration::from_millis(90), 0.0), backoff.base);
    }

    #[test]
    fn exponential_waits_at_least_its_bound() {
        let backoff = Exponential::default();
        let shortest = [0, 1, 2, 5, 6, 31, 32, u32::MAX].map(|earlier| backoff.wait(earlier, 0.0).as_secs());
        assert_eq!(shortest, [1, 2, 4, 32, 60, 60, 60, 60]);
        assert_eq!(backoff.wait(0, 1.0).as_millis(), 1_500);
        assert_eq!(backoff.wait(9, 1.0).as_secs(), 90);
    }

    proptest! {
        #[test]
        fn no_number_breaks_a_wait(base: Duration, most: Duration, n: u32, chance: f64) {
            let waits = [FullJitter { base, most }.wait(n, chance), Decorrelated { base, most }.wait(most, chance)];
            prop_assert!(waits.iter().all(|wait| *wait <= most));
            let wait = Exponential { least: base, most, jitter: 0.5 }.wait(n, chance);
            // Half as much again, and what floating point adds.
            let bound = most.saturating_add(most / 2).saturating_add(most / 1_000_000).saturating_add(Duration::from_micros(1));
            prop_assert!(wait >= base.min(most) && wait <= bound);
        }
    }
}
