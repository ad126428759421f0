//! A fleet as it is written.

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
    /// It is answered with 503.
    Deny,
}

/// What holds where a route says nothing else.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FleetDefaultsSpec {
    /// The time for a whole answer, retries included, 1ms to 24h; 15s if it is not given.
    pub timeout: Option<DurationText>,
}
