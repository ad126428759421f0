//! An upstream: where it is, how it is spoken to, when it is left alone.

use std::{net::IpAddr, time::Duration};

use super::Name;

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
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// How an endpoint is chosen.
    pub load_balancing: LoadBalancing,
    /// Active health checks, none by default.
    pub health_check: Option<HealthCheck>,
    /// Circuit breaker limits; `None` leaves a limit at Envoy's default.
    pub breaker: Breaker,
    /// Passive health checks, none by default.
    pub outlier_detection: Option<OutlierDetection>,
}

impl Service {
    /// Whether an endpoint is to be resolved by the proxy.
    pub fn uses_dns(&self) -> bool {
        self.endpoints.iter().any(|endpoint| matches!(endpoint.address, Address::Dns(_)))
    }
}

/// One endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// Its port, never zero.
    pub port: u16,
    /// Its share of the load relative to the other endpoints, 1 to 128, 1 by default.
    pub weight: u32,
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

/// How an endpoint is chosen for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadBalancing {
    /// In turn, by weight.
    RoundRobin,
    /// The less loaded of two drawn at random.
    LeastRequest,
}

/// HTTP health checks made by every proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// Path of the check, starting with `/`.
    pub path: String,
    /// `Host` of the check; the service's name by default.
    pub host: Option<String>,
    /// Time between two checks.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Failures in a row after which an endpoint is left out.
    pub unhealthy_after: u32,
    /// Successes in a row after which it is taken back.
    pub healthy_after: u32,
}

/// Limits on what one proxy has open to the service.
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
}
