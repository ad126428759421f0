//! A real Envoy, and what it says about itself.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, ExitStatus},
};

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::Value;

use crate::{
    bootstrap::{Proxy, dynamic},
    client::{Response, fetch, get, request},
    process::Process,
    wait::{PATIENCE, until},
};

/// A running Envoy. Dropping it kills it.
#[derive(Debug)]
pub struct Envoy {
    /// Its admin endpoint.
    pub admin: SocketAddr,
    process: Process,
}

impl Envoy {
    /// Starts `program` in `folder` with this bootstrap, which must put the admin endpoint on port 0 of 127.0.0.1. `name` tells
    /// its files there from those of others. Returns when the admin endpoint answers; configuration
    /// from elsewhere may still be on its way.
    pub async fn start(program: &Path, folder: &Path, name: &str, bootstrap: &Value) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["--concurrency", "2"]);
        Self::launch(command, folder, name, bootstrap).await
    }

    /// The same by a `command` of the caller's, which says on how many threads, and perhaps on which core.
    pub async fn launch(mut command: Command, folder: &Path, name: &str, bootstrap: &Value) -> Result<Self> {
        let config = folder.join(format!("{name}.json"));
        let admin_file = folder.join(format!("{name}.admin"));
        fs::write(&config, serde_json::to_vec_pretty(bootstrap)?)?;
        if admin_file.exists() {
            fs::remove_file(&admin_file)?;
        }
        command
            .current_dir(folder)
            .args(["--disable-hot-restart", "--log-level", "info"])
            .arg("--config-path")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&admin_file);
        let mut process = Process::spawn(name, command, folder)?;
        let what = format!("{name} has an admin endpoint");
        let admin = until(&what, PATIENCE, async || {
            ensure!(process.is_running(), "it ended: {}", process.log());
            let address: SocketAddr = fs::read_to_string(&admin_file)?.trim().parse()?;
            fetch(address, get("admin", "/server_info")).await?;
            Ok(address)
        })
        .await?;
        Ok(Self { admin, process })
    }

    /// Starts it in `folder` as `proxy`, which waits until it serves what its control plane says.
    pub async fn of(program: &Path, folder: &Path, proxy: &Proxy<'_>) -> Result<Self> {
        let name = format!("envoy-{}-{}", proxy.fleet, proxy.id);
        let envoy = Self::start(program, folder, &name, &dynamic(proxy)?).await?;
        envoy.live().await?;
        Ok(envoy)
    }

    /// Waits until it has taken its first configuration and serves.
    pub async fn live(&self) -> Result<()> {
        until("Envoy is live", PATIENCE, async || {
            let ready = self.ask("/ready").await?;
            ensure!(ready.status == 200, "it is {}", ready.text().trim());
            Ok(())
        })
        .await
    }

    /// Every counter and gauge whose name matches `filter`, a regular expression.
    pub async fn stats(&self, filter: &str) -> Result<BTreeMap<String, u64>> {
        let escaped = filter.replace('\\', "%5C").replace('^', "%5E").replace('|', "%7C");
        let text = self.ask(&format!("/stats?filter={escaped}")).await?.text();
        // Histograms and text readings have no number here.
        let numbers = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Ok(numbers.collect())
    }

    /// One counter or gauge; 0 when Envoy does not know it yet.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        let all = self.stats(&format!("^{}$", name.replace('.', "\\."))).await?;
        Ok(all.get(name).copied().unwrap_or(0))
    }

    /// Waits until a counter or gauge is as wanted, and returns it.
    pub async fn wait_for_stat(&self, name: &str, wanted: impl Fn(u64) -> bool) -> Result<u64> {
        until(&format!("Envoy's stat {name} is as wanted"), PATIENCE, async || {
            let value = self.stat(name).await?;
            ensure!(wanted(value), "it is {value}");
            Ok(value)
        })
        .await
    }

    /// The whole configuration it holds, endpoints included.
    pub async fn config_dump(&self) -> Result<Value> {
        self.ask("/config_dump?include_eds").await?.json()
    }

    /// `GET` on the admin endpoint.
    pub async fn ask(&self, path: &str) -> Result<Response> {
        fetch(self.admin, get("admin", path)).await.with_context(|| format!("Envoy's admin endpoint, {path}"))
    }

    /// `POST` on the admin endpoint, which is how Envoy is told things.
    pub async fn tell(&self, path: &str) -> Result<Response> {
        let response = fetch(self.admin, request(Method::POST, "admin", path, &[])).await?;
        ensure!(response.status == 200, "{path}: {} {}", response.status, response.text());
        Ok(response)
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// What it has written to its standard output.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends it in order.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.terminate(PATIENCE).await
    }
}
