//! A fleet as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use super::DurationText;

/// A group of Envoys with one configuration.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FleetSpec {
    /// What holds on its listeners where a route says nothing else.
    pub defaults: Option<FleetDefaultsSpec>,
    /// How many proxies in front of the fleet append to `x-forwarded-for` and are trusted.
    #[schema(maximum = 32, default = 0)]
    pub trusted_hops: Option<u32>,
    /// The rate limiter that its proxies ask; without one, no route on the fleet can name limits.
    pub rate_limiter: Option<RateLimiterSpec>,
    /// How a revision comes to its proxies: to a few first, and to all if nothing speaks against it. Without it, to all at once.
    pub rollout: Option<RolloutSpec>,
}

/// How a revision comes to the proxies of a fleet. One at a time: revisions that come while one is tried wait, and are tried
/// together as the next.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutSpec {
    /// Who gets it first.
    pub canary: CanarySpec,
    /// How long the canaries have it before all others get it, from when all of them have acknowledged it, 1s to 24h; 30s if
    /// it is not given.
    pub soak: Option<DurationText>,
    /// How long the canaries may take to acknowledge it, 1s to 1h; 60s if it is not given. A canary that goes away may take as
    /// long to come back.
    pub acknowledge_within: Option<DurationText>,
    /// What must hold besides: that all canaries acknowledge it always must.
    pub gates: Option<RolloutGatesSpec>,
    /// What becomes of a revision that failed.
    #[schema(default = "return")]
    pub on_failure: Option<OnRolloutFailureSpec>,
}

/// Which proxies are canaries: exactly one of the two.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CanarySpec {
    /// So many in a hundred of those that are connected when a rollout begins, at least one.
    #[schema(minimum = 1, maximum = 100)]
    pub percent: Option<u32>,
    /// Those whose labels have all of these: the texts under `labels` in the metadata of their node.
    #[schema(examples(json!({ "track": "canary" })))]
    pub labels: Option<BTreeMap<String, String>>,
}

/// What must hold for a revision to go from the canaries to all.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RolloutGatesSpec {
    /// The share of requests through the canaries that fail, by their load reports.
    pub error_rate: Option<ErrorRateGateSpec>,
}

/// The share of requests through the canaries that may fail.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorRateGateSpec {
    /// How many in a hundred more may fail than before.
    #[schema(minimum = 0, maximum = 100, default = 1)]
    pub margin_percent: Option<u32>,
    /// With fewer requests than so many nothing is said.
    #[schema(minimum = 1, maximum = 1_000_000_000, default = 100)]
    pub min_requests: Option<u64>,
}

/// What becomes of a revision that failed with the canaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnRolloutFailureSpec {
    /// They are given back what they had before.
    Return,
    /// They keep it, until somebody says what is to become of it.
    Hold,
}

/// Where a rate limiter is, and what a proxy does without its answer.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimiterSpec {
    /// The gRPC addresses of its replicas: `host:port`, each an IP address (IPv6 in brackets) or a name that every proxy
    /// resolves, again and again.
    #[schema(min_items = 1, max_items = 50, examples(json!(["limiter.internal:8081"])))]
    pub addresses: Vec<String>,
    /// How long a request waits for a decision, 1ms to 10s; 20ms if it is not given.
    pub timeout: Option<DurationText>,
    /// What becomes of a request that no decision came for.
    #[schema(default = "allow")]
    pub on_failure: Option<OnFailureSpec>,
    /// Whether it is spoken to in the clear, without proof of who is who.
    #[schema(default = false)]
    pub insecure: Option<bool>,
}

/// What becomes of a request that no decision came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFailureSpec {
    /// It goes on.
    Allow,
    /// It is answered with 503, or as `statusOnError` of an authorizer says.
    Deny,
}

/// What holds where a route says nothing else.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FleetDefaultsSpec {
    /// The time for a whole answer, retries included, 1ms to 24h; 15s if it is not given.
    pub timeout: Option<DurationText>,
}
