//! Who is compared: how each is started, under one configuration, and what it holds.

use std::{
    env, fmt, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    bootstrap::{Protocol as XdsProtocol, Proxy, dynamic},
    certificates::Authority,
    client::{Connection, fetch, get},
    control_plane::ControlPlane,
    document::{fleet, listener, route, service_with},
    envoy::Envoy,
    port::free_port,
    process::{Process, own_program},
    usage,
    wait::{PATIENCE, until},
};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use super::case::{BODY, Protocol};
use crate::cores::{LOAD_CORE, SERVER_CORE, move_to, on_core};

/// The fleet of those that take their configuration over xDS.
const FLEET: &str = "edge";

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Subject {
    /// The upstream itself, without a proxy
    Direct,
    /// A bare hyper proxy
    Floor,
    /// Chancery's sidecar
    Sidecar,
    /// Envoy 1.40, with what the sidecar is told
    Envoy,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Floor => "floor",
            Self::Sidecar => "sidecar",
            Self::Envoy => "envoy",
        })
    }
}

/// What all of them share, and what outlives them: the upstream, and the control plane that configures sidecar and Envoy.
pub(super) struct Site {
    control_plane: ControlPlane,
    authority: Authority,
    /// Of the upstream: two endpoints, so that there is a choice to make.
    endpoints: [SocketAddr; 2],
    /// Where the fleet's listener is; the sidecar has its own port.
    listener: SocketAddr,
    envoy: Option<PathBuf>,
    pinned: bool,
    upstream: Process,
    // Last, so that it outlives whoever has files in it.
    folder: tempfile::TempDir,
}

impl Site {
    /// Starts what is shared, on the load's core.
    pub(super) async fn start(pinned: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let load_core = pinned.then_some(LOAD_CORE);
        let endpoints = [local(), local()];
        let upstream = serve(load_core, &endpoints, &[], "upstream", folder.path())?;
        let authority = Authority::create(folder.path(), "authority")?;
        let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
        if pinned {
            move_to(LOAD_CORE, control_plane.pid())?;
        }
        let listener = local();
        control_plane.caller().apply(&resources(listener, &endpoints)).await?;
        let envoy = chancery_e2e::required::envoy();
        Ok(Self { control_plane, authority, endpoints, listener, envoy, pinned, upstream, folder })
    }

    /// The program, if there is one.
    pub(super) fn envoy(&self) -> Option<&Path> {
        self.envoy.as_deref()
    }

    /// CPU time that the upstream has used.
    pub(super) fn upstream_cpu(&self) -> Result<std::time::Duration> {
        usage::cpu(self.upstream.pid())
    }

    fn core(&self) -> Option<&'static str> {
        self.pinned.then_some(SERVER_CORE)
    }

    fn proxy<'a>(&'a self, id: &'a str) -> Proxy<'a> {
        let (xds, authority) = (self.control_plane.xds, &self.authority);
        Proxy { fleet: FLEET, id, protocol: XdsProtocol::Delta, xds, authority }
    }

    /// Starts a subject and waits until it answers in this protocol.
    pub(super) async fn subject(&self, subject: Subject, protocol: Protocol) -> Result<Running> {
        let folder = self.folder.path().join(subject.to_string());
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        let mut running = match subject {
            Subject::Direct => Running { address: self.endpoints[0], host: Host::Nobody },
            Subject::Floor => {
                let address = local();
                let to = self.endpoints[0].to_string();
                let more: &[&str] = if protocol.is_http2() { &["--to", &to, "--http2"] } else { &["--to", &to] };
                Running { address, host: Host::Process(serve(self.core(), &[address], more, "floor", &folder)?) }
            }
            Subject::Sidecar => self.sidecar(&folder).await?,
            Subject::Envoy => {
                let program = self.envoy().context("Envoy 1.40 is not on this machine")?;
                let mut command = on_core(self.core(), program);
                command.args(["--concurrency", "1"]);
                let envoy = Envoy::launch(command, &folder, "envoy", &dynamic(&self.proxy("envoy"))?).await?;
                envoy.live().await?;
                Running { address: self.listener, host: Host::Envoy(envoy) }
            }
        };
        let what = format!("{subject} answers");
        let answers = until(&what, PATIENCE, async || {
            running.is_alive()?;
            running.answers(protocol).await
        });
        answers.await?;
        Ok(running)
    }

    /// The sidecar as an operator would run it, but on one worker thread.
    async fn sidecar(&self, folder: &Path) -> Result<Running> {
        let bootstrap = folder.join("sidecar.json");
        fs::write(&bootstrap, dynamic(&self.proxy("sidecar"))?.to_string())?;
        let mut command = on_core(self.core(), &own_program("chancery-sidecar")?);
        command.arg("--bootstrap").arg(bootstrap).arg("--insecure").env("TOKIO_WORKER_THREADS", "1");
        for flag in ["--inbound-addr", "--outbound-addr", "--admin-addr"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        let mut process = Process::spawn("sidecar", command, folder)?;
        let ready = process.ready(PATIENCE).await?;
        let outbound = ready["outbound"].as_str().context("the ready line names no outbound port")?;
        Ok(Running { address: outbound.parse()?, host: Host::Process(process) })
    }
}

