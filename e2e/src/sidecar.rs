//! A sidecar as a process of its own, as an operator would run it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    bootstrap::{Protocol, Proxy, dynamic},
    certificates::Authority,
    client::{fetch, get},
    process::{Process, own_program},
    wait::{PATIENCE, until},
};

/// A sidecar of the fleet `edge`. Dropping it kills it.
#[derive(Debug)]
pub struct Sidecar {
    /// Where others reach the application.
    pub inbound: SocketAddr,
    /// Where the application reaches others.
    pub outbound: SocketAddr,
    /// Where it tells of its health, metrics and configuration.
    pub admin: SocketAddr,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    folder: PathBuf,
    name: String,
    process: Process,
}

impl Sidecar {
    /// Starts one that takes plaintext from others, and its configuration from `xds`.
    pub async fn start(
        folder: &Path,
        name: &str,
        authority: &Authority,
        xds: SocketAddr,
        more: &[&str],
    ) -> Result<Self> {
        Self::start_in(folder, name, authority, xds, more, &[]).await
    }

    /// The same, with these variables in its environment.
    pub async fn start_in(
        folder: &Path,
        name: &str,
        authority: &Authority,
        xds: SocketAddr,
        more: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        // The file with which an Envoy would start.
        let proxy = Proxy { fleet: "edge", id: name, protocol: Protocol::Delta, xds, authority };
        let file = folder.join(format!("{name}.json"));
        fs::write(&file, dynamic(&proxy)?.to_string())?;
        let mut arguments = vec!["--bootstrap".to_owned(), file.display().to_string()];
        arguments.extend(more.iter().map(|&argument| argument.to_owned()));
        let variables = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self::spawn(folder, name, arguments, variables).await
    }

    async fn spawn(
        folder: &Path,
        name: &str,
        arguments: Vec<String>,
        variables: Vec<(String, String)>,
    ) -> Result<Self> {
        let mut command = Command::new(own_program("chancery-sidecar")?);
        for flag in ["--inbound-addr", "--outbound-addr", "--admin-addr"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        command.args(&arguments).envs(variables.iter().cloned());
        let mut process = Process::spawn(name, command, folder)?;
        let ready = process.ready(PATIENCE).await?;
        let address = |part: &str| -> Result<SocketAddr> {
            let text = ready[part].as_str().with_context(|| format!("the ready line names no {part}: {ready}"))?;
            Ok(text.parse()?)
        };
        Ok(Self {
            inbound: address("inbound")?,
            outbound: address("outbound")?,
            admin: address("admin")?,
            arguments,
            variables,
            folder: folder.to_owned(),
            name: name.to_owned(),
            process,
        })
    }

    /// Waits until it has a configuration.
    pub async fn ready(&self) -> Result<()> {
        until("the sidecar is ready", PATIENCE, async || {
            let answer = fetch(self.admin, get("admin", "/readyz")).await?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            Ok(())
        })
        .await
    }

    /// Waits until it says that it is about to end.
    pub async fn not_ready(&self) -> Result<()> {
        until("the sidecar is not ready", PATIENCE, async || {
            let answer = fetch(self.admin, get("admin", "/readyz")).await?;
            ensure!(answer.status == 503, "{}", answer.status);
            Ok(())
        })
        .await
    }

    /// A page of its admin port, as JSON.
    pub async fn page(&self, path: &str) -> Result<Value> {
        fetch(self.admin, get("admin", path)).await?.json()
    }

    /// Its metrics.
    pub async fn metrics(&self) -> Result<String> {
        Ok(fetch(self.admin, get("admin", "/metrics")).await?.text())
    }

    /// Ends it at once and starts it once more, with the same arguments, on other ports.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process.kill();
        *self = Self::spawn(&self.folder, &self.name, self.arguments.clone(), self.variables.clone()).await?;
        Ok(())
    }

    /// Asks it to end.
    pub fn ask_to_end(&self) -> Result<()> {
        self.process.signal(libc::SIGTERM)
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> Result<()> {
        until("the sidecar ends", PATIENCE, async || {
            ensure!(!self.process.is_running(), "it still runs");
            Ok(())
        })
        .await
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its log, of all its lives.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
