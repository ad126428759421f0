//! Wiring: the only file that knows every part, and the order in which they start and stop.
//!
//! Requests are served on the program's runtime; the subscription, the admin port and the export of traces have a thread of their own,
//! so that none of them is in the way of a request.
//!
//! The end: not ready; others are asked to finish (`GOAWAY`, `connection: close`) while the application's own calls go on
//! as ever, new ones too; when others have finished and the application has closed its connections, or time is up, the rest is closed.

mod inbound_limit;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use arc_swap::ArcSwap;
use chancery_runtime::{
    Shutdown,
    admin::{Admin, Condition, Readiness},
    telemetry,
    tls::{RELOAD_INTERVAL, ServerTls, ServerTlsFiles},
    traces::{self, Export, InvalidTraces, Said},
};
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{
    net::TcpListener,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::inbound_limit::InboundLimit;
pub use crate::settings::{InboundProtocol, Settings};
use crate::{
    admin::{self, Pages},
    config::{
        ads::{self, AdsSettings},
        bootstrap::Bootstrap,
        held::Held,
        snapshot::Target,
    },
    layer::Clock,
    policy::concurrency::{self, Concurrency},
    proxy::{
        accept::{AcceptLimits, Carries, Opaque, Port, PortEnd},
        pool::PoolSettings,
        stack::{Inbound, InboundSettings, Outbound},
        stall::Patience,
        tcp::{Tcp, ports::Ports},
        world::{Base, World},
    },
};

/// How often idle connections are looked for, and gauges are set.
const TICK: Duration = Duration::from_secs(1);

/// How long nobody must have a connection to a port before it is taken to be done with.
const QUIET: Duration = Duration::from_millis(500);

/// How long the very last answers get.
const LAST: Duration = Duration::from_secs(2);

/// The application closes idle connections after this, at the soonest; most servers wait for longer.
const APPLICATION: PoolSettings = PoolSettings {
    connect_timeout: Duration::from_secs(1),
    idle_timeout: Duration::from_secs(4),
    max_connections: 1024,
};

/// A sidecar that serves.
pub type Running = chancery_runtime::Running<Addresses>;

/// Where it serves.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Addresses {
    /// Others.
    pub inbound: SocketAddr,
    /// The application.
    pub outbound: SocketAddr,
    /// People and machines that look after it.
    pub admin: SocketAddr,
}

/// Runs a sidecar until a signal, or until an essential part fails.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let running = start(settings, Shutdown::new()).await?;
    telemetry::ready_line(&running.addresses())?;
    Ok(running.finished().await?)
}

