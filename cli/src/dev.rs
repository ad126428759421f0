//! `chancery dev`: everything on this machine, to try and to test against.
//!
//! The control plane, the rate limiter, two demo upstreams and a sidecar in front of the first run in this process; Envoy
//! is a child. All of it goes the way a user's own things go: Envoy, sidecar and limiter have certificates of the
//! development CA and take their configuration over xDS, Envoy and sidecar start with a generated bootstrap, the
//! demo resources arrive through the API with the admin's token.
//!
//! What it keeps lies in one data folder, locked while it runs. `dev.json` in there says what is
//! where; it exists only while everything is up, so its existence is the signal to wait for. What
//! was started ends in reverse order, and ends too if this process is killed.

mod chaos;
mod control_plane;
mod envoy;
mod facts;
mod folder;
mod http;
mod part;
mod ports;
mod process;
mod rate_limiter;
mod seed;
mod sidecar;
mod upgrade;

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use chancery_control_plane::{
    bootstrap::{Bootstrap, DEFAULT_MAX_CONNECTIONS, Protocol},
    identity::{DEFAULT_TRUST_DOMAIN, authority::Authority, issue},
    model::Name,
};
use chancery_runtime::{SecretString, drain::Signals, telemetry};
use clap::Args;
use time::OffsetDateTime;
use tracing::warn;

use self::{
    control_plane::ControlPlane,
    envoy::{Envoy, Launch},
    facts::Facts,
    folder::Folder,
    ports::{Optional, Ports},
    rate_limiter::RateLimiter,
    sidecar::Sidecar,
};
use crate::{
    client::Client,
    demo::{Faulty, Upstream},
    sign_in::session::Credentials,
};

/// The folder of the development CA within the data folder.
pub const CA_DIR: &str = "ca";

/// The data folder unless another one is named.
pub const DEFAULT_DATA_DIR: &str = "./.chancery";

/// The proxies that are started.
const FLEET: &str = "edge";
const PROXY: &str = "dev-1";
const SIDECAR: &str = "dev-sidecar";

/// The rate limiter that is started.
const RATE_LIMITER: &str = "dev";

/// How long the certificates live that each start issues anew. Envoy reads its own only once.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// How long Envoy may take to load its first configuration and serve it.
const ENVOY_READY: Duration = Duration::from_secs(30);

/// How long all parts together may take to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs everything on this machine: control plane, rate limiter, Envoy, sidecar, demo services
#[derive(Clone, Debug, Args)]
pub struct DevArgs {
    /// Folder for the database, the development CA, the admin token and dev.json
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA_DIR, env = "CHANCERY_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Number added to every port
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(..=i64::from(ports::MAX_OFFSET)))]
    pub port_offset: u16,
    /// Redis for the rate limiter to count in: redis://…, rediss://… [default: its memory]
    #[arg(long, value_name = "URL", env = "CHANCERY_REDIS", hide_env_values = true)]
    pub redis: Option<SecretString>,
    /// Leave Envoy out
    #[arg(long)]
    pub no_envoy: bool,
    /// Envoy's binary [default: `envoy` on PATH, or .dev/envoy/bin/envoy here or above this program]
    #[arg(long, value_name = "FILE", env = "CHANCERY_ENVOY")]
    pub envoy: Option<PathBuf>,
    /// Add a service with three endpoints, one of which fails, to see its breaker open and close
    #[arg(long)]
    pub chaos: bool,
    /// Ask Envoy about every change before it is stored, which takes a tenth of a second
    #[arg(long, conflicts_with = "no_envoy")]
    pub validate: bool,
}

/// Runs until SIGINT or SIGTERM. Wants a runtime of several threads: it carries traffic.
///
/// # Errors
/// Something cannot be started, or did not end in time.
pub async fn run(args: DevArgs) -> Result<()> {
    telemetry::init_logs_from_environment("warn")?;
    let mut signals = Signals::listen().context("cannot listen to signals")?;

    let mut running = tokio::select! {
        started = Dev::start(&args) => started?,
        _ = signals.received() => return Ok(()),
    };
    running.announce(&program(&args.data_dir))?;
    let lost = tokio::select! {
        _ = signals.received() => None,
        lost = running.watch() => Some(lost),
    };
    if io::stderr().is_terminal() {
        tell("\nStopping …");
    }
    let stopped = tokio::select! {
        stopped = tokio::time::timeout(DRAIN, running.stop()) => stopped.context("not everything ended in time")?,
        _ = signals.received() => anyhow::bail!("ended at once by a second signal"),
    };
    // What a part says about its own end is the better explanation.
    stopped.and(lost.map_or(Ok(()), Err))
}

