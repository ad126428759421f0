//! `chancery dev` as a process, with what its `dev.json` says.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    api::Api,
    client::{Response, fetch, get},
    process::{Process, own_program},
    required,
    wait::until,
};

/// Time for a first start: certificates, database, Envoy.
pub const START: Duration = Duration::from_secs(30);

/// Time for an end, children included.
pub const END: Duration = Duration::from_secs(15);

/// The path of the demo that has a limit.
pub const LIMITED: &str = "/limited";

/// Ports that it uses without an offset.
const PORTS: [u16; 18] = [
    8080, 18000, 9900, 8081, 6070, 10000, 9901, 10081, 10082, 15006, 15001, 15020, 10083, 10084, 10085, 10093, 10094,
    10095,
];

/// A running `chancery dev`. Dropping it kills it.
#[derive(Debug)]
pub struct Dev {
    /// The program.
    pub process: Process,
    /// What `dev.json` said when it was ready.
    pub facts: Value,
    data: PathBuf,
}

impl Dev {
    /// Starts it with its data in `folder`, with these flags too; returns once it is ready.
    pub async fn start(folder: &Path, offset: u16, more: &[&str]) -> Result<Self> {
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
        Ok(Self { process, facts, data })
    }

    /// The folder with its data.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A field of `dev.json`.
    pub fn text(&self, field: &str) -> Result<&str> {
        self.facts[field].as_str().with_context(|| format!("dev.json has no {field}: {}", self.facts))
    }

    /// An address in `dev.json`.
    pub fn address(&self, field: &str) -> Result<SocketAddr> {
        let text = self.text(field)?;
        Ok(text.trim_start_matches("http://").trim_start_matches("https://").parse()?)
    }

    /// Its API, as the admin.
    pub fn api(&self) -> Result<Api> {
        Ok(Api::new(self.address("apiUrl")?, self.text("adminToken")?))
    }

    /// Who is connected and has refused nothing.
    pub async fn well(&self) -> Result<Vec<String>> {
        let proxies = self.api()?.read("/api/v1/proxies").await?;
        let proxies = proxies["items"].as_array().context("not a list of proxies")?.iter();
        let well = proxies.filter(|proxy| proxy["connected"] == true && proxy["lastRejection"].is_null());
        well.map(|proxy| Ok(proxy["id"].as_str().context("a proxy without id")?.to_owned())).collect()
    }

    /// The limits in force, by their names.
    pub async fn limits(&self) -> Result<Vec<(String, u64)>> {
        let answer = fetch(self.address("rateLimiterHttp")?, get("limiter", "/limits")).await?.json()?;
        let rules = answer["domains"].as_array().into_iter().flatten();
        let rules = rules.flat_map(|domain| domain["rules"].as_array().into_iter().flatten());
        let limit = |rule: &Value| Some((rule["path"].as_str()?.to_owned(), rule["limit"]["requests"].as_u64()?));
        rules.map(|rule| limit(rule).with_context(|| format!("not a rule: {rule}"))).collect()
    }

    /// Asks for the limited path until that is refused, `most` times. How often it was admitted, and the refusal.
    pub async fn until_refused(&self, most: usize) -> Result<(usize, Response)> {
        let web = self.address("envoyListener")?;
        for admitted in 0..most {
            let response = fetch(web, get("localhost", LIMITED)).await?;
            if response.status == 429 {
                return Ok((admitted, response));
            }
            ensure!(response.status == 200, "{} {}", response.status, response.text());
        }
        anyhow::bail!("{most} requests were admitted")
    }

    /// The processes of `dev.json`.
    pub fn children(&self) -> Vec<u64> {
        let mut pids = Vec::new();
        numbers_in(&self.facts["pids"], &mut pids);
        pids
    }

    /// Ends it as Ctrl-C does, and waits until its children are gone too.
    pub async fn interrupt(mut self) -> Result<()> {
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

/// Every number in `value`.
pub fn numbers_in(value: &Value, found: &mut Vec<u64>) {
    match value {
        Value::Number(number) => found.extend(number.as_u64()),
        Value::Array(items) => items.iter().for_each(|item| numbers_in(item, found)),
        Value::Object(fields) => fields.values().for_each(|item| numbers_in(item, found)),
        _ => {}
    }
}

/// Whether a process is there and not just waiting to be collected.
pub fn is_alive(pid: u64) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// An offset at which no port of `dev` is taken, and which no other test was given.
pub fn free_offset() -> Result<u16> {
    static NEXT: Mutex<u16> = Mutex::new(3_000);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    let free = |offset: &u16| PORTS.iter().all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port + offset)).is_ok());
    let offset = (*next..*next + 2_000).step_by(37).find(free).context("no offset is free")?;
    *next = offset + 37;
    Ok(offset)
}
