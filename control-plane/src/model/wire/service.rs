//! A service as it is written.

use serde::Deserialize;
use utoipa::ToSchema;

use super::DurationText;

/// An upstream: where it is, how it is spoken to, when it is left alone.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// Where it is. May be empty: a service scaled to zero, which answers 503. Required unless `registered` is set.
    #[schema(max_items = 5000)]
    pub endpoints: Option<Vec<EndpointSpec>>,
    /// Whether endpoints register themselves through the API, each with a lease that it renews; those in `endpoints`
    /// stand beside them. Such a service has no `dns` endpoints.
    #[schema(default = false)]
    pub registered: Option<bool>,
    /// The protocol spoken to the endpoints; `http1` if it is not given.
    pub protocol: Option<ServiceProtocolSpec>,
    /// How long a connection attempt may take, 1ms to 10m; 5s if it is not given.
    pub connect_timeout: Option<DurationText>,
    /// How an endpoint is chosen; `round-robin` if it is not given.
    pub load_balancing: Option<LoadBalancingSpec>,
    /// Active health checks; none if it is not given.
    pub health_check: Option<HealthCheckSpec>,
    /// Limits on what one proxy has open to the service; Envoy's defaults where one is not given.
    pub breaker: Option<BreakerSpec>,
    /// When an endpoint is left out for what it answered; never if it is not given.
    pub outlier_detection: Option<OutlierDetectionSpec>,
}

/// One endpoint of a service.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointSpec {
    /// An IP address, or with `dns` a host name.
    #[schema(examples("10.0.0.7", "2001:db8::7", "checkout.internal"))]
    pub address: String,
    /// The port.
    #[schema(minimum = 1, maximum = 65535)]
    pub port: u16,
    /// Whether the address is a host name that the proxy resolves, again and again.
    #[schema(default = false)]
    pub dns: Option<bool>,
    /// The share of the load relative to the other endpoints.
    #[schema(minimum = 1, maximum = 128, default = 1)]
    pub weight: Option<u32>,
}

/// The protocol spoken to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceProtocolSpec {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, also for gRPC.
    Http2,
}

/// How an endpoint is chosen for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoadBalancingSpec {
    /// In turn, by weight.
    RoundRobin,
    /// The less loaded of two drawn at random.
    LeastRequest,
}

/// HTTP health checks, made by every proxy.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheckSpec {
    /// The path to ask for; 200 is healthy.
    #[schema(examples("/healthz"))]
    pub path: String,
    /// The host to ask for; the service's name if it is not given.
    pub host: Option<String>,
    /// The time between two checks, 1ms to 1h; 5s if it is not given.
    pub interval: Option<DurationText>,
    /// How long an answer may take, 1ms to 1h; 2s if it is not given.
    pub timeout: Option<DurationText>,
    /// After how many failures in a row an endpoint is left out.
    #[schema(minimum = 1, maximum = 1000, default = 3)]
    pub unhealthy_after: Option<u32>,
    /// After how many successes in a row it is taken back.
    #[schema(minimum = 1, maximum = 1000, default = 2)]
    pub healthy_after: Option<u32>,
}

/// Limits on what one proxy has open to the service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BreakerSpec {
    /// Connections.
    #[schema(minimum = 1, maximum = 1000000)]
    pub max_connections: Option<u32>,
    /// Requests in flight.
    #[schema(minimum = 1, maximum = 1000000)]
    pub max_requests: Option<u32>,
    /// Requests that wait for a connection.
    #[schema(minimum = 1, maximum = 1000000)]
    pub max_pending: Option<u32>,
    /// Retries in flight.
    #[schema(maximum = 1000000)]
    pub max_retries: Option<u32>,
}

/// When an endpoint is left out for what it answered; Envoy's default where a value is not given.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutlierDetectionSpec {
    /// After how many 5xx in a row.
    #[serde(rename = "consecutive5xx")]
    #[schema(minimum = 1, maximum = 100000)]
    pub consecutive_5xx: Option<u32>,
    /// After how many 502, 503 and 504 in a row.
    #[schema(minimum = 1, maximum = 100000)]
    pub consecutive_gateway_failures: Option<u32>,
    /// The time between two sweeps, 1ms to 1h.
    pub interval: Option<DurationText>,
    /// How long the first time, multiplied by how often it was left out before, 1ms to 24h.
    pub eject_for: Option<DurationText>,
    /// The share of endpoints that may be left out at a time, in percent.
    #[schema(maximum = 100)]
    pub max_ejected_percent: Option<u32>,
}
