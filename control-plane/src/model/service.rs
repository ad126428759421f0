//! An upstream: where it is, how it is spoken to, when it is left alone.

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::Name;

pub mod load_balancing;
pub mod subset;
pub mod tls;

pub use load_balancing::{HashKey, HashOf, Hashing, LoadBalancing, MadeCookie, Policy, SessionAffinity, SlowStart};
pub use subset::{Labels, SubsetFallback, Subsets};
pub use tls::ServiceTls;

/// A service, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The name; the Envoy cluster is called the same.
    pub name: Name,
    /// The endpoints, in the order given.
    pub endpoints: Vec<Endpoint>,
    /// Whether endpoints may register themselves beside them, with a lease that they renew.
    pub registered: bool,
    /// The protocol spoken to the endpoints.
    pub protocol: ServiceProtocol,
    /// How they are spoken to over TLS; `None`: in plaintext.
    pub tls: Option<ServiceTls>,
    /// Whether connections begin with who the client is, and how; `None`: they do not.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// How an endpoint is chosen.
    pub load_balancing: LoadBalancing,
    /// By which labels rules choose among the endpoints.
    pub subsets: Subsets,
    /// How requests of one client come to one endpoint; they do not, by default.
    pub session_affinity: Option<SessionAffinity>,
    /// Active health checks, none by default.
    pub health_check: Option<HealthCheck>,
    /// When requests, and single endpoints, are left alone.
    pub breaker: Breaker,
    /// How many retries there may be; `None` leaves that to `breaker.max_retries`.
    pub retry_budget: Option<RetryBudget>,
    /// When a second request is sent beside a slow one, never by default.
    pub hedging: Option<Hedging>,
    /// How a sidecar in front of the service finds how many requests it takes at once.
    pub adaptive_concurrency: Option<AdaptiveConcurrency>,
    /// Passive health checks, none by default.
    pub outlier_detection: Option<OutlierDetection>,
}

impl Service {
    /// Whether an endpoint is to be resolved by the proxy.
    pub fn uses_dns(&self) -> bool {
        self.endpoints.iter().any(|endpoint| matches!(endpoint.address, Address::Dns(_)))
    }

    /// The fleet whose proxies the endpoints are, if that is said.
    pub fn behind(&self) -> Option<&Name> {
        self.tls.as_ref().and_then(ServiceTls::fleet)
    }
}

/// One endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// Its port, never zero.
    pub port: u16,
    /// When it is used: while too few of those with a lower number are well, 0 by default.
    pub priority: u32,
    /// Its share of the load relative to the other endpoints, 1 to 128, 1 by default.
    pub weight: u32,
    /// What tells it apart from others.
    pub labels: Labels,
    /// In which zone it is, if that is said.
    pub zone: Option<Zone>,
}

/// Where machines are that are near each other: two zones are the same if all of it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// The region; empty if it is not said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// The zone in it, not empty.
    pub zone: String,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A fixed address.
    Ip(IpAddr),
    /// A host name that the proxy resolves, again and again.
    Dns(String),
}

/// The protocol spoken to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge (also for gRPC).
    Http2,
}

/// Health checks made by every proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Time between two checks.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Failures in a row after which an endpoint is left out.
    pub unhealthy_after: u32,
    /// Successes in a row after which it is taken back.
    pub healthy_after: u32,
}

/// How a connection says on whose behalf it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Bytes.
    V2,
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// For a path, over HTTP.
    Http {
        /// The path, starting with `/`.
        path: String,
        /// The host; the service's name by default.
        host: Option<String>,
        /// The statuses that are healthy, 100 to 599, sorted, without duplicates; empty: 200.
        statuses: Vec<u16>,
    },
    /// gRPC's own health service; needs HTTP/2.
    Grpc {
        /// Of which service it asks there; `None`: of the server as a whole.
        service: Option<String>,
    },
    /// Whether a connection can be made, over TLS where that is spoken.
    Tcp,
}

/// Limits on what one proxy has open to the service, and when it leaves a single endpoint alone; `None` leaves a value at the
/// proxy's default. Envoy has the limits, but no breaker of single endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    /// Connections.
    pub max_connections: Option<u32>,
    /// Requests in flight.
    pub max_requests: Option<u32>,
    /// Requests that wait for a connection.
    pub max_pending: Option<u32>,
    /// Retries in flight.
    pub max_retries: Option<u32>,
    /// Failures in a row that open the breaker of an endpoint; 0: any number.
    pub consecutive_failures: Option<u32>,
    /// The share of good answers below which it opens, 0 to 100; 0: any share.
    pub min_success_percent: Option<u32>,
    /// How long it is open the first time; doubled each time.
    pub open_for: Option<Duration>,
    /// How long it is open at most.
    pub open_for_most: Option<Duration>,
    /// How long the request may take that then probes the endpoint.
    pub probe_timeout: Option<Duration>,
    /// Share of endpoints that may be left alone, for whatever reason, 0 to 100.
    pub max_out_percent: Option<u32>,
}

/// How many retries requests may cause; `None` leaves a value at the proxy's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryBudget {
    /// Retries for each hundred requests, 0 to 100.
    pub percent: Option<u32>,
    /// For how long a request counts.
    pub ttl: Option<Duration>,
    /// Retries each second that there may always be. Envoy has no such field.
    pub min_per_second: Option<u32>,
}

/// When a second request is sent beside a slow one; `None` leaves a value at the sidecar's default. Envoy has no such thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hedging {
    /// After the time in which this share of requests is answered, 1 to 99.
    pub percentile: Option<u32>,
    /// Answers to know before the first.
    pub min_samples: Option<u32>,
    /// After this time at the soonest.
    pub min_delay: Option<Duration>,
}

/// How many requests are let in at once; `None` leaves a bound at the sidecar's default. Envoy has no such thing for one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdaptiveConcurrency {
    /// How the number is found.
    pub algorithm: ConcurrencyAlgorithm,
    /// It is never less, and at least 1.
    pub min: Option<u32>,
    /// It is never more.
    pub max: Option<u32>,
}

/// How it is found how many requests a service takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConcurrencyAlgorithm {
    /// By the ratio of the usual latency to the recent one.
    Gradient,
    /// One more while all is well, a tenth less after a drop.
    Aimd,
}

/// When an endpoint is ejected for what it answered; `None` leaves a value at Envoy's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OutlierDetection {
    /// 5xx in a row that eject.
    pub consecutive_5xx: Option<u32>,
    /// 502, 503 and 504 in a row that eject.
    pub consecutive_gateway_failures: Option<u32>,
    /// Time between two sweeps.
    pub interval: Option<Duration>,
    /// Base time of an ejection, multiplied by how often it was ejected.
    pub eject_for: Option<Duration>,
    /// Share of endpoints that may be ejected, 0 to 100.
    pub max_ejected_percent: Option<u32>,
    /// Share of failures between two sweeps that ejects, 1 to 100; `None`: no share does.
    pub failure_percent: Option<u32>,
    /// Endpoints with enough requests, for one to be compared with the others.
    pub min_endpoints: Option<u32>,
    /// Requests between two sweeps, for an endpoint to be compared with the others.
    pub min_requests: Option<u32>,
}
