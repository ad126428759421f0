//! Wiring: the only file that knows every part, and the order in which they start and stop.
//!
//! Start: rules and store, then HTTP, then the workers. Requests are answered as soon as the workers run; health and
//! readiness say whether the rules are there. Stop: not ready, then connections, then HTTP, so that metrics can be
//! read until the end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use chancery_runtime::{
    Shutdown,
    admin::{Admin, Condition, Readiness},
    listen::bind_shared,
    telemetry,
    tls::{RELOAD_INTERVAL, ServerTls},
};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use crate::settings::Settings;
use crate::{
    config::{
        Problem, ads,
        files::{self, Files},
        rulebook::{Rulebook, Source},
    },
    decide::{Caller, Limiter},
    serve::{
        Service,
        answer::Answers,
        grpc,
        http::{self, Http},
        meters::{self, Meters},
        quota::{self, QuotaService},
        worker::{self, Plan},
    },
    store::{Clock, Memory, SaltCell, Store, memory, redis},
};

/// How long the parts get to end once a stop was asked for.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// How often durations are made visible.
const PUBLISH: Duration = Duration::from_secs(1);

/// A rate limiter that serves.
pub struct Running {
    addresses: Addresses,
    shutdown: Shutdown,
}

/// Where it serves.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Addresses {
    /// gRPC.
    pub grpc: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
}

impl Running {
    /// Where it serves.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Waits until `shutdown` begins, and then until everything has ended.
    pub async fn finished(self) -> anyhow::Result<()> {
        Ok(self.shutdown.run_until_drained(DRAIN_DEADLINE).await?)
    }

    /// Stops it.
    pub async fn stop(self) -> anyhow::Result<()> {
        Ok(self.shutdown.drained(DRAIN_DEADLINE).await?)
    }
}

/// Runs a rate limiter until a signal, or until an essential part fails.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let running = start(settings, Shutdown::new()).await?;
    telemetry::ready_line(&running.addresses())?;
    running.finished().await
}

/// Starts a rate limiter; it serves when this returns.
pub async fn start(settings: Settings, shutdown: Shutdown) -> anyhow::Result<Running> {
    chancery_runtime::tls::install_crypto_provider();
    let prometheus = telemetry::metrics()?;
    meters::describe();
    crate::metrics::describe();
    files::describe_metrics();
    memory::describe();
    redis::describe();
    let tls = settings.tls_files()?.map(ServerTls::load).transpose()?;

    let sockets = bind_shared(settings.grpc_addr, settings.worker_count()).with_context(|| {
        format!("cannot listen on {} for gRPC; choose another address with --grpc-addr", settings.grpc_addr)
    })?;
    let http_listener = TcpListener::bind(settings.http_addr).await.with_context(|| {
        format!("cannot listen on {} for HTTP; choose another address with --http-addr", settings.http_addr)
    })?;
    let grpc_address = sockets.first().context("there must be a worker")?.local_addr()?;
    let addresses = Addresses { grpc: grpc_address, http: http_listener.local_addr()? };

    let readiness = Readiness::new();
    let loaded = readiness.condition("rules loaded");
    let stop = shutdown.token();
    let rulebook = Arc::new(Rulebook::new(settings.algorithm.into()));
    load_files(&settings, &rulebook, &shutdown)?;
    follow_xds(&settings, &rulebook, loaded, &shutdown)?;

    let cells = Cells::open(&settings, &shutdown)?;
    let meters = Arc::new(Meters::default());
    let answers = Answers::new(settings.response_headers);
    let quotas = Arc::new(quota::Shared::default());
    let open = {
        let (cells, meters, rules) = (cells.clone(), meters.clone(), rulebook.current());
        Arc::new(move || {
            let limiter = Limiter::new(rules.clone(), cells.for_worker(), cells.salt.clone());
            let quota = QuotaService::new(limiter.clone(), quotas.clone(), cells.replicas());
            Service { limiter, answers, quota, meters: meters.clone() }
        })
    };
    let limiter = Limiter::new(rulebook.current(), cells.for_worker(), cells.salt.clone());

    let (others, report_health) = grpc::health(readiness.clone(), stop.clone());
    shutdown.spawn("health", report_health);
    if let Some(tls) = &tls {
        shutdown.spawn("TLS reload", tls.clone().watch(RELOAD_INTERVAL, stop.clone()));
    }
    let plan = Plan {
        sockets,
        open,
        others,
        tls,
        trust_domain: settings.trust_domain.into(),
        server: settings.grpc_server,
        max_connections: settings.max_connections,
    };
    let workers = worker::start(plan, &shutdown).context("cannot start the workers")?;
    shutdown.spawn("durations", publish(meters, stop.clone()));
    // The last to go: it says that the others are going.
    let parts_ended = CancellationToken::new();
    let admin = Admin { readiness, metrics: prometheus, stopping: stop };
    let http = Http { limiter, caller: Caller::Trusted, admin };
    shutdown.spawn_essential("HTTP", http::serve(http_listener, http, parts_ended.clone()));
    shutdown.spawn("store", async move {
        workers.await;
        cells.close().await;
        parts_ended.cancel();
    });
    Ok(Running { addresses, shutdown })
}

