//! What the configuration of the moment has become: clusters with their endpoints, connections and records.
//!
//! A world is made of a snapshot and of the world before: an endpoint that stays in its cluster keeps its breaker, its
//! average, and, if they are still made in the same way, its connections; a cluster keeps its budget and what it knows of how long requests take. It is
//! swapped in whole; requests that have begun go on in the one that they began in.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use chancery_runtime::traces::Traces;
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::{
    by_route::ByRoute,
    connect::Connector,
    meters::Meters,
    pool::{Pool, PoolSettings},
    stall::Patience,
    tcp::Connections,
    tls::Credentials,
};
use crate::{
    config::{
        snapshot::{Cluster, ClusterSettings, Protocol, Snapshot, Target},
        tls::{Own, UpstreamTls},
    },
    layer::{
        Clock,
        breaker::{Endpoints, Host},
        queue::{Limits, Queue},
    },
    metrics as m,
    policy::{endpoints::EndpointId, hedge::Latencies, retry_budget::RetryBudget},
};

/// How long a request waits for a place in its cluster.
const QUEUE_WAIT: Duration = Duration::from_secs(1);

/// What all clusters need.
#[derive(Clone)]
pub struct Base {
    /// The time.
    pub clock: Clock,
    /// Who the sidecar is to endpoints, if it is anybody.
    pub identity: Option<Arc<Own>>,
    /// Owns what drives connections.
    pub tasks: TaskTracker,
    /// How long callers may do nothing.
    pub patience: Patience,
    /// Makes spans, if anybody is told of them.
    pub traces: Traces,
}

/// A snapshot at work.
#[derive(Default)]
pub struct World {
    /// What it is made of.
    pub snapshot: Arc<Snapshot>,
    /// By name.
    pub upstreams: HashMap<Arc<str>, Arc<Upstream>>,
}

/// A cluster at work.
pub struct Upstream {
    /// What it is made of.
    pub cluster: Arc<Cluster>,
    /// In the order of the cluster.
    pub members: Vec<Member>,
    /// The same, as choosing wants them.
    pub hosts: Vec<Host>,
    /// Who is out, and how long each takes; survives changes.
    pub endpoints: Arc<Endpoints>,
    /// How many retries there may be; survives changes.
    pub budget: Arc<Mutex<RetryBudget>>,
    /// How many requests may be under way, and wait; survives changes of other things.
    pub queue: Arc<Queue>,
    /// How long requests take, of each route; survives changes.
    pub hedging: Arc<ByRoute<Mutex<Latencies>>>,
    /// What is counted of requests, of each route; survives changes.
    pub meters: Arc<ByRoute<Meters>>,
    /// Connections that are carried as they are; survives changes.
    pub tcp: Arc<Connections>,
    /// What such connections need for TLS, on which no protocol is agreed.
    opaque: Option<Arc<Credentials>>,
}

/// An endpoint in a cluster.
#[derive(Clone)]
pub struct Member {
    /// Its place among the endpoints.
    pub id: EndpointId,
    /// Where it is.
    pub at: Target,
    /// Its connections.
    pub pool: Arc<Pool>,
    made_by: ConnectionSettings,
}

/// What connections depend on; if it changes, others are made.
#[derive(Clone, PartialEq)]
struct ConnectionSettings {
    pool: PoolSettings,
    protocol: Protocol,
    tls: Option<UpstreamTls>,
}

impl ConnectionSettings {
    fn of(settings: &ClusterSettings) -> Self {
        Self {
            pool: PoolSettings {
                connect_timeout: settings.connect_timeout,
                idle_timeout: settings.idle_timeout,
                max_connections: settings.max_connections,
            },
            protocol: settings.protocol,
            tls: settings.tls.clone(),
        }
    }

    /// `protocol`: what is agreed on, if anything.
    fn credentials(&self, base: &Base, protocol: Option<Protocol>) -> Option<Arc<Credentials>> {
        let tls = self.tls.clone()?;
        Some(Arc::new(Credentials::new(tls, base.identity.clone(), protocol)))
    }

    fn pool(&self, at: &Target, tls: Option<Arc<Credentials>>, base: &Base) -> Arc<Pool> {
        let connector = Connector { target: at.clone(), tls };
        Arc::new(Pool::new(connector, self.protocol, self.pool, base.patience, base.tasks.clone()))
    }
}

impl World {
    /// The world after this one.
    pub fn next(&self, snapshot: Arc<Snapshot>, base: &Base) -> Self {
        let upstream = |(name, cluster): (&Arc<str>, &Arc<Cluster>)| {
            let before = self.upstreams.get(name);
            let upstream = match before.filter(|before| before.cluster == *cluster) {
                Some(unchanged) => unchanged.clone(),
                None => Arc::new(Upstream::new(cluster.clone(), before.map(|before| &**before), base)),
            };
            (name.clone(), upstream)
        };
        let upstreams = snapshot.clusters.iter().map(upstream).collect();
        Self { snapshot, upstreams }
    }

