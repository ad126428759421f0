//! `chancery dev` as a newcomer runs it: everything comes up, the demo works, data outlives it, nothing else does.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    api::Api,
    client::{fetch, get},
    document::route_saying,
    process::{Process, own_program},
    required,
    wait::until,
};
use serde_json::Value;

/// Time for a first start: certificates, database, Envoy.
const START: Duration = Duration::from_secs(30);

/// Time for an end, children included.
const END: Duration = Duration::from_secs(15);

/// Ports that `dev` uses without an offset.
const PORTS: [u16; 7] = [8080, 18000, 9900, 10000, 9901, 10081, 10082];

struct Dev {
    process: Process,
    facts: Value,
}

impl Dev {
    async fn start(folder: &Path, offset: u16, more: &[&str]) -> Result<Self> {
        let data = folder.join("data");
        let mut command = Command::new(own_program("chancery")?);
        command.arg("dev").arg("--data-dir").arg(&data).args(["--port-offset", &offset.to_string()]).args(more);
        if let Some(envoy) = required::envoy() {
            command.env("CHANCERY_ENVOY", envoy);
        }
        let mut process = Process::spawn("dev", command, folder)?;
        let facts = until("chancery dev is ready", START, async || {
            ensure!(process.is_running(), "it ended:\n{}\n{}", process.output(), process.log());
            let facts: Value = serde_json::from_slice(&fs::read(data.join("dev.json"))?)?;
            ensure!(facts["ready"] == true, "{facts}");
            Ok(facts)
        })
        .await?;
        Ok(Self { process, facts })
    }

    fn text(&self, field: &str) -> Result<&str> {
        self.facts[field].as_str().with_context(|| format!("dev.json has no {field}: {}", self.facts))
    }

    fn address(&self, field: &str) -> Result<SocketAddr> {
        let text = self.text(field)?;
        Ok(text.trim_start_matches("http://").trim_start_matches("https://").parse()?)
    }

    fn api(&self) -> Result<Api> {
        Ok(Api::new(self.address("apiUrl")?, self.text("adminToken")?))
    }

    fn children(&self) -> Vec<u64> {
        let mut pids = Vec::new();
        numbers_in(&self.facts["pids"], &mut pids);
        pids
    }

    /// Ends it as Ctrl-C does, and waits until its children are gone too.
    async fn interrupt(mut self) -> Result<()> {
        let (pids, data) = (self.children(), self.process.output());
        self.process.signal(libc::SIGINT)?;
        until("chancery dev and its children end", END, async || {
            ensure!(!self.process.is_running(), "it still runs; it said {data}");
            for pid in &pids {
                ensure!(!is_alive(*pid), "process {pid} still runs");
            }
            Ok(())
        })
        .await
    }
}

fn numbers_in(value: &Value, found: &mut Vec<u64>) {
    match value {
        Value::Number(number) => found.extend(number.as_u64()),
        Value::Array(items) => items.iter().for_each(|item| numbers_in(item, found)),
        Value::Object(fields) => fields.values().for_each(|item| numbers_in(item, found)),
        _ => {}
    }
}

/// Whether a process is there and not just waiting to be collected.
fn is_alive(pid: u64) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// An offset at which no port of `dev` is taken.
fn free_offset(start: u16) -> Result<u16> {
    let free = |offset: &u16| PORTS.iter().all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port + offset)).is_ok());
    (start..start + 2000).step_by(37).find(free).context("no offset is free")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_five_minutes() -> Result<()> {
    if required::envoy().is_none() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let offset = free_offset(3000)?;
    let dev = Dev::start(folder.path(), offset, &[]).await?;
    for (field, port) in [("apiUrl", 8080), ("xdsAddress", 18000), ("adminUrl", 9900), ("envoyListener", 10000)] {
        assert_eq!(dev.address(field)?.port(), port + offset, "{field}");
    }
    assert_eq!((dev.text("fleet")?, dev.text("proxyId")?), ("edge", "dev-1"));
    assert!(dev.text("envoyVersion")?.contains("1.40"));
    for file in ["caFile", "clientCertFile", "clientKeyFile"] {
        assert!(Path::new(dev.text(file)?).is_file(), "{file}");
    }

    // The demo route, in the first rule that has a path, leads somewhere.
    let (api, web) = (dev.api()?, dev.address("envoyListener")?);
    let routes = api.read("/api/v1/routes").await?;
    let host = routes["items"][0]["spec"]["hosts"][0].as_str().context("there is a demo route")?.replace('*', "demo");
    assert_eq!(fetch(web, get(&host, "/")).await?.status, 200);
    assert_eq!(fetch(dev.address("adminUrl")?, get("admin", "/readyz")).await?.status, 200);

    api.put_and_wait(&route_saying("mine", "mine.example.com", "my own")).await?;
    assert_eq!(fetch(web, get("mine.example.com", "/")).await?.text(), "my own");
    dev.interrupt().await?;
    assert!(!folder.path().join("data/dev.json").exists(), "dev.json outlives what it describes");

    let begun = Instant::now();
    let again = Dev::start(folder.path(), offset, &[]).await?;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "the second start took {took:?}");
    let web = again.address("envoyListener")?;
    until("the edit of the first run is served", END, async || {
        let response = fetch(web, get("mine.example.com", "/")).await?;
        ensure!(response.text() == "my own", "{} {}", response.status, response.text());
        Ok(())
    })
    .await?;
    again.interrupt().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_run_side_by_side() -> Result<()> {
    if required::envoy().is_none() {
        return Ok(());
    }
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
    let first = Dev::start(folders[0].path(), free_offset(3000)?, &[]).await?;
    let second = Dev::start(folders[1].path(), free_offset(5500)?, &[]).await?;
    first.api()?.put_and_wait(&route_saying("mine", "mine.example.com", "first")).await?;
    assert_eq!(fetch(second.address("envoyListener")?, get("mine.example.com", "/")).await?.status, 404);
    first.interrupt().await?;
    assert_eq!(second.api()?.read("/api/v1/proxies").await?["items"][0]["connected"], true);
    second.interrupt().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_envoy_everything_else_is_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dev = Dev::start(folder.path(), free_offset(3000)?, &["--no-envoy"]).await?;
    assert!(dev.api()?.read("/api/v1/fleets").await?["items"].as_array().is_some_and(|items| !items.is_empty()));
    dev.interrupt().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn even_a_crash_leaves_no_envoy_behind() -> Result<()> {
    if required::envoy().is_none() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let offset = free_offset(3000)?;
    let mut dev = Dev::start(folder.path(), offset, &[]).await?;
    let children = dev.children();
    dev.process.kill();
    until("its children end", END, async || {
        for pid in &children {
            ensure!(!is_alive(*pid), "process {pid} outlives it");
        }
        Ok(())
    })
    .await?;
    // The left-over dev.json must not be taken for the new one: it is written anew, with the new processes.
    let again = Dev::start(folder.path(), offset, &[]).await?;
    until("dev.json is of this run", START, async || {
        let facts: Value = serde_json::from_slice(&fs::read(folder.path().join("data/dev.json"))?)?;
        let mut pids = Vec::new();
        numbers_in(&facts["pids"], &mut pids);
        ensure!(!pids.is_empty() && pids.iter().all(|pid| is_alive(*pid)), "{facts}");
        Ok(())
    })
    .await?;
    again.interrupt().await
}
