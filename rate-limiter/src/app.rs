//! Wiring: the only file that knows every part, and the order in which they start and stop.
//!
//! Start: rules and store, then HTTP, then the workers. Requests are answered as soon as the workers run; health and
//! readiness say whether the rules are there. Stop: not ready, then connections, then HTTP, so that metrics can be
//! read until the end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use arc_swap::ArcSwap;
use chancery_runtime::{
    Shutdown,
    admin::{self, Admin, Readiness},
    listen::bind_shared,
    telemetry,
    tls::{RELOAD_INTERVAL, ServerTls},
};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use crate::settings::Settings;
use crate::{
    decide::{Limiter, Ruleset},
    model::{key::Salt, rule::Rules},
    serve::{
        Service,
        answer::Answers,
        grpc,
        meters::{self, Meters},
        worker::{self, Plan},
    },
    store::Store,
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
    let rules = Arc::new(ArcSwap::from_pointee(Ruleset { rules: Rules::default() }));
    loaded.met();

    let meters = Arc::new(Meters::default());
    let answers = Answers::new(settings.response_headers);
    let salt = Salt(rand::random());
    let store: Arc<dyn Store> = Arc::new(placeholder::Cells::default());
    let open = {
        let meters = meters.clone();
        Arc::new(move || Service {
            limiter: Limiter::new(rules.clone(), store.clone(), salt),
            answers,
            meters: meters.clone(),
        })
    };

    let stop = shutdown.token();
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
    worker::start(plan, &shutdown).context("cannot start the workers")?;
    shutdown.spawn("durations", publish(meters, stop.clone()));
    let admin = Admin { readiness, metrics: prometheus, stopping: stop.clone() };
    shutdown.spawn_essential("HTTP", admin::serve(http_listener, admin, stop));
    Ok(Running { addresses, shutdown })
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

mod placeholder {
    //! Cells without a bound, until the stores are there.

    use std::{collections::HashMap, time::Duration, time::SystemTime};

    use parking_lot::Mutex;

    use crate::{
        model::{cell::Meter, key::CellKey},
        store::{Ask, Charging, Outcome, Source, Store},
    };

    #[derive(Default)]
    pub(super) struct Cells(Mutex<HashMap<CellKey, u64>>);

    impl Store for Cells {
        fn charge(&self, asks: &[Ask]) -> Charging {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
            let mut cells = self.0.lock();
            let outcomes = asks.iter().map(|ask| {
                let cell = cells.entry(ask.key).or_default();
                let charged = Meter::new(&ask.limit, 1_000_000_000).charge(*cell, now, ask.hits, ask.policy.debt);
                *cell = charged.cell;
                Outcome {
                    admitted: charged.admitted,
                    remaining: charged.remaining,
                    reset: Duration::from_nanos(charged.reset),
                    retry: Duration::from_nanos(charged.retry),
                    source: Source::Memory,
                }
            });
            Charging::Done(outcomes.collect())
        }
    }
}
