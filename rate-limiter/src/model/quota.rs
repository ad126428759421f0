//! How a limit is split among proxies that enforce it themselves (RLQS).
//!
//! Each proxy has a token bucket of its own; together they admit no more than the limit. Shares follow demand, max-min
//! fair: who wants less than an even share gets what it wants, the others share the rest evenly. A tenth
//! is kept apart and dealt out evenly, so that a proxy that was idle, or has just come, is never
//! refused everything until its next report. What nobody wants is dealt out evenly too.
//!
//! Shaped by what Envoy 1.40 does with an assignment: its bucket refills continuously at
//! `tokens_per_fill / fill_interval`, the interval in whole seconds. The interval of a limit is constant and
//! `tokens_per_fill` varies, so that shares are as exact for slow limits as for fast ones.

use super::limit::Limit;

/// Part of a limit that is dealt out evenly, whatever the demand.
const EVEN_PART: f64 = 0.1;

/// `tokens_per_fill` of a whole limit is at least this, so that shares are exact to a thousandth.
const RESOLUTION: f64 = 1_000.0;

/// The longest interval between fills, in seconds.
const MAX_INTERVAL: u64 = 366 * 86_400;

/// What one proxy may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignment {
    /// Everything: no limit applies.
    Everything,
    /// Nothing.
    Nothing,
    /// A token bucket.
    Bucket {
        /// The most tokens it holds.
        max_tokens: u32,
        /// Tokens added per interval.
        tokens_per_fill: u32,
        /// The interval, in whole seconds, at least one.
        fill_interval: u32,
    },
}

/// Splits `limit` by demand (requests per second, admitted and refused); one assignment for each, in order.
///
/// The rates sum to at most the limit. Bursts sum to at most the limit's, but each proxy has at least one token.
pub fn split(limit: &Limit, demands: &[f64]) -> Vec<Assignment> {
    if limit.requests() == 0 {
        return vec![Assignment::Nothing; demands.len()];
    }
    let rate = f64::from(limit.requests()) / limit.per().as_secs_f64();
    let interval = fill_interval(rate);
    let wanted: Vec<f64> = demands.iter().map(|demand| demand / rate).collect();
    shares(&wanted)
        .into_iter()
        .map(|share| {
            // Rounded down: what is lost is less than a thousandth.
            let tokens = (rate * share * f64::from(interval)).floor();
            let burst = (f64::from(limit.burst()) * share).floor();
            match tokens as u32 {
                0 => Assignment::Nothing,
                tokens_per_fill => {
                    Assignment::Bucket { max_tokens: (burst as u32).max(1), tokens_per_fill, fill_interval: interval }
                }
            }
        })
        .collect()
}

/// What share of the whole each gets, where `wanted` is demand as a share of the limit. They sum to at most one.
fn shares(wanted: &[f64]) -> Vec<f64> {
    let even = EVEN_PART / wanted.len() as f64;
    let mut by_demand: Vec<usize> = (0..wanted.len()).collect();
    by_demand.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
    let mut shares = vec![even; wanted.len()];
    let mut left = 1.0 - EVEN_PART;
    for (place, &proxy) in by_demand.iter().enumerate() {
        let fair = left / (wanted.len() - place) as f64;
        let share = wanted[proxy].clamp(0.0, fair);
        shares[proxy] += share;
        left -= share;
    }
    let spare = left.max(0.0) / wanted.len() as f64;
    shares.iter().map(|share| share + spare).collect()
}

fn fill_interval(rate: f64) -> u32 {
    let seconds = (RESOLUTION / rate).ceil().clamp(1.0, MAX_INTERVAL as f64);
    seconds as u32
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::limit::Algorithm;

    fn limit(requests: u32, per: Duration, burst: u32) -> Limit {
        Limit::new(requests, per, Some(burst), Algorithm::TokenBucket).unwrap()
    }

    fn rate(assignment: &Assignment) -> f64 {
        match assignment {
            Assignment::Everything => f64::INFINITY,
            Assignment::Nothing => 0.0,
            Assignment::Bucket { tokens_per_fill, fill_interval, .. } => {
                f64::from(*tokens_per_fill) / f64::from(*fill_interval)
            }
        }
    }

    fn rates(demands: &[f64]) -> Vec<u32> {
        let limit = limit(1_000, Duration::from_secs(1), 1_000);
        split(&limit, demands).iter().map(|assignment| rate(assignment).round() as u32).collect()
    }

    #[test]
    fn one_proxy_has_the_whole_limit() {
        assert_eq!(rates(&[0.0]), [1_000]);
        assert_eq!(rates(&[5_000.0]), [1_000]);
    }

    #[test]
    fn shares_follow_demand_and_nobody_gets_nothing() {
        assert_eq!(rates(&[0.0, 0.0]), [500, 500]);
        assert_eq!(rates(&[2_000.0, 0.0]), [950, 50]);
        // Who wants less than its even share has it; the greedy one does not take it away.
        assert_eq!(rates(&[100.0, 100_000.0]), [150, 850]);
        assert_eq!(rates(&[300.0, 300.0, 300.0]), [333, 333, 333]);
    }

    #[test]
    fn a_zero_limit_assigns_nothing() {
        let limit = Limit::new(0, Duration::from_secs(1), None, Algorithm::TokenBucket).unwrap();
        assert_eq!(split(&limit, &[1.0, 2.0]), [Assignment::Nothing, Assignment::Nothing]);
    }

    #[test]
    fn slow_limits_have_long_intervals() {
        let limit = limit(10, Duration::from_secs(3_600), 10);
        let [Assignment::Bucket { max_tokens: 10, tokens_per_fill: 1_000, fill_interval: 360_000 }] =
            split(&limit, &[1.0])[..]
        else {
            panic!("{:?}", split(&limit, &[1.0]))
        };
    }

    proptest! {
        #[test]
        fn no_split_exceeds_the_limit(
            requests in 1_u32..1_000_000, per in 1_u64..86_400_000, burst in 1_u32..10_000,
            demands in prop::collection::vec(prop_oneof![Just(0.0), 0.0..1e9], 1..40),
        ) {
            let Ok(limit) = Limit::new(requests, Duration::from_millis(per), Some(burst), Algorithm::TokenBucket) else {
                return Ok(());
            };
            let assignments = split(&limit, &demands);
            let whole = f64::from(requests) / limit.per().as_secs_f64();
            let sum: f64 = assignments.iter().map(rate).sum();
            prop_assert!(sum <= whole * (1.0 + 1e-9), "{sum} of {whole}");
            prop_assert!(sum >= whole * 0.95 - demands.len() as f64, "{sum} of {whole}");
            let tokens: u64 = assignments.iter().map(|assignment| match assignment {
                Assignment::Bucket { max_tokens, .. } => u64::from(*max_tokens),
                _ => 0,
            }).sum();
            prop_assert!(tokens <= u64::from(burst).max(demands.len() as u64) + demands.len() as u64);
        }

        #[test]
        fn who_wants_more_never_gets_less(demands in prop::collection::vec(0.0..1e6_f64, 2..20)) {
            let limit = limit(10_000, Duration::from_secs(1), 10_000);
            let assignments = split(&limit, &demands);
            for a in 0..demands.len() {
                for b in 0..demands.len() {
                    if demands[a] <= demands[b] {
                        prop_assert!(rate(&assignments[a]) <= rate(&assignments[b]) + 1.0);
                    }
                }
            }
        }
    }
}
