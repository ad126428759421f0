//! Connections that are carried as they are, as it is written.

use serde::Deserialize;
use utoipa::ToSchema;

use super::{AccessSpec, DurationText, TargetSpec};

/// Where connections are carried, byte for byte.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpSpec {
    /// The services, by weight: each connection goes to one of them, whole.
    #[schema(min_items = 1, max_items = 50)]
    pub to: Vec<TargetSpec>,
    /// Whose connections are carried, besides what the listener says, by `networks` alone; everybody's if it is not given. Others are
    /// closed.
    pub access: Option<AccessSpec>,
    /// The time without a byte in either direction, 1ms to 24h; `connectionIdle` of the listener if it is not given.
    pub idle_timeout: Option<DurationText>,
    /// How many endpoints are tried until one takes the connection.
    #[schema(minimum = 1, maximum = 10, default = 1)]
    pub connect_attempts: Option<u32>,
}
