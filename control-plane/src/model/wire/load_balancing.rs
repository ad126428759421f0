//! How an endpoint is chosen, as it is written.

use serde::Deserialize;
use utoipa::ToSchema;

use super::DurationText;

/// How an endpoint is chosen for a request: the name of a policy, or the policy with its settings.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum LoadBalancingSpec {
    /// The policy alone.
    Policy(LoadBalancingPolicySpec),
    /// With settings.
    Settings(LoadBalancingSettingsSpec),
}

/// How an endpoint is chosen for a request, at Envoys; sidecars always take the faster of two drawn at random.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancingSettingsSpec {
    /// By what; `round-robin` if it is not given.
    pub policy: Option<LoadBalancingPolicySpec>,
    /// What of a request is hashed, with `ring-hash` and `maglev`, which need it. All that is there counts together.
    #[schema(min_items = 1, max_items = 16)]
    pub hash: Option<Vec<HashKeySpec>>,
    /// How much an endpoint may have under way, in percent of its share, before requests go elsewhere in spite of their hash; any
    /// amount if it is not given. With `ring-hash` and `maglev`.
    #[schema(minimum = 100, maximum = 10000)]
    pub hash_balance_factor: Option<u32>,
    /// How the load of a new endpoint grows, with `round-robin` and `least-request`; it has its share at once if it is not given.
    pub slow_start: Option<SlowStartSpec>,
    /// Prefers endpoints in the proxy's own zone, with `round-robin`, `least-request` and `random`; zones do not matter if it is not given.
    pub zone_aware: Option<ZoneAwareSpec>,
    /// Below which share of healthy endpoints, in percent, all are used, healthy or not; 0 for never.
    #[schema(maximum = 100, default = 50)]
    pub panic_threshold: Option<u32>,
    /// How much of its load the healthy endpoints of a priority are trusted to take, in percent: with 140, the next priority is used
    /// when fewer than 71 in a hundred are healthy.
    #[schema(minimum = 100, maximum = 1000, default = 140)]
    pub overprovisioning_factor: Option<u32>,
}

/// While enough endpoints in the proxy's own zone are healthy, they get all of its requests. The proxy knows its zone by `chancery bootstrap --zone`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ZoneAwareSpec {
    /// With fewer healthy endpoints there, all zones get requests.
    #[schema(minimum = 1, maximum = 5000, default = 1)]
    pub min_endpoints: Option<u32>,
}

/// By what an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoadBalancingPolicySpec {
    /// In turn, by weight.
    RoundRobin,
    /// The less loaded of two drawn at random.
    LeastRequest,
    /// At random, by weight.
    Random,
    /// By a hash of the request, on a ring: when an endpoint goes, only its requests go elsewhere.
    RingHash,
    /// By a hash of the request, from a table: faster than a ring, and moves a few more requests.
    Maglev,
}

/// A part of a request that is hashed; exactly one of `header`, `query`, `cookie` and `remoteAddress`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HashKeySpec {
    /// A header.
    #[schema(examples("x-user"))]
    pub header: Option<String>,
    /// A parameter of the query; the first, if there are several.
    #[schema(examples("account"))]
    pub query: Option<String>,
    /// A cookie.
    pub cookie: Option<HashCookieSpec>,
    /// `true`: the address of the client, behind the fleet's `trustedHops`.
    pub remote_address: Option<bool>,
    /// Whether what follows is not looked at if this is there.
    #[schema(default = false)]
    pub terminal: Option<bool>,
}

/// A cookie that is hashed.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HashCookieSpec {
    /// Its name.
    pub name: String,
    /// How long a client keeps the one that the proxy makes when there is none, 1s to 8760h; none is made if it is not given.
    pub ttl: Option<DurationText>,
    /// For which paths it is made, with `ttl`; `/` if it is not given.
    #[schema(examples("/shop"))]
    pub path: Option<String>,
}

/// How the load of a new endpoint grows to its share.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlowStartSpec {
    /// How long that takes, 1ms to 1h.
    pub window: DurationText,
    /// The share of its weight that it begins with, in percent.
    #[schema(minimum = 1, maximum = 100, default = 10)]
    pub min_weight_percent: Option<u32>,
}

/// By what a client is known; exactly one of `cookie` and `header`. The value names the endpoint; whoever has none, or one whose
/// endpoint is not there or not well, is sent where `loadBalancing` says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionAffinitySpec {
    /// A cookie that the proxy makes.
    pub cookie: Option<SessionCookieSpec>,
    /// A header that the proxy adds to responses, and that the client sends back.
    #[schema(examples("x-session"))]
    pub header: Option<String>,
}

/// A cookie that names an endpoint.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionCookieSpec {
    /// Its name.
    pub name: String,
    /// How long a client keeps it, 1s to 8760h; while the browser is open if it is not given.
    pub ttl: Option<DurationText>,
    /// For which paths; `/` if it is not given.
    #[schema(examples("/shop"))]
    pub path: Option<String>,
}
