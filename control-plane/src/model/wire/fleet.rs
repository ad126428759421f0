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
}

/// What holds where a route says nothing else.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FleetDefaultsSpec {
    /// The time for a whole answer, retries included, 1ms to 24h; 15s if it is not given.
    pub timeout: Option<DurationText>,
}
