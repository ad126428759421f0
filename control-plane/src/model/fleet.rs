//! A group of Envoys with one configuration.

use std::time::Duration;

use super::{Name, service::Address};

/// A fleet, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// The name; proxies carry it in their certificate and as `node.cluster`.
    pub name: Name,
    /// The timeout of a rule that sets none.
    pub default_timeout: Duration,
    /// How many proxies in front of the fleet append to `x-forwarded-for` and are trusted.
    pub trusted_hops: u32,
    /// The limiter that its proxies ask; without one, no route on the fleet can be limited.
    pub rate_limiter: Option<RateLimiter>,
}

/// Where a fleet's rate limiter is, and what a proxy does without its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimiter {
    /// Host and gRPC port of each replica, without duplicates, at least one.
    pub addresses: Vec<(Address, u16)>,
    /// How long a request waits for a decision.
    pub timeout: Duration,
    /// What becomes of a request that no decision came for.
    pub on_failure: OnFailure,
    /// Whether it is spoken to in the clear, without proof of who is who.
    pub insecure: bool,
}

/// What becomes of a request that no decision came for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It goes on.
    #[default]
    Allow,
    /// It is answered with 503.
    Deny,
}
