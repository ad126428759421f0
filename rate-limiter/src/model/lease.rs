//! How many tokens a replica may borrow at once, and for how long.
//!
//! Bound: with leases that live at most `LIFE`, in any interval `t` at most `burst + (t + LIFE) / T` hits
//! are admitted, whatever replicas come, go or crash.

use std::time::Duration;

use super::limit::{Algorithm, Limit};

/// How long borrowed tokens may be used.
pub const LIFE: Duration = Duration::from_secs(1);

/// How much of a key's demand one lease covers.
pub const COVERS: Duration = Duration::from_millis(50);

/// So many tokens or fewer are lent for longer, up to half of their life's demand: they are hardly missed elsewhere, and a key
/// that is asked for a few times a second would never get any otherwise.
pub const FEW: u32 = 16;

/// How often a key is asked for at a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Hits per second, measured over some fifty milliseconds.
    pub rate: f64,
    /// Hits before this one within about the last [`LIFE`].
    pub earlier: f64,
}

/// Tokens to borrow for a key with this demand, where `replicas` share the limit: at least one, and where more, all replicas
/// together at most an eighth of the burst. One is no lease, and all that a key gets that is not likely to be asked
/// for again soon.
pub fn size(limit: &Limit, demand: Demand, replicas: u32) -> u32 {
    if limit.algorithm() != Algorithm::TokenBucket {
        return 1;
    }
    let most = limit.burst() / replicas.max(1).saturating_mul(8);
    // Not a number counts as none; what is too large is the largest.
    let hot = (demand.rate * COVERS.as_secs_f64()) as u32;
    let warm = (demand.earlier / 2.0) as u32;
    hot.max(warm.saturating_add(1).min(FEW)).min(most).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(burst: u32, algorithm: Algorithm) -> Limit {
        Limit::new(1_000, Duration::from_secs(1), Some(burst), algorithm).unwrap()
    }

    proptest! {
        #[test]
        fn leases_of_all_replicas_are_at_most_an_eighth_of_the_burst(
            burst in 1..1_000_000_u32, rate in proptest::num::f64::ANY, earlier in proptest::num::f64::ANY,
            replicas in any::<u32>(),
        ) {
            let size = size(&limit(burst, Algorithm::TokenBucket), Demand { rate, earlier }, replicas);
            prop_assert!(size >= 1);
            prop_assert!(size == 1 || u64::from(size) * 8 * u64::from(replicas.max(1)) <= burst.into());
            let few = size <= FEW && f64::from(size - 1) * 2.0 <= earlier;
            prop_assert!(size == 1 || few || f64::from(size) <= rate * COVERS.as_secs_f64());
        }
    }

    fn at(rate: f64) -> Demand {
        Demand { rate, earlier: 0.0 }
    }

    #[test]
    fn a_lease_covers_fifty_milliseconds_of_demand() {
        let bucket = limit(8_000, Algorithm::TokenBucket);
        assert_eq!(size(&bucket, at(2_000.0), 1), 100);
        assert_eq!(size(&bucket, at(1_000_000.0), 4), 250);
        assert_eq!(size(&bucket, at(0.0), 0), 1);
        assert_eq!(size(&bucket, at(f64::INFINITY), 1), 1_000);
        assert_eq!(size(&limit(8_000, Algorithm::FixedWindow), at(2_000.0), 1), 1);
    }

    #[test]
    fn a_few_tokens_cover_half_a_second() {
        let sizes = |burst, replicas| {
            let bucket = limit(burst, Algorithm::TokenBucket);
            [0.0, 1.0, 2.0, 10.0, 100.0].map(|earlier| size(&bucket, Demand { rate: earlier, earlier }, replicas))
        };
        assert_eq!(sizes(8_000, 1), [1, 1, 2, 6, FEW]);
        assert_eq!(sizes(64, 2), [1, 1, 2, 4, 4]);
        assert_eq!(sizes(8, 1), [1; 5]);
    }
}