/// Starts a sidecar; it serves when this returns.
pub async fn start(settings: Settings, shutdown: Shutdown) -> anyhow::Result<Running> {
    chancery_runtime::tls::install_crypto_provider();
    let prometheus = telemetry::metrics()?;
    crate::metrics::describe();
    let bootstrap = bootstrap(&settings)?;
    let server_tls = server_tls(&settings, &bootstrap)?;
    let identity = bootstrap.own().map(Arc::new);

    let clock = Clock::start();
    let (traces, export) = traces::begin(trace_settings(&settings, &bootstrap)?);
    let patience = Patience(Duration::from_secs(u64::from(settings.stall_seconds.get())));
    let base = Base { clock, identity, tasks: TaskTracker::new(), patience, traces };
    let world = Arc::new(ArcSwap::from_pointee(World::default()));
    let outbound = Arc::new(Outbound {
        base: base.clone(),
        world: world.clone(),
        listener: Some(settings.listener.as_str()).filter(|name| !name.is_empty()).map(Into::into),
        concurrency: fixed(clock, settings.outbound_requests),
    });
    let inbound_limit = InboundLimit::new(settings.inbound_requests, &settings.service, clock);
    let inbound = Inbound::new(inbound_settings(&settings), base.clone(), inbound_limit.concurrency());
    let inbound = Arc::new(inbound);

    let limits = AcceptLimits { connections: settings.max_connections, stall: patience, ..AcceptLimits::default() };
    let outbound_port = Port::new(listen(settings.outbound_addr, "--outbound-addr").await?, None, limits);
    let inbound_listener = listen(settings.inbound_addr, "--inbound-addr").await?;
    let carries = carries(&settings, &inbound);
    let inbound_port = Port::new(inbound_listener, server_tls.clone(), limits).carrying(carries);
    let admin_listener = std::net::TcpListener::bind(settings.admin_addr).with_context(|| {
        format!("cannot listen on {}; choose another address with --admin-addr", settings.admin_addr)
    })?;
    admin_listener.set_nonblocking(true)?;
    let addresses = Addresses {
        inbound: inbound_port.address()?,
        outbound: outbound_port.address()?,
        admin: admin_listener.local_addr()?,
    };

    let tcp = Arc::new(Tcp { world: world.clone() });
    let ports = Ports::new(tcp, settings.tcp_listener, limits, outbound_port.end(), shutdown.clone());
    let ports = Arc::new(ports);

    let readiness = Readiness::new();
    let loaded = readiness.condition("configuration loaded");
    let drain = CancellationToken::new();
    let ends = Ends {
        drain: drain.clone(),
        inbound: inbound_port.end(),
        outbound: outbound_port.end(),
        parts_ended: CancellationToken::new(),
        within: Duration::from_secs(settings.drain_seconds),
    };
    let held = Arc::new(ArcSwap::from_pointee(Held::new(base.identity.is_some())));
    let ads = AdsSettings {
        saved: Some(settings.saved_config.clone()).filter(|path| !path.as_os_str().is_empty()),
        has_identity: base.identity.is_some(),
        bootstrap,
    };
    let control = Control {
        ads,
        loaded,
        base: base.clone(),
        inbound_limit,
        pages: Pages {
            admin: Admin { readiness, metrics: prometheus.clone(), stopping: drain },
            held,
            world: world.clone(),
            ports: ports.clone(),
            drain: ends.drain.clone(),
        },
        export,
        parts_ended: ends.parts_ended.clone(),
    };
    control.start(admin_listener, shutdown.clone())?;
    if let Some(tls) = server_tls {
        shutdown.spawn("TLS reload", tls.watch(RELOAD_INTERVAL, shutdown.token()));
    }
    let served = inbound.clone();
    shutdown.spawn_essential(
        "inbound",
        inbound_port.serve(move |peer| {
            let (inbound, caller) = (served.clone(), served.caller(peer));
            tower::service_fn(move |request| inbound.clone().call(caller.clone(), request))
        }),
    );
    shutdown.spawn_essential(
        "outbound",
        outbound_port.serve(move |_| {
            let outbound = outbound.clone();
            tower::service_fn(move |request| outbound.clone().call(request))
        }),
    );
    shutdown.spawn("upkeep", upkeep(clock, world, ports, inbound, prometheus, ends.parts_ended.clone()));
    let deadline = ends.within + 2 * LAST + traces::FLUSH + Duration::from_secs(5);
    shutdown.spawn("drain", ends.run(shutdown.token()));
    Ok(Running::new(addresses, shutdown, deadline))
}

fn bootstrap(settings: &Settings) -> anyhow::Result<Bootstrap> {
    let path = &settings.bootstrap;
    ensure!(!path.as_os_str().is_empty(), "a sidecar needs --bootstrap; `chancery bootstrap` writes such a file");
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bootstrap: Bootstrap = text.parse().with_context(|| format!("{} cannot be used", path.display()))?;
    ensure!(
        settings.insecure || bootstrap.tls.is_some(),
        "{} names no certificates; --insecure does without",
        path.display()
    );
    Ok(bootstrap)
}

/// Whom to tell of traces; `None`: nobody.
fn trace_settings(settings: &Settings, bootstrap: &Bootstrap) -> Result<Option<traces::Settings>, InvalidTraces> {
    let service = Some(settings.service.as_str()).filter(|name| !name.is_empty()).unwrap_or("chancery-sidecar");
    let (endpoint, ratio) = (settings.otlp_endpoint.as_str(), settings.trace_ratio);
    let said = Said { endpoint, ratio, service, instance: &bootstrap.id };
    traces::Settings::new(said, |name| std::env::var(name).ok())
}

/// How others are spoken to; `None`: in plaintext, as was asked for.
fn server_tls(settings: &Settings, bootstrap: &Bootstrap) -> anyhow::Result<Option<ServerTls>> {
    if settings.insecure {
        return Ok(None);
    }
    let Some(tls) = &bootstrap.tls else { return Ok(None) };
    let (certificate, private_key) = tls.identity.clone().context("the bootstrap file names no certificate")?;
    let files = ServerTlsFiles { certificate, private_key, client_ca: tls.ca.clone() };
    Ok(Some(ServerTls::offering(files, &[b"h2", b"http/1.1"])?))
}

