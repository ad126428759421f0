//! Workers on a port, with a store that does as it is told.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use chancery_proto::envoy::{
    rate_limit_common::{RateLimitDescriptor, rate_limit_descriptor::Entry},
    rls::{RateLimitRequest, rate_limit_service_client::RateLimitServiceClient},
};
use chancery_runtime::{
    Shutdown,
    admin::{Condition, Readiness},
    drain::DrainError,
    listen::bind_shared,
    tls::ServerTls,
};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

use crate::{
    decide::{Limiter, Ruleset},
    model::{
        limit::{Algorithm, Limit},
        rule::{Amount, DescriptorSpec, DomainSpec, LimitSpec, Policy, Rules},
    },
    serve::{
        Service,
        answer::Answers,
        grpc,
        meters::Meters,
        quota::QuotaService,
        worker::{self, GrpcServer, Plan},
    },
    store::{Ask, Charging, Outcome, Outcomes, SaltCell, Source, Store},
};

/// How long a test waits for what must come.
pub(super) const SOON: Duration = Duration::from_secs(20);

pub(super) const SERVERS: [GrpcServer; 2] = [GrpcServer::H2, GrpcServer::Tonic];

/// How the store answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Valve {
    Admit,
    Refuse,
    /// Not before the valve is turned; then as that says.
    Hang,
}

/// A store that does as it is told, and counts.
pub(super) struct Puppet {
    valve: watch::Sender<Valve>,
    pub(super) asked: AtomicUsize,
    pub(super) waiting: Arc<AtomicUsize>,
}

impl Puppet {
    fn new() -> Arc<Self> {
        let (valve, _) = watch::channel(Valve::Admit);
        Arc::new(Self { valve, asked: AtomicUsize::new(0), waiting: Arc::default() })
    }

    pub(super) fn turn(&self, valve: Valve) {
        self.valve.send_replace(valve);
    }

    /// Waits until so many calls wait for it.
    pub(super) async fn until_waiting(&self, calls: usize) {
        until(&format!("{calls} calls wait"), || self.waiting.load(SeqCst) == calls).await;
    }
}

impl Store for Puppet {
    fn charge(&self, asks: &[Ask]) -> Charging {
        self.asked.fetch_add(1, SeqCst);
        let count = asks.len();
        let valve = *self.valve.borrow();
        if valve != Valve::Hang {
            return Charging::Done(outcomes(count, valve));
        }
        let mut turned = self.valve.subscribe();
        let waits = Waits::enter(&self.waiting);
        Charging::Waiting(Box::pin(async move {
            let valve = *turned.wait_for(|valve| *valve != Valve::Hang).await.unwrap();
            drop(waits);
            outcomes(count, valve)
        }))
    }
}

struct Waits(Arc<AtomicUsize>);

impl Waits {
    fn enter(waiting: &Arc<AtomicUsize>) -> Self {
        waiting.fetch_add(1, SeqCst);
        Self(waiting.clone())
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

fn outcomes(count: usize, valve: Valve) -> Outcomes {
    let admitted = valve == Valve::Admit;
    let reset = Duration::from_millis(1_500);
    let outcome = Outcome {
        admitted,
        remaining: if admitted { 7 } else { 0 },
        reset,
        retry: if admitted { Duration::ZERO } else { reset },
        source: Source::Memory,
    };
    std::iter::repeat_n(outcome, count).collect()
}

/// Workers that serve, and one store for each.
pub(super) struct Scene {
    pub(super) address: SocketAddr,
    pub(super) stores: Vec<Arc<Puppet>>,
    pub(super) rules_loaded: Condition,
    pub(super) shutdown: Shutdown,
    pub(super) meters: Arc<Meters>,
}

/// What a scene is made with.
pub(super) struct Setting {
    pub(super) server: GrpcServer,
    pub(super) workers: usize,
    pub(super) max_connections: usize,
    pub(super) tls: Option<ServerTls>,
}

impl Setting {
    pub(super) fn of(server: GrpcServer) -> Self {
        Self { server, workers: 1, max_connections: 100, tls: None }
    }

    pub(super) async fn play(self) -> Scene {
        let sockets = bind_shared(SocketAddr::from(([127, 0, 0, 1], 0)), self.workers).unwrap();
        let address = sockets[0].local_addr().unwrap();
        let stores: Vec<_> = (0..self.workers).map(|_| Puppet::new()).collect();
        let rules = Arc::new(ArcSwap::from_pointee(Ruleset::new(rules())));
        let meters = Arc::new(Meters::default());
        let (shutdown, readiness) = (Shutdown::new(), Readiness::new());
        let rules_loaded = readiness.condition("rules loaded");
        let accepting = readiness.condition("connections accepted");
        let (others, report, told) = grpc::health(readiness, shutdown.token()).await;
        let others = grpc::reflection(others).unwrap();
        shutdown.spawn("health", report);
        let (opened, salt) = (AtomicUsize::new(0), SaltCell::random());
        let (of_workers, counted) = (stores.clone(), meters.clone());
        let open = move || {
            let store = of_workers[opened.fetch_add(1, SeqCst)].clone();
            let limiter = Limiter::new(rules.clone(), store, salt.clone());
            let quota = QuotaService::new(limiter.clone(), Arc::default(), Arc::new(|| 1));
            Service { limiter, answers: Answers::default(), meters: counted.clone(), quota }
        };
        let plan = Plan {
            sockets,
            open: Arc::new(open),
            others,
            told,
            tls: self.tls,
            trust_domain: "chancery.local".into(),
            server: self.server,
            max_connections: self.max_connections,
            accepting,
        };
        worker::start(plan, &shutdown).unwrap();
        Scene { address, stores, rules_loaded, shutdown, meters }
    }
}

impl Scene {
    pub(super) fn store(&self) -> &Puppet {
        &self.stores[0]
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap()
    }

    /// A client with a connection of its own.
    pub(super) async fn client(&self) -> RateLimitServiceClient<Channel> {
        RateLimitServiceClient::new(self.endpoint().connect().await.unwrap())
    }

    pub(super) async fn ends(&self) -> Result<(), DrainError> {
        self.shutdown.drained(SOON).await
    }
}

/// Domain `edge` for all, domain `inner` for the fleet of that name.
fn rules() -> Rules {
    let limit = Limit::new(10, Duration::from_secs(60), None, Algorithm::TokenBucket).unwrap();
    let spec = |name: &str, fleet: Option<&str>| DomainSpec {
        name: name.into(),
        descriptors: vec![DescriptorSpec {
            key: "user".into(),
            limit: Some(LimitSpec {
                amount: Amount::Limited(limit),
                name: "per user".into(),
                replaces: Vec::new(),
                policy: Policy::default(),
                body: Some("slow down".into()),
            }),
            ..DescriptorSpec::default()
        }],
        fleets: fleet.map(|fleet| [fleet.to_owned()].into()),
        origin: "test".into(),
    };
    Rules::build(&[spec("edge", None), spec("inner", Some("inner"))]).unwrap()
}

/// One hit of `user=ann`.
pub(super) fn request(domain: &str) -> RateLimitRequest {
    let entries = vec![Entry { key: "user".into(), value: "ann".into() }];
    let descriptors = vec![RateLimitDescriptor { entries, ..RateLimitDescriptor::default() }];
    RateLimitRequest { domain: domain.into(), descriptors, hits_addend: 0 }
}

/// Waits for a condition that other threads bring about.
pub(super) async fn until(what: &str, condition: impl Fn() -> bool) {
    let held = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, held).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}
