//! Wiring: the only file that knows every part, and the order in which they start and stop.
//!
//! Start: admin port, store, catalog, then xDS and API, so that nothing is served before it is loaded (a
//! control plane that answers too early tells its proxies that they have no configuration). Stop: not
//! ready, then streams and requests, then the store.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use chancery_runtime::{
    Shutdown,
    admin::{self, Admin, Readiness},
    telemetry,
    tls::{AcceptLimits, RELOAD_INTERVAL, ServerTls, TlsListener},
    traces,
};
use chancery_xds::{StreamSettings, XdsServer};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::settings::Settings;
use crate::{
    admission::FleetAdmission,
    api::{self, Api, Guard},
    audit::Audit,
    commit::Commit,
    connections,
    csds::ClientStatuses,
    enrolment::{Enrolments, renewal::Renewals},
    feed::Feed,
    gauges,
    identity::token::AdminToken,
    load::{LoadReports, Loads},
    metrics,
    oidc::SignIn,
    proxies::{Proxies, records},
    publish::{Publisher, Trails},
    quarantine::{self, Keeper},
    registry::Registry,
    replica::{Replica, ReplicaError},
    rollout::Stages,
    seen::{Seen, SeenTraffic},
    services::Services,
    store::{self, Store, StoreError},
    tokens::Tokens,
    verdict::SecondVerdict,
};

/// How long the parts get to end once a stop was asked for.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// First and longest wait between attempts to reach the database at start.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A control plane that serves.
pub type Running = chancery_runtime::Running<Addresses>;

/// Where it serves.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Addresses {
    /// The API.
    pub api: SocketAddr,
    /// xDS.
    pub xds: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
}

/// Runs a control plane until a signal, or until an essential part fails.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let running = start(settings, Shutdown::new()).await?;
    telemetry::ready_line(&running.addresses())?;
    Ok(running.finished().await?)
}

