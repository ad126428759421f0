//! When a client that lost its server tries again. Pure.
//!
//! The wait is drawn from the whole range below a bound that doubles (full jitter): a thousand clients of a server that
//! restarts come back evenly, and not in waves.

use std::time::Duration;

/// Waits between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait after a stream that worked.
    pub first: Duration,
    /// The longest wait after any number of failures.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), longest: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// How long to wait after `failures` failures in a row, the last one not counted. `chance` is a number from 0 to 1.
    pub fn wait(&self, failures: u32, chance: f64) -> Duration {
        let doubled = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
        let bound = self.first.saturating_mul(doubled).min(self.longest);
        bound.mul_f64(chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_longest() {
        let backoff = Backoff::default();
        let bounds = [0, 1, 2, 5, 6, 31, 32, u32::MAX].map(|failures| backoff.wait(failures, 1.0).as_millis());
        assert_eq!(bounds, [500, 1_000, 2_000, 16_000, 30_000, 30_000, 30_000, 30_000]);
    }

    #[test]
    fn any_wait_below_the_bound_may_be_drawn() {
        let backoff = Backoff::default();
        assert_eq!(backoff.wait(9, 0.0), Duration::ZERO);
        assert_eq!(backoff.wait(1, 0.25), Duration::from_millis(250));
        assert_eq!(backoff.wait(0, 7.0), backoff.first, "chance out of range");
    }
}
