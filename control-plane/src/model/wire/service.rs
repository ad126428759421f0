//! A service as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use super::{DurationText, LoadBalancingSpec, ServiceTlsSpec, SessionAffinitySpec, StatusNumber, SubsetsSpec};

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
    /// TLS towards the endpoints; plaintext if it is not given.
    pub tls: Option<ServiceTlsSpec>,
    /// Whether each connection begins with the address of the client (PROXY protocol), before TLS if there is any; it does not if it is
    /// not given. Sidecars refuse services with it.
    pub proxy_protocol: Option<ProxyProtocolSpec>,
    /// How long a connection attempt may take, 1ms to 10m; 5s if it is not given.
    pub connect_timeout: Option<DurationText>,
    /// How an endpoint is chosen; `round-robin` if it is not given.
    pub load_balancing: Option<LoadBalancingSpec>,
    /// By which labels of endpoints rules choose among them (`subset`); by none if it is not given.
    #[schema(min_items = 1, max_items = 16)]
    pub subsets: Option<Vec<SubsetsSpec>>,
    /// Which endpoints get the requests for a subset that has none, with `fallback: default`.
    pub default_subset: Option<BTreeMap<String, String>>,
    /// How requests of one client come to one endpoint for as long as that is well; they do not if it is not given.
    pub session_affinity: Option<SessionAffinitySpec>,
    /// Active health checks; none if it is not given.
    pub health_check: Option<HealthCheckSpec>,
    /// Limits on what one proxy has open to the service, and when it leaves a single endpoint alone; the proxy's defaults
    /// where a value is not given.
    pub breaker: Option<BreakerSpec>,
    /// How many retries all requests together may cause. If it is not given: `breaker.maxRetries` at Envoys, the defaults
    /// below at sidecars.
    pub retry_budget: Option<RetryBudgetSpec>,
    /// When a second request is sent beside a slow one; never if it is not given. Sidecars do that; Envoy does not.
    pub hedging: Option<HedgingSpec>,
    /// How the sidecar in front of the service (`--service`) finds how many requests to let in at once. Envoy's own filter
    /// counts all requests of a listener together, whatever service they are for, and is not used.
    pub adaptive_concurrency: Option<AdaptiveConcurrencySpec>,
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
    /// When it is used: 0 always, 1 while too few of those with 0 are healthy, and so on.
    #[schema(maximum = 15, default = 0)]
    pub priority: Option<u32>,
    /// The share of the load relative to the other endpoints.
    #[schema(minimum = 1, maximum = 128, default = 1)]
    pub weight: Option<u32>,
    /// What tells it apart from others, for `subsets`; at most 64.
    pub labels: Option<BTreeMap<String, String>>,
    /// In which zone it is, for `zoneAware`.
    #[schema(examples("eu-1a"))]
    pub zone: Option<String>,
    /// In which region that is; only with `zone`.
    #[schema(examples("eu-1"))]
    pub region: Option<String>,
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

/// How a connection says on whose behalf it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocolSpec {
    /// A line of text.
    V1,
    /// Bytes.
    V2,
}

/// Health checks, made by every proxy: exactly one of `path`, `grpc` and `tcp`.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheckSpec {
    /// The path to ask for over HTTP.
    #[schema(examples("/healthz"))]
    pub path: Option<String>,
    /// The host to ask for, with `path`; the service's name if it is not given.
    pub host: Option<String>,
    /// The statuses that are healthy, with `path`, each 100 to 599; 200 if they are not given.
    #[schema(min_items = 1, max_items = 100)]
    pub statuses: Option<Vec<StatusNumber>>,
    /// Asks gRPC's health service; with `protocol: http2`.
    pub grpc: Option<GrpcHealthCheckSpec>,
    /// `true`: asks nothing; whoever takes a connection is healthy.
    pub tcp: Option<bool>,
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

/// What gRPC's health service is asked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrpcHealthCheckSpec {
    /// Of which service; of the server as a whole if it is not given.
    #[schema(examples("shop.v1.Checkout"))]
    pub service: Option<String>,
}