/// Everything that runs, in the order in which it was started.
struct Dev {
    folder: Folder,
    facts: Facts,
    upstreams: Vec<Upstream>,
    chaos: Vec<Faulty>,
    control_plane: ControlPlane,
    rate_limiter: RateLimiter,
    sidecar: Sidecar,
    envoy: Option<Envoy>,
}

impl Dev {
    async fn start(args: &DevArgs) -> Result<Self> {
        let folder = Folder::open(&args.data_dir)?;
        let ports = Ports::with_offset(args.port_offset);
        ports.check_free(Optional { envoy: !args.no_envoy, chaos: args.chaos })?;
        let binary = if args.no_envoy { None } else { Some(envoy::find(args.envoy.as_deref())?) };
        let identity = Identity::issue(&folder)?;

        let mut upstreams = Vec::new();
        for (name, port) in [("demo-a", ports.upstreams[0]), ("demo-b", ports.upstreams[1])] {
            upstreams.push(Upstream::start(name, port).await?);
        }
        let faulty = if args.chaos { chaos::endpoints(&ports) } else { Vec::new() };
        let chaos = chaos::start(&faulty).await?;
        let asked = binary.as_deref().filter(|_| args.validate);
        let (control_plane, admin_token) = control_plane::start(&folder, &ports, &identity.server, asked).await?;
        let api = Client::new(&format!("http://{}", ports.api), None, Credentials::token(&admin_token)?)?;
        let more = if args.chaos { chaos::resources(&ports).to_vec() } else { Vec::new() };
        let demo =
            seed::seed(&api, &ports, &more, &folder.join("demo")).await.context("cannot write the demo resources")?;
        let bootstrap = bootstrap(SIDECAR, &ports, &identity.sidecar, None)?;
        let bootstrap = write(folder.join("sidecar.json"), &bootstrap)?;
        // After the demo, so that its limits and routes are in force when this returns.
        let (rate_limiter, sidecar) = tokio::try_join!(
            rate_limiter::start(&ports, &identity.rate_limiter, args.redis.clone()),
            sidecar::start(&ports, bootstrap),
        )?;

        let mut facts = Facts {
            ready: true,
            api_url: format!("http://{}", ports.api),
            admin_token,
            admin_url: format!("http://{}", ports.admin),
            xds_address: ports.xds,
            ca_file: identity.proxy.ca.clone(),
            client_cert_file: identity.proxy.certificate.clone(),
            client_key_file: identity.proxy.private_key.clone(),
            fleet: FLEET.to_owned(),
            proxy_id: PROXY.to_owned(),
            envoy_listener: None,
            envoy_admin: None,
            envoy_version: None,
            rate_limiter_grpc: ports.limiter_grpc,
            rate_limiter_http: ports.limiter_http,
            sidecar_inbound: ports.sidecar_inbound,
            sidecar_outbound: ports.sidecar_outbound,
            sidecar_admin: ports.sidecar_admin,
            upstreams: ports.upstreams.to_vec(),
            chaos: faulty,
            pids: [("chancery".to_owned(), std::process::id())].into(),
        };
        let envoy = match binary {
            None => None,
            Some(binary) => {
                let mut envoy = Envoy::start(launch(binary, &folder, &ports, &identity)?)?;
                let version = envoy.ready(ports.envoy_admin, ENVOY_READY).await?;
                facts.envoy_listener = Some(ports.listener);
                facts.envoy_admin = Some(ports.envoy_admin);
                facts.envoy_version = Some(version);
                facts.pids.extend(envoy.pid().map(|pid| ("envoy".to_owned(), pid)));
                if let Err(error) = seed::served(ports.listener, ENVOY_READY).await {
                    // On a later start the demo may be gone because its user wanted that.
                    if demo.is_new {
                        return Err(error);
                    }
                    warn!(error = format!("{error:#}"), "the demo route is not served");
                }
                Some(envoy)
            }
        };
        Ok(Self { folder, facts, upstreams, chaos, control_plane, rate_limiter, sidecar, envoy })
    }

    /// Says that everything is up: to programs by file and stdout, to people in words.
    fn announce(&self, program: &str) -> Result<()> {
        self.facts.write(&self.folder.dev_json())?;
        let summary = self.facts.summary(self.folder.path(), program);
        if io::stdout().is_terminal() {
            println!("{summary}");
        } else {
            tell(&summary);
            telemetry::ready_line(&self.facts.addresses())?;
        }
        Ok(())
    }

