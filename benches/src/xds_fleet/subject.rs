//! The servers that are measured, each as a process of its own with the same catalog.

use std::{
    env, fmt, fs,
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    certificates::Authority,
    client::{fetch, request},
    control_plane::ControlPlane,
    process::Process,
    scripted::{called, fill, filled},
};
use http::Method;
use serde::Serialize;

/// How long the peer may take to start.
const START: Duration = Duration::from_secs(60);

/// The service whose endpoint is changed by itself.
pub(super) const CHANGED: usize = 0;

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Subject {
    Chancery,
    /// What a server on tonic costs that decides nothing.
    Tonic,
    /// The same on TLS and HTTP/2 alone.
    Http2,
    Snapshot,
    Linear,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chancery => "Chancery",
            Self::Tonic => "bare tonic",
            Self::Http2 => "bare HTTP/2",
            Self::Snapshot => "go-control-plane, snapshot cache",
            Self::Linear => "go-control-plane, linear cache",
        })
    }
}

/// A server that runs.
pub(super) enum Server {
    Ours(ControlPlane),
    Peer(Peer),
}

/// The peer, and how to start it once more.
pub(super) struct Peer {
    process: Process,
    command: PeerCommand,
    xds: SocketAddr,
    control: SocketAddr,
    /// The last edit before its restart: what to change, as it is told.
    edited: Option<String>,
}

/// How the peer is started.
#[derive(Clone)]
pub(super) struct PeerCommand {
    pub(super) program: PathBuf,
    pub(super) subject: Subject,
    pub(super) resources: PathBuf,
    pub(super) authority: PathBuf,
    pub(super) identity: chancery_e2e::certificates::Identity,
    pub(super) folder: PathBuf,
}

impl Server {
    /// Ours, with a catalog of so many services and routes on one listener.
    pub(super) async fn ours(folder: &Path, authority: &Authority, services: usize, routes: usize) -> Result<Self> {
        let control_plane = ControlPlane::start_alone(folder, authority).await?;
        fill(&control_plane.caller(), services, routes).await?;
        Ok(Self::Ours(control_plane))
    }

    /// The peer, with the resources in a file.
    pub(super) async fn peer(command: PeerCommand) -> Result<Self> {
        Ok(Self::Peer(command.start(SocketAddr::from(([127, 0, 0, 1], 0))).await?))
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        match self {
            Self::Ours(control_plane) => control_plane.pid(),
            Self::Peer(peer) => peer.process.pid(),
        }
    }

    /// Where it serves xDS.
    pub(super) fn xds(&self) -> SocketAddr {
        match self {
            Self::Ours(control_plane) => control_plane.xds,
            Self::Peer(peer) => peer.xds,
        }
    }

    /// Moves the endpoints of services to another port, all in one edit.
    pub(super) async fn edit(&mut self, services: Range<usize>, port: u16) -> Result<()> {
        match self {
            Self::Ours(control_plane) => {
                let moved: Vec<_> = services.map(|number| filled(number, port)).collect();
                control_plane.caller().apply(&moved).await.map(drop)
            }
            Self::Peer(peer) => {
                let names: Vec<String> = services.map(called).collect();
                peer.edit(format!("names={}&port={port}", names.join(","))).await
            }
        }
    }

    /// Ends it at once and starts it once more at the same place.
    pub(super) async fn restart(&mut self) -> Result<()> {
        match self {
            Self::Ours(control_plane) => {
                control_plane.kill();
                control_plane.start_again().await
            }
            Self::Peer(peer) => {
                peer.process.kill();
                let edited = peer.edited.take();
                *peer = peer.command.clone().start(peer.xds).await?;
                // It has no database.
                match edited {
                    Some(edited) => peer.edit(edited).await,
                    None => Ok(()),
                }
            }
        }
    }
}

impl Peer {
    async fn edit(&mut self, query: String) -> Result<()> {
        let answer = fetch(self.control, request(Method::POST, "peer", &format!("/edit?{query}"), &[])).await?;
        ensure!(answer.status == 200, "the peer answers {} {}", answer.status, answer.text());
        self.edited = Some(query);
        Ok(())
    }
}

impl PeerCommand {
    async fn start(self, at: SocketAddr) -> Result<Peer> {
        let mut command = Command::new(&self.program);
        let how: &[&str] = match self.subject {
            Subject::Chancery => &[],
            Subject::Tonic => &["serve-xds", "--on", "tonic"],
            Subject::Http2 => &["serve-xds", "--on", "http2"],
            Subject::Snapshot => &["--cache", "snapshot"],
            Subject::Linear => &["--cache", "linear"],
        };
        command.args(how).args(["--xds-addr", &at.to_string()]);
        let Self { resources, authority, identity, .. } = &self;
        for (flag, file) in [
            ("--resources", resources),
            ("--client-ca", authority),
            ("--tls-cert", &identity.certificate),
            ("--tls-key", &identity.key),
        ] {
            command.arg(flag).arg(file);
        }
        let mut process = Process::spawn("peer", command, &self.folder)?;
        let ready = process.ready(START).await?;
        let address = |part: &str| ready[part].as_str().and_then(|text| text.parse().ok()).context("no address");
        Ok(Peer { xds: address("xds")?, control: address("control")?, process, command: self, edited: None })
    }
}

/// The program that serves as `subject`, if it is there: the floors are in this one, the peer where `scripts/setup bench`
/// leaves it.
pub(super) fn program(subject: Subject) -> Option<PathBuf> {
    let found = match subject {
        Subject::Chancery | Subject::Tonic | Subject::Http2 => env::current_exe(),
        Subject::Snapshot | Subject::Linear => fs::canonicalize(".dev/go-control-plane/xds"),
    };
    found.ok().filter(|program| program.is_file())
}