/// Loads the files, which must be good at the start, and watches them from then on.
fn load_files(settings: &Settings, rulebook: &Arc<Rulebook>, shutdown: &Shutdown) -> anyhow::Result<()> {
    if settings.config.as_os_str().is_empty() {
        return Ok(());
    }
    let (files, specs) = Files::load(&settings.config, settings.algorithm.into()).map_err(all)?;
    rulebook.set(Source::Files, specs).map_err(all)?;
    let rulebook = rulebook.clone();
    let take = move |specs| rulebook.set(Source::Files, specs);
    shutdown.spawn("configuration files", files.watch(shutdown.token(), take));
    Ok(())
}

/// Follows the xDS server, if there is one; `loaded` is met when its rules are there, or those it gave before.
fn follow_xds(
    settings: &Settings,
    rulebook: &Arc<Rulebook>,
    loaded: Condition,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let Some(ads) = settings.ads()? else {
        loaded.met();
        return Ok(());
    };
    let rulebook = rulebook.clone();
    let take = move |specs| rulebook.set(Source::Xds, specs);
    shutdown.spawn("configuration over xDS", ads::run(ads, take, loaded, shutdown.token()));
    Ok(())
}

/// Every problem, one per line.
fn all(problems: Vec<Problem>) -> anyhow::Error {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    anyhow::anyhow!("the configuration has problems:\n{}", lines.join("\n"))
}

/// Says what is wrong with the rules of `settings`, or what is in them.
///
/// # Errors
/// Every problem.
pub fn check(settings: &Settings) -> Result<files::Summary, Vec<Problem>> {
    files::check(&settings.config, settings.algorithm.into())
}

/// Where cells are kept.
#[derive(Clone)]
struct Cells {
    memory: Arc<Memory>,
    redis: Option<Arc<redis::Shared>>,
    salt: SaltCell,
}

impl Cells {
    fn open(settings: &Settings, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let memory = Arc::new(Memory::new(settings.max_cells, Clock::system()));
        let stop = shutdown.token();
        let tend = memory::tend(memory.clone());
        shutdown.spawn("cells", async move {
            tokio::select! {
                () = tend => {}
                () = stop.cancelled() => {}
            }
        });
        let salt = SaltCell::random();
        let redis =
            settings.redis()?.map(|redis| redis::Shared::start(redis, memory.clone(), salt.clone())).transpose()?;
        Ok(Self { memory, redis, salt })
    }

    /// The store of a worker, on whose runtime this is called.
    fn for_worker(&self) -> Arc<dyn Store> {
        match &self.redis {
            None => self.memory.clone(),
            Some(redis) => redis.store_for_worker(),
        }
    }

    /// How many limiters share the cells.
    fn replicas(&self) -> Arc<dyn Fn() -> u32 + Send + Sync> {
        let redis = self.redis.clone();
        Arc::new(move || redis.as_ref().map_or(1, |redis| redis.replicas()))
    }

    async fn close(&self) {
        if let Some(redis) = &self.redis
            && let Err(error) = redis.close().await
        {
            tracing::warn!(error = telemetry::chain(&error), "leases could not be given back");
        }
    }
}

async fn publish(meters: Arc<Meters>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(PUBLISH);
    loop {
        tokio::select! {
            _ = ticks.tick() => meters.publish(),
            () = stop.cancelled() => return,
        }
    }
}
