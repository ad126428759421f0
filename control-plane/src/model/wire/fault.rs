//! A fault on purpose, as it is written.

use serde::Deserialize;
use utoipa::ToSchema;

use super::DurationText;

/// What some requests meet on purpose, until it ends by itself: at least one of `delay` and `abort`.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultSpec {
    /// They wait before they go on.
    pub delay: Option<FaultDelaySpec>,
    /// They are answered in the place of the service.
    pub abort: Option<FaultAbortSpec>,
    /// When it ends (RFC 3339), at most 7 days after it is written; by the clock of each proxy.
    #[schema(examples("2026-12-01T12:00:00Z"))]
    pub expires: String,
}

/// A wait.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultDelaySpec {
    /// How long, 1ms to 1m.
    pub time: DurationText,
    /// The share of requests that wait.
    #[schema(minimum = 1, maximum = 100, default = 100)]
    pub percent: Option<u32>,
}

/// An answer that the service has not given.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultAbortSpec {
    /// The status; a call of gRPC is answered with the one of gRPC that goes with it.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// The share of requests that are answered so; of those that wait, after the wait.
    #[schema(minimum = 1, maximum = 100, default = 100)]
    pub percent: Option<u32>,
}