    /// Closes connections that have been idle for too long. To be called every second or so.
    pub fn sweep(&self) {
        self.upstreams.values().flat_map(|upstream| &upstream.members).for_each(|member| member.pool.sweep());
    }

    /// Makes visible who is out, and how much may be tried again.
    pub fn publish(&self, clock: Clock) {
        for (name, upstream) in &self.upstreams {
            let name: metrics::SharedString = name.clone().into();
            let counts = upstream.endpoints.counts();
            let retries = upstream.budget.lock().retries_left(clock.now());
            metrics::gauge!(m::RETRY_BUDGET, "cluster" => name.clone()).set(retries as f64);
            metrics::gauge!(m::ENDPOINTS_OUT, "cluster" => name.clone()).set(upstream.endpoints.out() as f64);
            for (what, count) in [("opened", counts.opened), ("ejected", counts.ejected), ("refused", counts.refused)] {
                metrics::counter!(m::ENDPOINTS_PUT_OUT, "cluster" => name.clone(), "what" => what).absolute(count);
            }
            let opened = counts.opened + counts.opened_again;
            for (to, count) in [("open", opened), ("half-open", counts.probed), ("closed", counts.closed)] {
                metrics::counter!(m::BREAKER_TRANSITIONS, "cluster" => name.clone(), "to" => to).absolute(count);
            }
        }
    }
}

impl Upstream {
    fn new(cluster: Arc<Cluster>, before: Option<&Self>, base: &Base) -> Self {
        let settings = &cluster.settings;
        let endpoints = match before {
            Some(before) => before.endpoints.clone(),
            None => Endpoints::new(base.clock, settings.endpoints),
        };
        endpoints.configure(settings.endpoints);
        let budget = match before {
            Some(before) => before.budget.clone(),
            None => Arc::new(Mutex::new(RetryBudget::new(settings.retry_budget))),
        };
        budget.lock().configure(settings.retry_budget);
        let limits = limits(settings);
        let queue = match before.filter(|before| self::limits(&before.cluster.settings) == limits) {
            Some(before) => before.queue.clone(),
            None => Arc::new(Queue::new(limits)),
        };
        let hedging = before.map_or_else(Arc::default, |before| before.hedging.clone());
        let meters = before.map_or_else(Arc::default, |before| before.meters.clone());
        let tcp = before.map_or_else(|| Connections::to(cluster.name.clone()), |before| before.tcp.clone());
        let known: BTreeMap<&Target, &Member> =
            before.iter().flat_map(|before| &before.members).map(|member| (&member.at, member)).collect();
        // Those who go first, so that the share of those who may be out is taken of those who are there.
        let wanted: BTreeSet<&Target> = cluster.endpoints.iter().map(|spec| &spec.at).collect();
        for gone in known.values().filter(|member| !wanted.contains(&member.at)) {
            endpoints.remove(gone.id);
        }
        let made_by = ConnectionSettings::of(settings);
        let tls = made_by.credentials(base, Some(made_by.protocol));
        let member = |at: &Target| {
            let kept = known.get(at);
            let connections = kept.filter(|kept| kept.made_by == made_by);
            Member {
                id: kept.map_or_else(|| endpoints.insert(), |kept| kept.id),
                at: at.clone(),
                pool: connections.map_or_else(|| made_by.pool(at, tls.clone(), base), |kept| kept.pool.clone()),
                made_by: made_by.clone(),
            }
        };
        let members: Vec<Member> = cluster.endpoints.iter().map(|spec| member(&spec.at)).collect();
        let with_spec = members.iter().zip(&cluster.endpoints);
        let hosts = with_spec
            .map(|(member, spec)| Host { id: member.id, weight: spec.weight, healthy: spec.healthy })
            .collect();
        let opaque = made_by.credentials(base, None);
        Self { members, hosts, endpoints, budget, queue, hedging, meters, tcp, opaque, cluster }
    }

    /// How an endpoint is connected to for bytes as they are.
    pub fn connector(&self, id: EndpointId) -> Option<Connector> {
        let member = self.members.iter().find(|member| member.id == id)?;
        Some(Connector { target: member.at.clone(), tls: self.opaque.clone() })
    }
}

fn limits(settings: &ClusterSettings) -> Limits {
    let number = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    Limits { requests: number(settings.max_requests), pending: number(settings.max_pending), wait: QUEUE_WAIT }
}