    /// Keeps `dev.json` true while Envoy comes and goes; returns what ended by itself.
    async fn watch(&mut self) -> anyhow::Error {
        loop {
            let restarted = async {
                match &mut self.envoy {
                    Some(envoy) => envoy.restarted().await,
                    None => std::future::pending().await,
                }
            };
            let pid = tokio::select! {
                lost = self.control_plane.lost() => return lost,
                lost = self.rate_limiter.lost() => return lost,
                lost = self.sidecar.lost() => return lost,
                pid = restarted => pid,
            };
            self.facts.pids.insert("envoy".to_owned(), pid);
            if let Err(error) = self.facts.write(&self.folder.dev_json()) {
                warn!(error = format!("{error:#}"), "dev.json is not up to date");
            }
        }
    }

    /// Ends everything, Envoy first: its clients get answers as long as there is somebody to answer.
    async fn stop(self) -> Result<()> {
        let Self { folder, facts: _, upstreams, chaos, control_plane, rate_limiter, sidecar, envoy } = self;
        folder.remove_dev_json();
        if let Some(envoy) = envoy {
            envoy.stop().await;
        }
        let (limited, passed) = tokio::join!(rate_limiter.stop(), sidecar.stop());
        let stopped = control_plane.stop().await;
        drop((upstreams, chaos));
        drop(folder);
        limited.and(passed).and(stopped)
    }
}

/// The certificates of this run.
struct Identity {
    server: issue::IdentityFiles,
    rate_limiter: issue::IdentityFiles,
    proxy: issue::IdentityFiles,
    sidecar: issue::IdentityFiles,
}

impl Identity {
    fn issue(folder: &Folder) -> Result<Self> {
        let now = OffsetDateTime::now_utc();
        let authority = Authority::load_or_create(&folder.join(CA_DIR), DEFAULT_TRUST_DOMAIN, now)?;
        let localhost = ["localhost".to_owned()];
        let loopback = [std::net::Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()];
        let server = authority.issue_server(&localhost, &loopback, CERTIFICATE_LIFE, now)?;
        let limiter = authority.issue_limiter(&name(RATE_LIMITER)?, &localhost, &loopback, CERTIFICATE_LIFE, now)?;
        let proxy = |id| anyhow::Ok(authority.issue_proxy(&name(FLEET)?, &name(id)?, CERTIFICATE_LIFE, now)?);
        Ok(Self {
            server: issue::write(&folder.join("tls"), &server)?,
            rate_limiter: issue::write(&folder.join("rate-limiter"), &limiter)?,
            proxy: issue::write(&folder.join("proxy"), &proxy(PROXY)?)?,
            sidecar: issue::write(&folder.join("sidecar"), &proxy(SIDECAR)?)?,
        })
    }
}

fn launch(binary: PathBuf, folder: &Folder, ports: &Ports, identity: &Identity) -> Result<Launch> {
    let bootstrap = bootstrap(PROXY, ports, &identity.proxy, Some(ports.envoy_admin))?;
    let config = write(folder.join("envoy.json"), &bootstrap)?;
    Ok(Launch { binary, config, log: folder.join("envoy.log") })
}

/// What a proxy of the fleet starts with.
fn bootstrap(id: &str, ports: &Ports, files: &issue::IdentityFiles, admin: Option<SocketAddr>) -> Result<Bootstrap> {
    let text = |path: &Path| path.display().to_string();
    Ok(Bootstrap {
        fleet: name(FLEET)?,
        id: name(id)?,
        xds_host: ports.xds.ip().to_string(),
        xds_port: ports.xds.port(),
        server_name: None,
        ca_file: text(&files.ca),
        certificate_file: text(&files.certificate),
        private_key_file: text(&files.private_key),
        labels: std::collections::BTreeMap::new(),
        zone: None,
        admin,
        protocol: Protocol::Delta,
        max_connections: DEFAULT_MAX_CONNECTIONS,
        secrets_dir: None,
        max_heap_bytes: None,
    })
}

fn write(path: PathBuf, bootstrap: &Bootstrap) -> Result<PathBuf> {
    let contents = serde_json::to_vec_pretty(&bootstrap.to_json())?;
    std::fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// How the user called this program, with what its other commands need to find this data folder.
fn program(data_dir: &Path) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "chancery".to_owned());
    if data_dir == Path::new(DEFAULT_DATA_DIR) {
        program
    } else {
        format!("CHANCERY_DATA_DIR={} {program}", data_dir.display())
    }
}

/// For people only, so it does not matter whether anybody listens.
fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn name(text: &str) -> Result<Name> {
    text.parse().with_context(|| format!("{text:?} is not a name"))
}