/// Limits on what one proxy has open to the service; and, at sidecars, the breaker of each endpoint, which Envoy does not
/// have (its `outlierDetection` is what comes closest, and holds at both).
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
    /// Retries in flight, at Envoys; not beside `retryBudget`.
    #[schema(maximum = 1000000)]
    pub max_retries: Option<u32>,
    /// At sidecars: after how many failures in a row an endpoint is left alone, 0 for any number; 7 if it is not given.
    #[schema(maximum = 100000)]
    pub consecutive_failures: Option<u32>,
    /// At sidecars: below which share of good answers in ten seconds an endpoint is left alone, in percent, 0 for any share;
    /// 80 if it is not given.
    #[schema(maximum = 100)]
    pub min_success_percent: Option<u32>,
    /// At sidecars: how long an endpoint is left alone the first time, doubled each time, 1ms to 1h; 1s if it is not given.
    pub open_for: Option<DurationText>,
    /// At sidecars: how long it is left alone at most, 1ms to 1h; 60s if it is not given.
    pub open_for_most: Option<DurationText>,
    /// At sidecars: how long the request may take that then probes the endpoint, 1ms to 1h; 10s if it is not given.
    pub probe_timeout: Option<DurationText>,
    /// At sidecars: the share of endpoints that may be left alone at a time, for whatever reason, in percent; that of
    /// `outlierDetection`, or 10, if it is not given.
    #[schema(maximum = 100)]
    pub max_out_percent: Option<u32>,
}

/// How many retries all requests of one proxy to the service together may cause.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryBudgetSpec {
    /// Retries for each hundred requests. At Envoys this bounds the retries under way at the same time.
    #[schema(maximum = 100, default = 20)]
    pub percent: Option<u32>,
    /// For how long a request counts, 1ms to 1h. If it is not given: 10s at sidecars, and as long as it is under way at Envoys.
    pub ttl: Option<DurationText>,
    /// At sidecars: retries each second that there may always be; 10 if it is not given. Envoys always allow three at a time.
    #[schema(maximum = 1000000)]
    pub min_per_second: Option<u32>,
}

/// When a second request is sent beside one that is slow. Only what may be repeated is, and the retry budget pays for it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HedgingSpec {
    /// After the time in which this share of the requests of the route is answered, in percent.
    #[schema(minimum = 1, maximum = 99, default = 95)]
    pub percentile: Option<u32>,
    /// How many answers of the route have to be known before the first.
    #[schema(minimum = 1, maximum = 1000, default = 100)]
    pub min_samples: Option<u32>,
    /// After this time at the soonest, 1ms to 1m; 1ms if it is not given.
    pub min_delay: Option<DurationText>,
}

/// How many requests are let in at once: as many as the service takes without becoming slower.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdaptiveConcurrencySpec {
    /// How the number is found; `gradient` if it is not given.
    pub algorithm: Option<ConcurrencyAlgorithmSpec>,
    /// It is never less.
    #[schema(minimum = 1, maximum = 1000000, default = 20)]
    pub min: Option<u32>,
    /// It is never more.
    #[schema(minimum = 1, maximum = 1000000, default = 200)]
    pub max: Option<u32>,
}

/// How it is found how many requests a service takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConcurrencyAlgorithmSpec {
    /// By the ratio of the usual latency to the recent one.
    Gradient,
    /// One more while all is well, a tenth less when requests were dropped or took longer than 5s.
    Aimd,
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
    /// From which share of failures between two sweeps, in percent; no share does if it is not given.
    #[schema(minimum = 1, maximum = 100)]
    pub failure_percent: Option<u32>,
    /// How many endpoints need enough requests for one to be left out in comparison with the others, by its share of failures or, as
    /// Envoy does by itself, by a success rate that is far from theirs.
    #[schema(minimum = 1, maximum = 100000, default = 5)]
    pub min_endpoints: Option<u32>,
    /// How many requests between two sweeps are enough; if it is not given, 50 for the share of failures and 100 for the success rate.
    #[schema(minimum = 1, maximum = 1000000)]
    pub min_requests: Option<u32>,
}