fn inbound_settings(settings: &Settings) -> InboundSettings {
    InboundSettings {
        application: Target::Address(settings.app_addr),
        trust_domain: settings.trust_domain.clone(),
        allowed: settings.allowed(),
        anonymous: settings.insecure,
        requests_per_second: settings.inbound_rate(),
        pool: APPLICATION,
    }
}

/// What comes in beside HTTP.
fn carries(settings: &Settings, inbound: &Arc<Inbound>) -> Carries {
    let inbound = inbound.clone();
    let opaque: Opaque = Arc::new(move |peer| inbound.tunnel(peer));
    match settings.inbound_protocol {
        InboundProtocol::Http => Carries::Http,
        InboundProtocol::Tcp => Carries::All(opaque),
        InboundProtocol::Detect => Carries::Detected(opaque),
    }
}

fn fixed(clock: Clock, requests: u32) -> Arc<Mutex<Concurrency>> {
    Arc::new(Mutex::new(Concurrency::new(concurrency::Settings::Fixed(requests), clock.now())))
}

async fn listen(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address}; choose another address with {flag}"))
}

/// What runs on a thread of its own.
struct Control {
    ads: AdsSettings,
    loaded: Condition,
    base: Base,
    inbound_limit: InboundLimit,
    pages: Pages,
    export: Export,
    parts_ended: CancellationToken,
}

impl Control {
    fn start(self, listener: std::net::TcpListener, shutdown: Shutdown) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || runtime.block_on(self.run(listener, shutdown)))?;
        Ok(())
    }

    async fn run(self, listener: std::net::TcpListener, shutdown: Shutdown) {
        let Self { ads, loaded, base, inbound_limit, pages, export, parts_ended } = self;
        let (held, world, ports) = (pages.held.clone(), pages.world.clone(), pages.ports.clone());
        let in_force = move |now: &Held| {
            held.store(now.clone().into());
            let next = world.load().next(now.snapshot().into(), &base);
            inbound_limit.follow(&next.snapshot);
            world.store(next.into());
            // Before word of it goes out that the configuration is there.
            ports.follow();
        };
        // Until the end: who drains may still be told of endpoints that come and go.
        let subscription =
            shutdown.spawn("configuration over xDS", ads::run(ads, in_force, loaded, parts_ended.clone()));
        let export = shutdown.spawn("traces", export.run(parts_ended.clone()));
        let pages = shutdown.spawn_essential("admin", async move {
            admin::serve(TcpListener::from_std(listener)?, pages, parts_ended).await
        });
        // What they returned was logged where they were spawned.
        let _ = tokio::join!(subscription, export, pages);
    }
}

/// Waits until no connection is open.
async fn closed(end: &PortEnd) {
    // The count does not go away: it is held here, too.
    let _ = end.open().wait_for(|open| *open == 0).await;
}

/// Waits until no connection has been open for a moment: between two of them, the next one is not to be refused.
async fn quiet(end: &PortEnd) {
    loop {
        closed(end).await;
        if timeout(QUIET, end.open().wait_for(|open| *open > 0)).await.is_err() {
            return;
        }
    }
}

/// The end of everything, in order.
struct Ends {
    drain: CancellationToken,
    inbound: PortEnd,
    /// Of the ports of TCP, too.
    outbound: PortEnd,
    parts_ended: CancellationToken,
    within: Duration,
}

impl Ends {
    async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.drain.cancelled() => {}
        }
        self.drain.cancel();
        self.inbound.finish.cancel();
        stop.cancelled().await;
        let deadline = Instant::now() + self.within;
        let in_time = timeout_at(deadline, quiet(&self.inbound)).await.is_ok();
        self.inbound.close.cancel();
        let out_in_time = timeout_at(deadline, quiet(&self.outbound)).await.is_ok();
        if !(in_time && out_in_time) {
            tracing::warn!(within = ?self.within, "connections are closed that have not ended in time");
        }
        self.outbound.finish.cancel();
        let _ = timeout(LAST, closed(&self.outbound)).await;
        self.outbound.close.cancel();
        self.parts_ended.cancel();
    }
}

/// What is due every second.
async fn upkeep(
    clock: Clock,
    world: Arc<ArcSwap<World>>,
    ports: Arc<Ports>,
    inbound: Arc<Inbound>,
    prometheus: PrometheusHandle,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let world = world.load();
        world.sweep();
        world.publish(clock);
        ports.follow();
        inbound.sweep();
        prometheus.run_upkeep();
    }
}