/// Starts a control plane; it serves when this returns.
pub async fn start(settings: Settings, shutdown: Shutdown) -> anyhow::Result<Running> {
    chancery_runtime::tls::install_crypto_provider();
    let age = settings.connection_age()?;
    let name = settings.replica_name(&mut rand::rng())?;
    let loads = Arc::new(Loads::new(settings.load_interval()?));
    let keep_audit = settings.audit_retention()?;
    let (traces, export) = traces::begin(settings.traces(&name)?);
    let sign_in = SignIn::new(&settings.oidc)?.map(Arc::new);
    let prometheus = telemetry::metrics()?;
    metrics::describe();
    std::fs::create_dir_all(&settings.data_dir)
        .with_context(|| format!("cannot create the data folder {}", settings.data_dir.display()))?;
    let admin_token = AdminToken::load_or_create(&settings.admin_token_path(), &mut rand::rng())?;
    let tls = ServerTls::load(settings.tls_files())?;
    let authority = settings.authority(OffsetDateTime::now_utc())?;
    let envoy = match settings.envoy_validate.as_deref().filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => Some(Arc::new(SecondVerdict::by(path, settings.data_dir.join("envoy-validate")).await?)),
        None => None,
    };

    let readiness = Readiness::new();
    let loaded = readiness.condition("catalog loaded");
    let admin_listener = bind(settings.admin_addr, "health and metrics", "--admin-addr").await?;
    let api_listener = bind(settings.api_addr, "the API", "--api-addr").await?;
    let xds_listener = bind(settings.xds_addr, "xDS", "--xds-addr").await?;
    let addresses = Addresses {
        api: api_listener.local_addr()?,
        xds: xds_listener.local_addr()?,
        admin: admin_listener.local_addr()?,
    };
    let admin = Admin { readiness, metrics: prometheus, stopping: shutdown.token() };
    // The last to go: it says that the others are going.
    let parts_ended = CancellationToken::new();
    shutdown.spawn_essential("admin", admin::serve(admin_listener, admin, parts_ended.clone()));

    let store = open_store(&settings.database_url(), &shutdown.token()).await?;
    let publisher = Arc::new(Publisher::telling(Trails::new(traces)));
    let feed = Arc::new(Feed::new(format!("{:08x}", rand::random::<u32>()), &shutdown.token()));
    let replica = Arc::new(load_replica(&store, &publisher, &feed, &shutdown.token()).await?);
    let proxies = Arc::new(Proxies::new(name, feed.clone()));
    // Before anybody is served.
    let staging = async || {
        let (replica, publisher, proxies) = (replica.clone(), publisher.clone(), proxies.clone());
        Stages::load(replica, publisher, proxies, loads.clone(), feed.clone()).await
    };
    let stages = until_available(&shutdown.token(), staging).await.context("cannot load rollouts")?;
    let stages = Arc::new(stages);
    let mut keeper = Keeper::new(publisher.clone(), store.clone());
    until_available(&shutdown.token(), async || keeper.step().await).await.context("cannot load the quarantine")?;
    let registered = async || Registry::load(store.clone(), publisher.clone()).await;
    let loading = until_available(&shutdown.token(), registered).await;
    let (registry, batches) = loading.context("cannot load registered endpoints")?;
    let registry = Arc::new(registry);
    let reading = until_available(&shutdown.token(), async || Tokens::load(store.clone()).await).await;
    let tokens = Arc::new(reading.context("cannot load tokens")?);
    let enrolments = Arc::new(Enrolments::new(store.clone(), authority));
    let audit = Arc::new(Audit::new(store.clone()));
    let streams = TaskTracker::new();
    let commits = TaskTracker::new();
    let commit = Commit::new(replica.clone(), envoy, commits.clone());

    let stop = shutdown.token();
    let quarantine = shutdown.spawn("quarantine", quarantine::run(keeper, stop.clone()));
    let rollouts = shutdown.spawn("rollouts", stages.clone().run(stop.clone()));
    let guard = Arc::new(Guard::new(&settings.api_rates(), settings.trusted_proxies.clone()));
    let admission =
        FleetAdmission::new(publisher.clone(), proxies.clone(), settings.trust_domain, settings.max_new_streams);
    let admission = Arc::new(admission);
    let seen = Arc::new(Seen::default());
    let services = Services {
        xds: XdsServer::new(admission.clone(), StreamSettings::default(), stop.clone(), streams.clone()),
        load: LoadReports::new(admission.clone(), loads.clone(), replica.clone(), stop.clone(), streams.clone()),
        seen: SeenTraffic::new(admission.clone(), seen.clone(), replica.clone(), stop.clone(), streams.clone()),
        renewals: Renewals::new(admission.clone(), enrolments.clone(), stop.clone(), streams.clone()),
        status: ClientStatuses::new(admission, proxies.clone(), stop.clone(), streams.clone()),
    };
    shutdown.spawn("TLS reload", tls.clone().watch(RELOAD_INTERVAL, stop.clone()));
    let incoming = TlsListener::new(xds_listener, tls, AcceptLimits::default())?;
    shutdown.spawn("gauges", gauges::run(proxies.clone(), replica.clone(), stop.clone()));
    let recording = shutdown.spawn("proxies", records::run(proxies.clone(), store.clone(), stop.clone()));
    shutdown.spawn_essential("xDS", connections::serve(services, incoming, age, streams.clone(), stop.clone()));
    let api = Api {
        replica: replica.clone(),
        publisher,
        commit,
        registry: registry.clone(),
        proxies,
        feed,
        loads,
        seen,
        stages,
        admin_token: Arc::new(admin_token),
        tokens: tokens.clone(),
        enrolments,
        audit: audit.clone(),
        guard,
        sign_in: sign_in.clone(),
        origins: settings.cors_origins,
    };
    if let Some(sign_in) = sign_in {
        shutdown.spawn_essential("sign-in", sign_in.run(stop.clone()));
    }
    let serving = shutdown.spawn_essential("API", api::serve(api::router(api), api_listener, stop.clone()));
    let (auditing, exporting) = (CancellationToken::new(), CancellationToken::new());
    let exported = shutdown.spawn("traces", export.run(exporting.clone()));
    let audited = shutdown.spawn_essential("audit", audit.run(keep_audit, auditing.clone()));
    let following = shutdown.spawn_essential("replica", replica.run(stop.clone()));
    let registering = [
        shutdown.spawn_essential("registry", registry.clone().follow(stop.clone())),
        shutdown.spawn_essential("leases", registry.clone().expire(stop.clone())),
        shutdown.spawn_essential("registrations", batches.run(registry, stop.clone())),
        shutdown.spawn_essential("tokens", tokens.run(stop.clone())),
    ];
    shutdown.spawn("store", async move {
        stop.cancelled().await;
        for tasks in [&streams, &commits] {
            tasks.close();
            tasks.wait().await;
        }
        // What it returned was logged where it was spawned.
        let _ = tokio::join!(following, recording, quarantine, rollouts);
        for task in registering {
            let _ = task.await;
        }
        // What was refused until the last request was answered.
        let _ = serving.await;
        auditing.cancel();
        let _ = audited.await;
        exporting.cancel();
        let _ = exported.await;
        store.close().await;
        parts_ended.cancel();
    });
    loaded.met();
    Ok(Running::new(addresses, shutdown, DRAIN_DEADLINE + traces::FLUSH))
}

async fn bind(address: SocketAddr, what: &str, flag: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address} for {what}; choose another address with {flag}"))
}

/// Opens the store, however long the database takes to come up.
async fn open_store(url: &str, stop: &CancellationToken) -> anyhow::Result<Arc<dyn Store>> {
    until_available(stop, async || store::open(url).await).await.context("cannot open the store")
}

async fn load_replica(
    store: &Arc<dyn Store>,
    publisher: &Arc<Publisher>,
    feed: &Arc<Feed>,
    stop: &CancellationToken,
) -> anyhow::Result<Replica> {
    let load = async || match Replica::load(store.clone(), publisher.clone(), feed.clone()).await {
        Ok(replica) => Ok(Ok(replica)),
        Err(ReplicaError::Store(error)) => Err(error),
        Err(error @ ReplicaError::Unreadable { .. }) => Ok(Err(error)),
    };
    Ok(until_available(stop, load).await.context("cannot load the catalog")??)
}

/// Tries until the database is there, or the program is told to stop.
async fn until_available<T>(
    stop: &CancellationToken,
    mut attempt: impl AsyncFnMut() -> Result<T, StoreError>,
) -> anyhow::Result<T> {
    let mut wait = RETRY.0;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error @ StoreError::Unavailable(_)) => {
                tracing::warn!(error = telemetry::chain(&error), retry_in = ?wait, "waiting for the database");
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = stop.cancelled() => anyhow::bail!("stopped before the database was there"),
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(RETRY.1),
        }
    }
}
