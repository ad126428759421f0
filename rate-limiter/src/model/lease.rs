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

/// Tokens to borrow for a key that this replica sees `rate` times a second, where `replicas` share the limit: at least
/// one, and where more, all replicas together at most an eighth of the burst.
pub fn size(limit: &Limit, rate: f64, replicas: u32) -> u32 {
    if limit.algorithm() != Algorithm::TokenBucket {
        return 1;
    }
    let most = limit.burst() / replicas.max(1).saturating_mul(8);
    // Not a number counts as none; what is too large is the largest.
    let wanted = (rate * COVERS.as_secs_f64()) as u32;
    wanted.min(most).max(1)
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
            burst in 1..1_000_000_u32, rate in proptest::num::f64::ANY, replicas in any::<u32>(),
        ) {
            let size = size(&limit(burst, Algorithm::TokenBucket), rate, replicas);
            prop_assert!(size >= 1);
            prop_assert!(size == 1 || u64::from(size) * 8 * u64::from(replicas.max(1)) <= burst.into());
            prop_assert!(size == 1 || f64::from(size) <= rate * COVERS.as_secs_f64());
        }
    }

    #[test]
    fn a_lease_covers_fifty_milliseconds_of_demand() {
        let bucket = limit(8_000, Algorithm::TokenBucket);
        assert_eq!(size(&bucket, 2_000.0, 1), 100);
        assert_eq!(size(&bucket, 1_000_000.0, 4), 250);
        assert_eq!(size(&bucket, 0.0, 0), 1);
        assert_eq!(size(&bucket, f64::INFINITY, 1), 1_000);
        assert_eq!(size(&limit(8_000, Algorithm::FixedWindow), 2_000.0, 1), 1);
    }
}
