//! Endpoints that register themselves, as they are written.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use super::DurationText;
use crate::model::endpoint::Health;

/// An endpoint that registers itself, or renews its lease.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistrationSpec {
    /// Its IP address.
    #[schema(examples("10.0.0.7", "2001:db8::7"))]
    pub address: String,
    /// Its port.
    #[schema(minimum = 1, maximum = 65535)]
    pub port: u16,
    /// When it is used: 0 always, 1 while too few of those with 0 are healthy, and so on.
    #[schema(maximum = 15, default = 0)]
    pub priority: Option<u32>,
    /// Its share of the load relative to the other endpoints.
    #[schema(minimum = 1, maximum = 128, default = 1)]
    pub weight: Option<u32>,
    /// What tells it apart from others, for the `subsets` of the service; at most 64.
    pub labels: Option<BTreeMap<String, String>>,
    /// In which zone it is, for `zoneAware`.
    #[schema(examples("eu-1a"))]
    pub zone: Option<String>,
    /// In which region that is; only with `zone`.
    #[schema(examples("eu-1"))]
    pub region: Option<String>,
    /// What it says of itself; `healthy` if it is not given.
    pub health: Option<Health>,
    /// How long it stays without being renewed, 1s to 10m; 30s if it is not given.
    pub ttl: Option<DurationText>,
}

/// Many endpoints of one service at once; no id may stand in it twice, and 5000 at most.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistrationsSpec {
    /// Those that are registered, or renewed with all that is known of them.
    #[schema(max_items = 5000)]
    pub register: Option<Vec<NamedRegistrationSpec>>,
    /// The ids of those that are still there as they were registered.
    #[schema(max_items = 5000)]
    pub renew: Option<Vec<String>>,
    /// The ids of those that are gone.
    #[schema(max_items = 5000)]
    pub deregister: Option<Vec<String>>,
}

/// An endpoint that registers itself, or renews its lease, among others.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedRegistrationSpec {
    /// What it calls itself: 1 to 128 letters, digits, `.`, `_`, `:` and `-`, unique within the service.
    #[schema(examples("checkout-7f9c"))]
    pub id: String,
    /// Its IP address.
    #[schema(examples("10.0.0.7", "2001:db8::7"))]
    pub address: String,
    /// Its port.
    #[schema(minimum = 1, maximum = 65535)]
    pub port: u16,
    /// When it is used: 0 always, 1 while too few of those with 0 are healthy, and so on.
    #[schema(maximum = 15, default = 0)]
    pub priority: Option<u32>,
    /// Its share of the load relative to the other endpoints.
    #[schema(minimum = 1, maximum = 128, default = 1)]
    pub weight: Option<u32>,
    /// What tells it apart from others, for the `subsets` of the service; at most 64.
    pub labels: Option<BTreeMap<String, String>>,
    /// In which zone it is, for `zoneAware`.
    #[schema(examples("eu-1a"))]
    pub zone: Option<String>,
    /// In which region that is; only with `zone`.
    #[schema(examples("eu-1"))]
    pub region: Option<String>,
    /// What it says of itself; `healthy` if it is not given.
    pub health: Option<Health>,
    /// How long it stays without being renewed, 1s to 10m; 30s if it is not given.
    pub ttl: Option<DurationText>,
}
