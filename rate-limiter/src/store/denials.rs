//! A refusal that is remembered, so that a client who keeps knocking costs Redis nothing.
//!
//! It holds for as many hits as were refused, or more, until they would be admitted; never longer than [`LONGEST`], because
//! another replica may give back what it took. What is given back here, or another limit, ends it at once. Never for
//! strict rules, nor for those that count what they refuse (debt). Denials live in the bounded table of [`leased`](super::leased).
//!
//! For a key that may be leased the denial lasts a little longer: until not one token is there but a handful. Tokens
//! gather in Redis meanwhile (the bucket holds at least eight such handfuls, so none is lost), and one call fetches
//! them all. That is how a key with many times more demand than its limit admits costs twenty calls a second.

use std::time::Duration;

use tokio::time::Instant;

use super::{Outcome, Source};

/// How long a refusal is believed at most.
pub(crate) const LONGEST: Duration = Duration::from_secs(1);

/// A remembered refusal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Denial {
    hits: u64,
    until: Instant,
    /// When the hits would be admitted; `None`: never.
    retry_at: Option<Instant>,
    reset_at: Instant,
    remaining: u64,
}

impl Denial {
    /// Remembers that `hits` (a look counts as one) were refused, with `outcome`, and believes it for `longer` than it says.
    pub(crate) fn new(hits: u64, outcome: &Outcome, longer: Duration, now: Instant) -> Self {
        Self {
            hits: hits.max(1),
            until: now + outcome.retry.saturating_add(longer).min(LONGEST),
            retry_at: now.checked_add(outcome.retry.saturating_add(longer)),
            reset_at: now.checked_add(outcome.reset).unwrap_or(now + LONGEST),
            remaining: outcome.remaining,
        }
    }

    /// The same refusal, if it still holds for `hits`.
    pub(crate) fn refuse(&self, hits: u64, now: Instant) -> Option<Outcome> {
        (hits >= self.hits && now < self.until).then(|| Outcome {
            admitted: false,
            remaining: self.remaining,
            reset: self.reset_at.saturating_duration_since(now),
            retry: self.retry_at.map_or(Duration::MAX, |at| at.saturating_duration_since(now)),
            source: Source::Denial,
        })
    }

    /// Whether it says nothing any more.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(retry: Duration) -> Outcome {
        Outcome { admitted: false, remaining: 1, reset: retry * 2, retry, source: Source::Redis }
    }

    #[test]
    fn it_holds_for_as_many_hits_until_they_would_be_admitted() {
        let now = Instant::now();
        let (retry, step) = (Duration::from_millis(300), Duration::from_millis(100));
        let denial = Denial::new(2, &refused(retry), Duration::ZERO, now);
        assert!(denial.refuse(1, now).is_none());
        let later = denial.refuse(3, now + step).unwrap();
        assert_eq!((later.retry, later.reset), (step * 2, step * 5));
        assert!(denial.refuse(2, now + retry).is_none() && denial.is_over(now + retry));
    }

    #[test]
    fn it_is_believed_for_a_second_at_most_but_says_when_to_come_back() {
        let now = Instant::now();
        let denial = Denial::new(1, &refused(Duration::from_secs(3_600)), Duration::ZERO, now);
        let shortly = now + Duration::from_millis(999);
        assert_eq!(denial.refuse(1, shortly).unwrap().retry, Duration::from_secs(3_600) - Duration::from_millis(999));
        assert!(denial.refuse(1, now + LONGEST).is_none());
    }

    #[test]
    fn never_stays_never() {
        let now = Instant::now();
        let never = Outcome { retry: Duration::MAX, ..refused(Duration::from_secs(1)) };
        assert_eq!(Denial::new(5, &never, Duration::ZERO, now).refuse(5, now).unwrap().retry, Duration::MAX);
    }
}
