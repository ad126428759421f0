//! What was counted in a stretch of time.

use std::ops::AddAssign;

/// Requests by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answered well.
    pub successes: u64,
    /// Answered with an error, or not at all.
    pub errors: u64,
    /// Not sent, by a breaker or an overload policy.
    pub dropped: u64,
}

impl Counts {
    /// Requests that were sent and have ended.
    pub fn requests(self) -> u64 {
        self.successes.saturating_add(self.errors)
    }

    /// The share of errors among them, 0 to 1; none without requests.
    pub fn error_rate(self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = self.errors as f64 / self.requests() as f64;
        (self.requests() > 0).then_some(rate)
    }

    /// Whether nothing was counted.
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.successes = self.successes.saturating_add(other.successes);
        self.errors = self.errors.saturating_add(other.errors);
        self.dropped = self.dropped.saturating_add(other.dropped);
    }
}
