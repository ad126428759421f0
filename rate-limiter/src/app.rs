//! Wiring: the only file that knows every part, and the order in which they start and stop.
//!
//! Start: rules and store, then HTTP, then the workers. Requests are answered as soon as the workers run; health and
//! readiness say whether the rules are there. Stop: not ready, then connections, then HTTP, so that metrics can be
//! read until the end.

mod cells;

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

use self::cells::Cells;
pub use crate::settings::Settings;
use crate::{
    config::{
        self, ads,
        files::Files,
        rulebook::{Rulebook, Source},
    },
    decide::{Caller, Limiter},
    serve::{
        Service,
        answer::Answers,
        grpc,
        http::{self, Http},
        meters::Meters,
        quota::{self, QuotaService},
        worker::{self, Plan},
    },
    store::SaltCell,
};

/// How long the parts get to end once a stop was asked for.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// How often durations are made visible.
const PUBLISH: Duration = Duration::from_secs(1);

/// A rate limiter that serves.
pub type Running = chancery_runtime::Running<Addresses>;

/// Where it serves.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Addresses {
    /// gRPC.
    pub grpc: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
}

/// Runs a rate limiter until a signal, or until an essential part fails.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let running = start(settings, Shutdown::new()).await?;
    telemetry::ready_line(&running.addresses())?;
    Ok(running.finished().await?)
}

/// Says what is in the rules of the configuration, for `--check`.
///
/// # Errors
/// Every problem.
pub fn check(settings: &Settings) -> Result<config::files::Summary, Vec<config::Problem>> {
    config::files::check(&settings.config, settings.algorithm.into())
}

/// Starts a rate limiter; it serves when this returns.
pub async fn start(settings: Settings, shutdown: Shutdown) -> anyhow::Result<Running> {
    chancery_runtime::tls::install_crypto_provider();
    let prometheus = telemetry::metrics()?;
    crate::describe_metrics();
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
    let accepting = readiness.condition("connections accepted");
    let rulebook = Arc::new(Rulebook::new(settings.algorithm.into()));
    load_files(&settings, &rulebook, &shutdown)?;
    follow_xds(&settings, &rulebook, loaded, &shutdown)?;

    let salt = SaltCell::random();
    let cells = Cells::open(&settings, &salt, &shutdown)?;
    let meters = Arc::new(Meters::default());
    let answers = Answers::new(settings.response_headers);
    let limiter = {
        let (cells, rules) = (cells.clone(), rulebook.current());
        move || Limiter::new(rules.clone(), cells.for_worker(), salt.clone())
    };

    let stop = shutdown.token();
    let http = Http {
        limiter: limiter(),
        caller: if settings.insecure { Caller::Trusted } else { Caller::Anonymous },
        admin: Admin { readiness: readiness.clone(), metrics: prometheus, stopping: stop.clone() },
    };
    let (others, report_health, told) = grpc::health(readiness, stop.clone()).await;
    let others = grpc::reflection(others).context("cannot describe the services")?;
    shutdown.spawn("health", report_health);
    if let Some(tls) = &tls {
        shutdown.spawn("TLS reload", tls.clone().watch(RELOAD_INTERVAL, stop.clone()));
    }
    let open = {
        let (meters, cells, quotas) = (meters.clone(), cells.clone(), Arc::new(quota::Shared::default()));
        move || {
            let limiter = limiter();
            let quota = QuotaService::new(limiter.clone(), quotas.clone(), cells.replicas());
            Service { limiter, answers, quota, meters: meters.clone() }
        }
    };
    let plan = Plan {
        sockets,
        open: Arc::new(open),
        others,
        told,
        tls,
        trust_domain: settings.trust_domain.into(),
        server: settings.grpc_server,
        max_connections: settings.max_connections,
        accepting,
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
    Ok(Running::new(addresses, shutdown, DRAIN_DEADLINE))
}

/// Loads the files, which must be good at the start, and watches them from then on.
fn load_files(settings: &Settings, rulebook: &Arc<Rulebook>, shutdown: &Shutdown) -> anyhow::Result<()> {
    if settings.config.as_os_str().is_empty() {
        return Ok(());
    }
    let refused = |problems: Vec<_>| several(&problems).context("the rules cannot be used");
    let (files, specs) = Files::load(&settings.config, settings.algorithm.into()).map_err(refused)?;
    rulebook.set(Source::Files, specs).map_err(refused)?;
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

fn several<P: ToString>(problems: &[P]) -> anyhow::Error {
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
