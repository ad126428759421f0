//! A group of Envoys with one configuration.

use std::{collections::BTreeMap, time::Duration};

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
    /// How a revision comes to its proxies; without it, to all at once.
    pub rollout: Option<RolloutPolicy>,
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
    /// It is answered with 503, or as an authorizer says.
    Deny,
}

/// How a revision comes to the proxies of a fleet: to a few first, and to all if nothing speaks against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutPolicy {
    /// Who gets it first.
    pub canaries: CanaryChoice,
    /// How long they have it before the others get it, from when all of them have acknowledged it.
    pub soak: Duration,
    /// How long they may take to acknowledge it.
    pub acknowledge_within: Duration,
    /// What their error rate may become.
    pub error_rate: Option<ErrorRateGate>,
    /// What becomes of a revision that failed.
    pub on_failure: OnRolloutFailure,
}

/// Which proxies are canaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CanaryChoice {
    /// So many in a hundred of those that are connected when a rollout begins, at least one.
    Percent(u32),
    /// Those with all of these labels.
    Labels(BTreeMap<String, String>),
}

/// The share of requests through the canaries that may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorRateGate {
    /// How many in a hundred more may fail than before.
    pub margin_percent: u32,
    /// With fewer requests than so many nothing is said.
    pub min_requests: u64,
}

/// What becomes of a revision that failed with the canaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRolloutFailure {
    /// They are given back what they had before.
    #[default]
    Return,
    /// They keep it, until somebody says what is to become of it.
    Hold,
}
