//! What the sidecar is to do, as one immutable value.
//!
//! A snapshot is made whole, swapped in whole, and pinned by each request that starts under it. It names clusters and does
//! not hold them: a route may be there before its cluster, and says so to whoever takes it then.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use super::{routes::RouteTable, tcp::TcpProxy, tls::UpstreamTls};
use crate::policy;

/// The whole configuration.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The routes of listeners, by name; none until they have come. A host that several of them serve belongs to the first.
    pub listeners: BTreeMap<Arc<str>, Option<Arc<RouteTable>>>,
    /// What the listeners do that carry TCP as it is, by name.
    pub tcp: BTreeMap<Arc<str>, Arc<TcpProxy>>,
    /// By name.
    pub clusters: BTreeMap<Arc<str>, Arc<Cluster>>,
}

/// A cluster with its endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is, each address once.
    pub endpoints: Vec<EndpointSpec>,
    /// What is spoken with it, and how.
    pub settings: ClusterSettings,
}

/// One endpoint of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Where it is.
    pub at: Target,
    /// Its share of the requests; at least 1.
    pub weight: u32,
    /// Whether it is said to be well. One that is not is asked only if there is no other.
    pub healthy: bool,
}

/// Where something listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// At an address.
    Address(SocketAddr),
    /// At a name, which is resolved for every connection.
    Name(Arc<str>, u16),
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// What is said of a cluster beside where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSettings {
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether the endpoints are spoken to over mTLS, as whom, and whom they must be.
    pub tls: Option<UpstreamTls>,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// How long a connection may lie idle. Below what servers usually wait, so that they are not the ones who close it.
    pub idle_timeout: Duration,
    /// Connections to each endpoint at the same time.
    pub max_connections: u32,
    /// Requests at the same time.
    pub max_requests: u32,
    /// Requests that wait for one of these to end.
    pub max_pending: u32,
    /// How many retries there may be.
    pub retry_budget: policy::retry_budget::Settings,
    /// When a second request is sent beside a slow one; `None`: never.
    pub hedge: Option<policy::hedge::Settings>,
    /// When an endpoint is left out.
    pub endpoints: policy::endpoints::Settings,
    /// How the sidecar in front of it finds how many requests to let in at once; `None`: as it does by itself.
    pub adaptive_concurrency: Option<policy::concurrency::Settings>,
}

/// What is spoken with endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, without negotiation.
    Http2,
}

/// The defaults of Envoy, but for the time that a connection may lie idle: many servers wait for a minute, and Envoy for an hour.
impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            protocol: Protocol::default(),
            tls: None,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(50),
            max_connections: 1024,
            max_requests: 1024,
            max_pending: 1024,
            retry_budget: policy::retry_budget::Settings::default(),
            hedge: None,
            endpoints: policy::endpoints::Settings::default(),
            adaptive_concurrency: None,
        }
    }
}
