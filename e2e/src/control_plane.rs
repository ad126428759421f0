//! The control plane as a process of its own, as an operator would run it: all from flags and files.
//!
//! Its command line is known here and nowhere else in the tests.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    api::Api,
    certificates::Authority,
    client::{fetch, get},
    clock::Clock,
    process::{Process, own_program},
    wait::PATIENCE,
};

/// The token of the administrator in tests.
pub const ADMIN_TOKEN: &str = "an-admin-token-for-tests-only-0123456789";

/// A control plane. Dropping it kills it.
#[derive(Debug)]
pub struct ControlPlane {
    /// Where it serves the API.
    pub api: SocketAddr,
    /// Where it serves xDS.
    pub xds: SocketAddr,
    /// Where it tells of its health and metrics.
    pub admin: SocketAddr,
    settings: Settings,
    process: Process,
}

#[derive(Clone, Debug)]
struct Settings {
    name: String,
    folder: PathBuf,
    database: String,
    files: Vec<(&'static str, PathBuf)>,
    /// Whatever else a test sets.
    more: Vec<String>,
    environment: Vec<(String, String)>,
}

impl ControlPlane {
    /// Starts one on ports of the system's choice, with certificates of `authority`. `name` tells its files in
    /// `folder` from those of other replicas.
    pub async fn start(folder: &Path, name: &str, database: &str, authority: &Authority) -> Result<Self> {
        Self::start_with(folder, name, database, authority, &[]).await
    }

    /// As [`ControlPlane::start`], with these arguments too.
    pub async fn start_with(
        folder: &Path,
        name: &str,
        database: &str,
        authority: &Authority,
        arguments: &[&str],
    ) -> Result<Self> {
        let server = authority.server()?;
        let token = folder.join("admin.token");
        fs::write(&token, ADMIN_TOKEN)?;
        let files = vec![
            ("--tls-cert", server.certificate),
            ("--tls-key", server.key),
            ("--client-ca", authority.file()),
            ("--admin-token-file", token),
            ("--data-dir", folder.join(name)),
        ];
        let settings = Settings {
            name: name.to_owned(),
            folder: folder.to_owned(),
            database: database.to_owned(),
            files,
            more: arguments.iter().copied().map(str::to_owned).collect(),
            environment: Vec::new(),
        };
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::spawn(settings, [anywhere; 3]).await
    }

    /// One with SQLite in `folder`.
    pub async fn start_alone(folder: &Path, authority: &Authority) -> Result<Self> {
        let database = format!("sqlite://{}", folder.join("chancery.db").display());
        Self::start(folder, "control-plane", &database, authority).await
    }

    async fn spawn(settings: Settings, addresses: [SocketAddr; 3]) -> Result<Self> {
        let mut command = Command::new(own_program("chancery-control-plane")?);
        command.arg("--database").arg(&settings.database);
        for (flag, address) in ["--api-addr", "--xds-addr", "--admin-addr"].iter().zip(addresses) {
            command.arg(flag).arg(address.to_string());
        }
        for (flag, file) in &settings.files {
            command.arg(flag).arg(file);
        }
        command.args(&settings.more).envs(settings.environment.iter().cloned());
        let mut process = Process::spawn(&settings.name, command, &settings.folder)?;
        let ready = process.ready(PATIENCE).await?;
        let [api, xds, admin] = ["api", "xds", "admin"].map(|part| address_in(&ready, part));
        Ok(Self { api: api?, xds: xds?, admin: admin?, settings, process })
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it in order.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.terminate(PATIENCE).await
    }

    /// Starts it once more with the same settings, on the same ports. It must have ended.
    pub async fn start_again(&mut self) -> Result<()> {
        *self = Self::spawn(self.settings.clone(), [self.api, self.xds, self.admin]).await?;
        Ok(())
    }

    /// Ends it at once and starts it once more on the same ports, with these arguments too.
    pub async fn start_again_with(&mut self, arguments: &[&str]) -> Result<()> {
        self.kill();
        self.settings.more = arguments.iter().copied().map(str::to_owned).collect();
        self.start_again().await
    }

    /// Ends it at once and starts it once more on the same ports, by this clock.
    pub async fn start_again_by(&mut self, clock: &Clock) -> Result<()> {
        self.kill();
        self.settings.environment = clock.environment();
        self.start_again().await
    }

    /// A caller of its API, as administrator.
    pub fn caller(&self) -> Api {
        Api::new(self.api, ADMIN_TOKEN)
    }

    /// A metric by its name, as the sum over its labels if none are given; 0 if nothing was counted yet.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let metrics = fetch(self.admin, get("admin", "/metrics")).await?.text();
        let of_name = |line: &str| {
            let rest = line.strip_prefix(name)?;
            if !rest.starts_with(['{', ' ']) {
                return None;
            }
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        };
        Ok(metrics.lines().filter_map(of_name).sum())
    }

    /// Its log, of all its lives.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

fn address_in(ready: &Value, part: &str) -> Result<SocketAddr> {
    let text = ready[part].as_str().with_context(|| format!("the ready line names no {part}: {ready}"))?;
    text.parse().with_context(|| format!("{part} is no address: {text}"))
}
