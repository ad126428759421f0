//! So many requests for each of many: a limiter whose memory does not grow with who asks.
//!
//! Everybody falls into one of 65,536 cells, by a hash that nobody outside can foresee; two who share a cell share its
//! limit. The obvious other, a cell for each and a sweep now and then, has no bound while addresses come faster than it sweeps.

use std::{
    hash::{Hash, RandomState},
    num::NonZeroU32,
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::HashMapStateStore,
};

/// Which cell somebody falls into.
type Cell = u16;

/// At most so many requests, and again so many in every window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// What is limited, as callers are told.
    pub(super) name: &'static str,
    /// So many at once.
    pub(super) burst: NonZeroU32,
    /// As many again in this time.
    pub(super) window: Duration,
}

impl Policy {
    /// `rate` requests in a second, and `seconds` times as many at once. No limit, if the rate is 0.
    pub(super) fn of_rate(name: &'static str, rate: u32, seconds: u32) -> Option<Self> {
        let burst = NonZeroU32::new(rate.saturating_mul(seconds))?;
        Some(Self { name, burst, window: Duration::from_secs(u64::from(seconds)) })
    }
}

/// How somebody stands with a limit after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) struct Standing {
    policy: Policy,
    /// How many more requests there may be now.
    remaining: u32,
    /// When the request may come again; none: it may be served.
    wait: Option<Duration>,
}

impl Standing {
    /// When the request may come again, if it is refused.
    pub(in crate::api) fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// What is limited.
    pub(in crate::api) fn name(&self) -> &'static str {
        self.policy.name
    }

    /// The value of `RateLimit-Policy`: quota and window in seconds.
    pub(in crate::api) fn policy_header(&self) -> String {
        let Policy { name, burst, window } = self.policy;
        format!("\"{name}\";q={burst};w={}", seconds(window))
    }

    /// The value of `RateLimit`: what remains, and the seconds until all of it is there again.
    pub(in crate::api) fn header(&self) -> String {
        let Policy { name, burst, window } = self.policy;
        let used = burst.get().saturating_sub(self.remaining);
        let whole = window.mul_f64(f64::from(used) / f64::from(burst.get()));
        format!("\"{name}\";r={};t={}", self.remaining, seconds(whole))
    }
}

/// Whole seconds, rounded up: who waits so long does not come too early.
pub(in crate::api) fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// A limit for each of many.
pub(super) struct Limiter {
    policy: Policy,
    cells: RateLimiter<Cell, HashMapStateStore<Cell>, DefaultClock, StateInformationMiddleware>,
    hasher: RandomState,
    clock: DefaultClock,
}

impl Limiter {
    /// Nobody has asked yet.
    pub(super) fn new(policy: Policy) -> Self {
        let Policy { burst, window, .. } = policy;
        // None: a window of no length, which would be no limit.
        let quota = Quota::with_period(window / burst.get()).unwrap_or_else(|| Quota::per_second(burst));
        let cells = RateLimiter::hashmap(quota.allow_burst(burst)).with_middleware();
        Self { policy, cells, hasher: RandomState::new(), clock: DefaultClock::default() }
    }

    /// Counts a request of `who`, unless it is refused.
    pub(super) fn count(&self, who: &impl Hash) -> Standing {
        let cell = std::hash::BuildHasher::hash_one(&self.hasher, who) as Cell;
        let (remaining, wait) = match self.cells.check_key(&cell) {
            Ok(state) => (state.remaining_burst_capacity(), None),
            Err(refused) => (0, Some(refused.wait_time_from(self.clock.now()))),
        };
        Standing { policy: self.policy, remaining, wait }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(burst: u32, window: Duration) -> Limiter {
        Limiter::new(Policy { name: "token", burst: NonZeroU32::new(burst).unwrap(), window })
    }

    #[test]
    fn each_has_a_burst_and_is_told_how_it_stands() {
        let limiter = limiter(3, Duration::from_secs(3600));
        for remaining in [2, 1, 0] {
            let standing = limiter.count(&"a");
            assert_eq!((standing.wait(), standing.remaining), (None, remaining));
        }
        let refused = limiter.count(&"a");
        let wait = refused.wait().unwrap();
        assert!(wait > Duration::from_secs(1190) && wait <= Duration::from_secs(1200), "{wait:?}");
        assert_eq!(refused.policy_header(), r#""token";q=3;w=3600"#);
        assert_eq!(refused.header(), r#""token";r=0;t=3600"#);
        assert_eq!(limiter.count(&"b").header(), r#""token";r=2;t=1200"#);
    }

    #[test]
    fn there_are_never_more_cells_than_there_can_be() {
        let limiter = limiter(1, Duration::from_secs(3600));
        for who in 0..200_000u32 {
            limiter.count(&who);
        }
        assert!(limiter.cells.len() <= 1 << 16);
    }

    #[test]
    fn a_rate_of_nothing_is_no_limit() {
        assert_eq!(Policy::of_rate("token", 0, 10), None);
        let policy = Policy::of_rate("token", 5, 10).unwrap();
        assert_eq!((policy.burst.get(), policy.window), (50, Duration::from_secs(10)));
    }
}
