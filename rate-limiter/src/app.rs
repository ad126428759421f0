//! Wiring: the only file that knows every part, and the order in which they start and stop.
//!
//! Start: rules and store, then HTTP, then the workers. Requests are answered as soon as the workers run; health and
//! readiness say whether the rules are there. Stop: not ready, then connections, then HTTP, so that metrics can be
//! read until the end.

mod cells;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use arc_swap::ArcSwap;
use chancery_runtime::{
    Shutdown,
    admin::{Admin, Readiness},
    listen::bind_shared,
    telemetry,
    tls::{RELOAD_INTERVAL, ServerTls},
};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::cells::Cells;
pub use crate::settings::Settings;
use crate::{
    config::{self, files::Files},
    decide::{Caller, Limiter, Ruleset},
    metrics,
    model::rule::{DomainSpec, Rules},
    serve::{
        Service,
        answer::Answers,
        grpc,
        http::{self, Http},
        meters::{self, Meters},
        worker::{self, Plan},
    },
    store::SaltCell,
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

/// Says whether the rules are good, for `--check`.
///
/// # Errors
/// Every problem, one a line.
pub fn check(settings: &Settings) -> anyhow::Result<()> {
    anyhow::ensure!(!settings.config.as_os_str().is_empty(), "--check needs --config");
    let algorithm = settings.algorithm.into();
    let summary = config::files::check(&settings.config, algorithm).map_err(|problems| several(&problems))?;
    let specs = config::files::load(&settings.config, algorithm).map_err(|problems| several(&problems))?;
    build(&specs).map_err(|problems| several(&problems))?;
    println!("{summary}");
    Ok(())
}

/// Starts a rate limiter; it serves when this returns.
pub async fn start(settings: Settings, shutdown: Shutdown) -> anyhow::Result<Running> {
    chancery_runtime::tls::install_crypto_provider();
    let prometheus = telemetry::metrics()?;
    metrics::describe();
    meters::describe();
    config::files::describe_metrics();
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
    let rules = load_rules(&settings, &shutdown)?;
    loaded.met();

    let salt = SaltCell::random();
    let cells = Cells::open(&settings, &salt, &shutdown)?;
    let meters = Arc::new(Meters::default());
    let answers = Answers::new(settings.response_headers);
    let limiter = {
        let cells = cells.clone();
        move || Limiter::new(rules.clone(), cells.for_worker(), salt.clone())
    };

    let stop = shutdown.token();
    let http = Http {
        limiter: limiter(),
        caller: if settings.insecure { Caller::Trusted } else { Caller::Anonymous },
        admin: Admin { readiness: readiness.clone(), metrics: prometheus, stopping: stop.clone() },
    };
    let (others, report_health) = grpc::health(readiness, stop.clone());
    shutdown.spawn("health", report_health);
    if let Some(tls) = &tls {
        shutdown.spawn("TLS reload", tls.clone().watch(RELOAD_INTERVAL, stop.clone()));
    }
    let opened = meters.clone();
    let plan = Plan {
        sockets,
        open: Arc::new(move || Service { limiter: limiter(), answers, meters: opened.clone() }),
        others,
        tls,
        trust_domain: settings.trust_domain.into(),
        server: settings.grpc_server,
        max_connections: settings.max_connections,
    };
    let workers = worker::start(plan, &shutdown).context("cannot start the workers")?;
    shutdown.spawn("durations", publish(meters, stop));
    // The last to go: it says that the others are going.
    let parts_ended = CancellationToken::new();
    shutdown.spawn_essential("HTTP", http::serve(http_listener, http, parts_ended.clone()));
    shutdown.spawn("store", async move {
        for worker in workers {
            // What it returned was logged where it was spawned.
            let _ = worker.await;
        }
        cells.close().await;
        parts_ended.cancel();
    });
    Ok(Running { addresses, shutdown })
}

/// The rules of the configuration, and the task that follows its changes.
fn load_rules(settings: &Settings, shutdown: &Shutdown) -> anyhow::Result<Arc<ArcSwap<Ruleset>>> {
    if settings.config.as_os_str().is_empty() {
        return Ok(Arc::new(ArcSwap::from_pointee(Ruleset::new(Rules::default()))));
    }
    let path: &Path = &settings.config;
    let refused = |problems: Vec<_>| several(&problems).context("the rules cannot be used");
    let (files, specs) = Files::load(path, settings.algorithm.into()).map_err(refused)?;
    let rules = Arc::new(ArcSwap::from_pointee(build(&specs).map_err(refused)?));
    let in_force = rules.clone();
    shutdown.spawn(
        "configuration files",
        files.watch(shutdown.token(), move |specs| {
            in_force.store(Arc::new(build(&specs)?));
            Ok(())
        }),
    );
    Ok(rules)
}

fn build(specs: &[DomainSpec]) -> Result<Ruleset, Vec<config::Problem>> {
    let rules = Rules::build(specs).map_err(|problems| problems.into_iter().map(Into::into).collect::<Vec<_>>())?;
    Ok(Ruleset::new(rules))
}

fn several(problems: &[config::Problem]) -> anyhow::Error {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    anyhow::anyhow!(lines.join("\n"))
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
