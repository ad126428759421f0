//! A limit that each proxy keeps by itself, for one rule.

use std::time::Duration;

/// So many requests in so long, at each proxy by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalRateLimit {
    /// How many come back in `per`, at least 1.
    pub requests: u32,
    /// 1 s to 1 h.
    pub per: Duration,
    /// So many at once, not below `requests`.
    pub burst: u32,
}