fn local() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// This program as a server.
fn serve(core: Option<&str>, at: &[SocketAddr], more: &[&str], name: &str, folder: &Path) -> Result<Process> {
    let mut command = on_core(core, &env::current_exe()?);
    command.arg("serve-http").args(more);
    for address in at {
        command.args(["--address", &address.to_string()]);
    }
    Process::spawn(name, command, folder)
}

/// What sidecar and Envoy are told: a host for each protocol, with a deadline, retries, limits and outlier detection. Limits are too
/// high to be reached.
fn resources(at: SocketAddr, endpoints: &[SocketAddr]) -> Vec<Value> {
    let mut resources = vec![fleet(FLEET), listener("web", FLEET, at.port())];
    for (protocol, name) in [(Protocol::Http1, "http1"), (Protocol::Http2, "http2")] {
        let more = json!({
            "protocol": name,
            "loadBalancing": "least-request",
            "breaker": { "maxConnections": 5_000, "maxRequests": 5_000, "maxPending": 5_000 },
            "outlierDetection": { "consecutive5xx": 5 },
        });
        let rules = json!([{
            "match": { "path": { "prefix": "/" } },
            "to": [{ "service": name }],
            "timeout": "10s",
            "retry": { "on": ["5xx", "reset", "connect-failure"], "attempts": 2 },
        }]);
        resources.extend([service_with(name, endpoints, more), route(name, protocol.host(), &rules)]);
    }
    resources
}

/// A subject that runs. Dropping it ends it.
pub(super) struct Running {
    /// Where it takes requests.
    pub(super) address: SocketAddr,
    host: Host,
}

/// By what it runs.
enum Host {
    /// By the upstream, which is there anyway.
    Nobody,
    Process(Process),
    Envoy(Envoy),
}

impl Running {
    /// Its process, if it has one of its own.
    pub(super) fn pid(&self) -> Option<u32> {
        match &self.host {
            Host::Nobody => None,
            Host::Process(process) => Some(process.pid()),
            Host::Envoy(envoy) => Some(envoy.pid()),
        }
    }

    fn is_alive(&mut self) -> Result<()> {
        if let Host::Process(process) = &mut self.host {
            ensure!(process.is_running(), "it ended: {}", process.log());
        }
        Ok(())
    }

    /// Asks once, whether it passes on what the upstream says.
    pub(super) async fn answers(&self, protocol: Protocol) -> Result<()> {
        let answer = fetch(self.address, get(protocol.host(), "/")).await?;
        ensure!(answer.status == 200 && answer.body.len() == BODY, "{} {}", answer.status, answer.text());
        Ok(())
    }

    /// Opens so many connections of HTTP/1.1, each of which has been of use once.
    pub(super) async fn occupied(&self, connections: usize) -> Result<Vec<Connection>> {
        let mut open = Vec::with_capacity(connections);
        for _ in 0..connections {
            let mut connection = Connection::open(self.address).await?;
            let answer = connection.send(get(Protocol::Http1.host(), "/")).await?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            open.push(connection);
        }
        Ok(open)
    }
}
