//! When to stop asking Redis, and how long to wait before trying again. Pure.
//!
//! Closed: Redis is asked. Open: nobody asks, every caller is answered at once without Redis. Half open: one probe is on its
//! way, and nobody else asks. It opens after three troubles in a row, of which an answer that came too late is
//! one; a connection that is lost opens it at once.

use std::time::Duration;

const IN_A_ROW: u32 = 3;
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(1);

/// Counts troubles, and attempts to get over them.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    troubles: u32,
    attempts: u32,
}

impl Breaker {
    /// Redis answered in time.
    pub(crate) fn success(&mut self) {
        *self = Self::default();
    }

    /// It did not. Says whether that was one too many.
    pub(crate) fn trouble(&mut self) -> bool {
        self.troubles += 1;
        self.troubles >= IN_A_ROW
    }

    /// A probe was answered in time. What follows must be good as well, or the next wait is longer again.
    pub(crate) fn half_closed(&mut self) {
        self.troubles = 0;
    }

    /// How long to wait before the next attempt: none at first, then 10 ms and twice as long each time, up to 1 s, of
    /// which half is left to `chance` (0 to 1) so that a fleet does not knock in step.
    pub(crate) fn pause(&mut self, chance: f64) -> Duration {
        let attempts = self.attempts;
        self.attempts = attempts.saturating_add(1);
        match attempts {
            0 => Duration::ZERO,
            _ => (SHORTEST * 2u32.pow((attempts - 1).min(10))).min(LONGEST).mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_troubles_in_a_row_open_it() {
        let mut breaker = Breaker::default();
        assert!(!breaker.trouble() && !breaker.trouble());
        breaker.success();
        assert!(!breaker.trouble() && !breaker.trouble() && breaker.trouble());
    }

    #[test]
    fn attempts_come_at_once_then_ever_less_often() {
        let mut breaker = Breaker::default();
        let pauses: Vec<_> = (0..10).map(|_| breaker.pause(1.0).as_millis()).collect();
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        assert_eq!(breaker.pause(0.0).as_millis(), 500);
        breaker.half_closed();
        assert_eq!(breaker.pause(1.0).as_millis(), 1000);
        breaker.success();
        assert_eq!(breaker.pause(1.0).as_millis(), 0);
    }
}
