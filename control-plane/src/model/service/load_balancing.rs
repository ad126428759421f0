//! How an endpoint of a service is chosen for a request.

use std::time::Duration;

/// How endpoints are chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancing {
    /// By what.
    pub policy: Policy,
    /// How many healthy endpoints there have to be in the proxy's own zone, at least 1, for them to be preferred; `None`: zones do not
    /// matter. Not with policies that hash.
    pub zone_aware: Option<u32>,
    /// Below which share of healthy endpoints all of them are used, 0 to 100; `None`: Envoy's default, 50.
    pub panic_threshold: Option<u32>,
    /// How much of its load the healthy endpoints of a priority can take, in percent, at least 100; `None`: Envoy's default, 140.
    pub overprovisioning_factor: Option<u32>,
}

/// By what an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// In turn, by weight.
    RoundRobin(Option<SlowStart>),
    /// The less loaded of two drawn at random.
    LeastRequest(Option<SlowStart>),
    /// At random, by weight.
    Random,
    /// By a hash, on a ring.
    RingHash(Hashing),
    /// By a hash, from a table.
    Maglev(Hashing),
}

impl Default for Policy {
    fn default() -> Self {
        Self::RoundRobin(None)
    }
}

/// How the load of a new endpoint grows to its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStart {
    /// How long that takes, in equal steps.
    pub window: Duration,
    /// The share of its weight that it begins with, 1 to 100; `None`: Envoy's default, 10.
    pub min_weight_percent: Option<u32>,
}

/// What is hashed, so that requests which have it in common come to one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashing {
    /// What counts of a request, all of it together, without duplicates; at least one.
    pub keys: Vec<HashKey>,
    /// How much more than its share an endpoint may have under way, in percent of it, at least 100; `None`: any amount.
    pub balance_factor: Option<u32>,
}

/// A part of a request that is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashKey {
    /// Which.
    pub of: HashOf,
    /// Whether what follows is not looked at if this is there.
    pub terminal: bool,
}

/// Which part of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOf {
    /// A header (name in lower case).
    Header(String),
    /// A parameter of the query.
    Query(String),
    /// A cookie.
    Cookie {
        /// Its name.
        name: String,
        /// How the proxy makes one for clients that have none; `None`: it does not.
        made: Option<MadeCookie>,
    },
    /// The address of the client.
    RemoteAddress,
}

/// A cookie that the proxy makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeCookie {
    /// How long it is kept, whole seconds.
    pub ttl: Duration,
    /// For which paths of the host.
    pub path: String,
}

/// By what a client says which endpoint it had, and is sent there again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAffinity {
    /// A cookie that the proxy makes.
    Cookie {
        /// Its name.
        name: String,
        /// How long it is kept, whole seconds; `None`: while the browser is open.
        ttl: Option<Duration>,
        /// For which paths of the host.
        path: String,
    },
    /// A header of responses, which the client sends back (name in lower case).
    Header(String),
}
