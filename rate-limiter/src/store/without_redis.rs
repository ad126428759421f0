//! What is decided when Redis is away: each rule's own policy.
//!
//! `local`, the default, counts in this process's cells, at a replica's share of the limit, so that all replicas together
//! still admit about the limit. The share is of the rate and of the burst: a bucket's interval is multiplied by the number
//! of replicas, which is exact even where a share is less than one request per period; a burst is at
//! least one. A window's requests are divided, at least one each: it must end when the others end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{Ask, Charging, Outcome, Source, Store};
use crate::model::{
    descriptor::Hits,
    limit::{Algorithm, Limit},
    rule::WithoutRedis,
};

/// When a client may ask again that was refused because Redis is away.
const RETRY: Duration = Duration::from_secs(1);

/// Decides by policy.
#[derive(Clone)]
pub struct Fallback {
    local: Arc<dyn Store>,
    replicas: Arc<AtomicU32>,
}

impl Fallback {
    /// Counts in `local`, which must answer at once, where the policy says so. `replicas` is how many share a limit.
    pub fn new(local: Arc<dyn Store>, replicas: Arc<AtomicU32>) -> Self {
        Self { local, replicas }
    }

    /// Decides one ask.
    pub fn charge(&self, ask: &Ask) -> Outcome {
        match ask.policy.without_redis {
            WithoutRedis::Local => self.local(ask),
            WithoutRedis::Allow => admitted(ask),
            WithoutRedis::Deny => refused(ask),
        }
    }

    fn local(&self, ask: &Ask) -> Outcome {
        let share = share(&ask.limit, self.replicas.load(Ordering::Relaxed));
        match self.local.charge(&[Ask { limit: share, ..*ask }]) {
            Charging::Done(outcomes) => outcomes
                .first()
                .map_or_else(|| refused(ask), |outcome| Outcome { source: Source::WithoutRedis, ..*outcome }),
            // A store that has to wait is not one to fall back to.
            Charging::Waiting(_) => refused(ask),
        }
    }
}

fn admitted(ask: &Ask) -> Outcome {
    let remaining = ask.limit.burst().into();
    let zero = Duration::ZERO;
    Outcome { admitted: true, remaining, reset: zero, retry: zero, source: Source::WithoutRedis }
}

fn refused(ask: &Ask) -> Outcome {
    let admitted = matches!(ask.hits, Hits::GiveBack(_));
    let retry = if admitted { Duration::ZERO } else { RETRY };
    Outcome { admitted, remaining: 0, reset: retry, retry, source: Source::WithoutRedis }
}

/// What one of `replicas` may admit.
pub(crate) fn share(limit: &Limit, replicas: u32) -> Limit {
    if replicas <= 1 || limit.requests() == 0 {
        return *limit;
    }
    let burst = Some((limit.burst() / replicas).max(1));
    let fewer = || Limit::new((limit.requests() / replicas).max(1), limit.per(), burst, limit.algorithm());
    let shared = match limit.algorithm() {
        Algorithm::TokenBucket => {
            Limit::new(limit.requests(), limit.per().saturating_mul(replicas), burst, limit.algorithm())
                .or_else(|_| fewer())
        }
        Algorithm::FixedWindow => fewer(),
    };
    shared.unwrap_or(*limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{key::CellKey, rule::Policy};

    /// Shows the limit it was asked with.
    struct Echo;

    impl Store for Echo {
        fn charge(&self, asks: &[Ask]) -> Charging {
            let outcome = |ask: &Ask| Outcome {
                admitted: true,
                remaining: ask.limit.burst().into(),
                reset: ask.limit.per() / ask.limit.requests(),
                retry: Duration::ZERO,
                source: Source::Memory,
            };
            Charging::Done(asks.iter().map(outcome).collect())
        }
    }

    fn ask(limit: Limit, without_redis: WithoutRedis) -> Ask {
        Ask { key: CellKey(1), limit, hits: Hits::Take(1), policy: Policy { without_redis, ..Policy::default() } }
    }

    fn limit(requests: u32, seconds: u64, burst: u32, algorithm: Algorithm) -> Limit {
        Limit::new(requests, Duration::from_secs(seconds), Some(burst), algorithm).unwrap()
    }

    fn fallback(replicas: u32) -> Fallback {
        Fallback::new(Arc::new(Echo), Arc::new(AtomicU32::new(replicas)))
    }

    #[test]
    fn local_counts_at_a_share_of_rate_and_burst() {
        let bucket = ask(limit(10, 1, 20, Algorithm::TokenBucket), WithoutRedis::Local);
        let outcome = fallback(4).charge(&bucket);
        assert_eq!((outcome.remaining, outcome.reset), (5, Duration::from_millis(400)));
        assert_eq!(outcome.source, Source::WithoutRedis);
        assert_eq!(fallback(1).charge(&bucket).reset, Duration::from_millis(100));
        assert_eq!(fallback(0).charge(&bucket).reset, Duration::from_millis(100));
    }

    #[test]
    fn a_share_below_one_stays_exact_for_buckets_and_is_one_for_windows() {
        let bucket = ask(limit(1, 1, 1, Algorithm::TokenBucket), WithoutRedis::Local);
        let outcome = fallback(3).charge(&bucket);
        assert_eq!((outcome.remaining, outcome.reset), (1, Duration::from_secs(3)));
        let window = ask(limit(2, 60, 2, Algorithm::FixedWindow), WithoutRedis::Local);
        assert_eq!(fallback(3).charge(&window).reset, Duration::from_secs(60));
    }

    #[test]
    fn the_longest_period_is_shared_as_well() {
        let year = limit(1_000, 366 * 86_400, 1_000, Algorithm::TokenBucket);
        assert_eq!(share(&year, 4).requests(), 250);
    }

    #[test]
    fn allow_admits_and_deny_refuses_for_a_second() {
        let limit = limit(10, 1, 20, Algorithm::TokenBucket);
        assert!(fallback(1).charge(&ask(limit, WithoutRedis::Allow)).admitted);
        let refused = fallback(1).charge(&ask(limit, WithoutRedis::Deny));
        assert!(!refused.admitted && refused.retry == RETRY);
        let given = Ask { hits: Hits::GiveBack(1), ..ask(limit, WithoutRedis::Deny) };
        assert!(fallback(1).charge(&given).admitted);
    }
}
