//! A limit that each proxy keeps by itself, as it is written.

use serde::Deserialize;
use utoipa::ToSchema;

use super::DurationText;

/// How many requests each proxy admits for the rule, by itself, without a limiter. What is beyond is answered with 429.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalRateLimitSpec {
    /// So many.
    #[schema(minimum = 1, maximum = 1000000000)]
    pub requests: u32,
    /// In so long, 1s to 1h.
    pub per: DurationText,
    /// So many at once, not below `requests`; as many as `requests` if it is not given.
    #[schema(minimum = 1, maximum = 1000000000)]
    pub burst: Option<u32>,
}
