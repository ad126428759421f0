//! The time that cells in this process are counted in: nanoseconds since the Unix epoch.
//!
//! The system's clock is read once, and time then goes on by the monotonic clock: a step of the system's
//! clock, back or forth, neither refuses a client for an hour nor hands it an hour's worth of tokens. The
//! price is that windows stay aligned to the clock as it was at the start.
//!
//! A test holds the [`Hand`] of its clock, and time stands still until it moves it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Tells the time. A clone tells the same time.
#[derive(Clone, Debug)]
pub struct Clock(Works);

/// Moves the time of one [`Clock`] and its clones.
#[derive(Clone, Debug)]
pub struct Hand(Arc<AtomicU64>);

#[derive(Clone, Debug)]
enum Works {
    Monotonic { origin: Instant, unix: u64 },
    ByHand(Arc<AtomicU64>),
}

impl Clock {
    /// The real time.
    pub fn system() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, nanoseconds);
        Self(Works::Monotonic { origin: Instant::now(), unix })
    }

    /// A clock that stands at `now`, since the Unix epoch, until its hand is moved.
    pub fn by_hand(now: Duration) -> (Self, Hand) {
        let time = Arc::new(AtomicU64::new(nanoseconds(now)));
        (Self(Works::ByHand(time.clone())), Hand(time))
    }

    /// Nanoseconds since the Unix epoch. Never less than what any thread was told before, unless a hand was turned back.
    #[inline]
    pub fn now(&self) -> u64 {
        match &self.0 {
            Works::Monotonic { origin, unix } => unix.saturating_add(nanoseconds(origin.elapsed())),
            Works::ByHand(time) => time.load(Ordering::Acquire),
        }
    }
}

impl Hand {
    /// Makes it `now`, since the Unix epoch.
    pub fn set(&self, now: Duration) {
        self.0.store(nanoseconds(now), Ordering::Release);
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(nanoseconds(by), Ordering::AcqRel);
    }
}

/// In 64 bits, which reach the year 2554.
fn nanoseconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_time_is_the_systems_and_goes_on() {
        let clock = Clock::system();
        let first = clock.now();
        let system = nanoseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        assert!(system.abs_diff(first) < 1_000_000_000, "{system} and {first}");
        assert!(clock.now() >= first);
    }

    #[test]
    fn a_clock_moved_by_hand_stands_still_in_between() {
        let (clock, hand) = Clock::by_hand(Duration::from_secs(5));
        assert_eq!(clock.now(), 5_000_000_000);
        hand.advance(Duration::from_nanos(3));
        assert_eq!(clock.now(), 5_000_000_003);
        hand.set(Duration::from_secs(1));
        assert_eq!(clock.now(), 1_000_000_000);
    }
}
