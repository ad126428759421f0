//! Connections of the application that are carried as they are: to which endpoint, and what is counted of them.
//!
//! A connection goes to the one of two endpoints that costs less: by how long connecting takes there, times the connections that are
//! open. Until an endpoint is connected to, nothing has been sent, so that another may always be tried; the listener says
//! how often. An endpoint is judged by whether it can be connected to. What it does then, only both ends understand.
//!
//! A connection keeps the configuration that it began with, and nothing else of it than it needs: it may be open for days.
//!
//! - [`ports`]: where the application connects.

pub mod ports;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use tokio::net::TcpStream;

use super::{
    connect::Stream,
    failure::Failure,
    tunnel::{self, Counters, Ended},
    world::{Upstream, World},
};
use crate::{
    config::tcp::TcpProxy,
    layer::{
        Failed, Overload,
        breaker::{Ticket, Tried},
    },
    metrics as m,
    policy::{
        classify::{Fault, Outcome},
        deadline::Deadline,
    },
};

/// Whatever a listener says, no more endpoints are connected to for one connection.
const MOST_ATTEMPTS: u32 = 100;

/// The connections to a cluster.
#[derive(Debug)]
pub struct Connections {
    cluster: Arc<str>,
    open: AtomicU32,
}

/// That a connection is one of those that may be open.
struct Place(Arc<Connections>);

impl Connections {
    /// None yet.
    pub fn to(cluster: Arc<str>) -> Arc<Self> {
        Arc::new(Self { cluster, open: AtomicU32::new(0) })
    }

    /// How many are open, or about to be.
    pub fn open(&self) -> u32 {
        self.open.load(Relaxed)
    }

    /// One more, if there are fewer than `most`.
    fn enter(self: &Arc<Self>, most: u32) -> Option<Place> {
        let more = |open: u32| (open < most).then_some(open + 1);
        self.open.fetch_update(Relaxed, Relaxed, more).ok()?;
        metrics::gauge!(m::TCP_OPEN, "cluster" => self.cluster.clone()).increment(1);
        Some(Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
        metrics::gauge!(m::TCP_OPEN, "cluster" => self.0.cluster.clone()).decrement(1);
    }
}

/// What carries connections.
pub struct Tcp {
    /// The configuration of the moment.
    pub world: Arc<ArcSwap<World>>,
}

/// A connection that has reached an endpoint.
struct Reached {
    there: Stream,
    _place: Place,
    /// Until the end: the connection is open there.
    _ticket: Ticket,
}

impl Tcp {
    /// Carries a connection that was made to `listener`, until it ends.
    pub async fn carry(self: Arc<Self>, listener: Arc<str>, stream: TcpStream) {
        let world = self.world.load_full();
        // If it is not there, it has just gone, and its port is about to.
        let Some(proxy) = world.snapshot.tcp.get(&listener).cloned() else { return };
        let cluster = proxy.cluster(rand::random()).clone();
        if let Err(failure) = through(world, &proxy, &cluster, stream).await {
            metrics::counter!(m::TCP_FAILURES, "cluster" => cluster.clone(), "reason" => failure.reason()).increment(1);
            let error = chancery_runtime::telemetry::chain(&failure);
            tracing::debug!(%listener, %cluster, reason = failure.reason(), error, "a connection failed");
        }
    }
}

/// Why a connection did not end as its ends wanted.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Unreached(#[from] Failure),
    #[error("both sides were silent for too long")]
    Idle,
    #[error("one side broke off")]
    Reset(#[source] io::Error),
}

impl Broken {
    /// As the label of metrics. A fixed set.
    fn reason(&self) -> &'static str {
        match self {
            Self::Unreached(failure) => failure.reason(),
            Self::Idle => "idle",
            Self::Reset(_) => "reset",
        }
    }
}

async fn through(world: Arc<World>, proxy: &TcpProxy, cluster: &Arc<str>, stream: TcpStream) -> Result<(), Broken> {
    stream.set_nodelay(true).map_err(Broken::Reset)?;
    let reached = {
        let upstream = world.upstreams.get(cluster).ok_or_else(|| Failure::NoCluster(cluster.clone()))?.clone();
        drop(world);
        reach(&upstream, proxy.connect_attempts).await.map_err(Failure::from)?
    };
    metrics::counter!(m::TCP_CARRIED, "cluster" => cluster.clone()).increment(1);
    let bytes = |direction| metrics::counter!(m::TCP_BYTES, "cluster" => cluster.clone(), "direction" => direction);
    let counters = Counters { sent: bytes("sent"), received: bytes("received") };
    match tunnel::join(stream, reached.there, proxy.idle_timeout, &counters).await {
        Ok(Ended::Done) => Ok(()),
        Ok(Ended::Idle) => Err(Broken::Idle),
        Err(error) => Err(Broken::Reset(error)),
    }
}

/// Connects to an endpoint, to another one if that cannot be, and so on, `attempts` times at most.
async fn reach(upstream: &Upstream, attempts: u32) -> Result<Reached, Failed> {
    let settings = &upstream.cluster.settings;
    let place = upstream.tcp.enter(settings.max_connections).ok_or(Failed::Overloaded(Overload::Connections))?;
    let tried = Tried::default();
    let mut last = Failed::NoEndpoint;
    for _ in 0..attempts.min(MOST_ATTEMPTS) {
        let chosen = upstream.endpoints.choose(&upstream.hosts, &tried, Deadline::NEVER);
        let mut ticket = chosen.ok_or(Failed::NoEndpoint)?;
        let connector = upstream.connector(ticket.endpoint()).ok_or(Failed::NoEndpoint)?;
        match connector.connect(settings.connect_timeout).await {
            Ok(there) => {
                // As good as an answer: it is all that can be known.
                ticket.judge(Outcome::http(200), None);
                return Ok(Reached { there, _place: place, _ticket: ticket });
            }
            Err(error) => {
                ticket.judge(Outcome::Fault(Fault::Connect), None);
                metrics::counter!(m::TCP_ATTEMPTS_FAILED, "cluster" => upstream.cluster.name.clone()).increment(1);
                last = Failed::Upstream { fault: Fault::Connect, source: Some(error.into()) };
            }
        }
    }
    Err(last)
}
