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

/// Tokens to borrow for a key that this replica sees `rate` times a second, where `replicas` share the limit.
pub fn size(limit: &Limit, rate: f64, replicas: u32) -> u32 {
    if limit.algorithm() != Algorithm::TokenBucket {
        return 1;
    }
    let most = limit.burst() / (8 * replicas.max(1));
    let wanted = (rate * COVERS.as_secs_f64()).min(f64::from(u32::MAX)) as u32;
    wanted.min(most).max(1)
}
