//! `chancery dev --chaos` as the README walks through it: one endpoint of three fails and nobody notices, its breaker can be watched,
//! and once it is healed it serves again.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    client::{Connection, fetch, get},
    demo::Control,
    dev::{Dev, free_offset},
    wait::until,
};
use serde_json::{Value, json};

const HOST: &str = "chaos.example.com";
const SERVICE: &str = "demo-chaos";

/// It is asked every five seconds after a failure, is out after two, and probed five to eight seconds later; and the machine is busy.
const SOON: Duration = Duration::from_secs(60);

/// A running demo, and one who asks it.
struct Scene {
    dev: Dev,
    failing: (SocketAddr, Control),
    caller: Connection,
    asked: u32,
    failed: u32,
}

impl Scene {
    async fn start(dev: Dev) -> Result<Self> {
        let chaos = dev.facts["chaos"].as_array().context("dev.json has no chaos")?;
        ensure!(chaos.len() == 3, "{}", dev.facts);
        let last = &chaos[2];
        let address = |field: &str| -> Result<SocketAddr> { Ok(last[field].as_str().context("no address")?.parse()?) };
        let failing = (address("address")?, Control(address("control")?));
        let caller = Connection::open(dev.address("sidecarOutbound")?).await?;
        Ok(Self { dev, failing, caller, asked: 0, failed: 0 })
    }

    /// One request, as the README sends it: who answers.
    async fn ask(&mut self) -> Result<String> {
        let answer = self.caller.send(get(HOST, "/")).await?;
        self.asked += 1;
        self.failed += u32::from(answer.status != 200);
        Ok(answer.text().lines().next().unwrap_or_default().to_owned())
    }

    /// The endpoint that fails, in the JSON of `/clusters`.
    async fn shown(&self) -> Result<Value> {
        let clusters = fetch(self.dev.address("sidecarAdmin")?, get("sidecar", "/clusters")).await?.json()?;
        let cluster = clusters["clusters"].as_array().into_iter().flatten().find(|one| one["name"] == SERVICE);
        let endpoints =
            cluster.and_then(|cluster| cluster["endpoints"].as_array()).context("it is not at /clusters")?;
        ensure!(endpoints.len() == 3, "{clusters}");
        let address = self.failing.0.to_string();
        endpoints.iter().find(|one| one["address"] == *address).cloned().context("it is not among the endpoints")
    }

    /// The words of its line in the table of `/clusters`.
    async fn line(&self) -> Result<Vec<String>> {
        let page = fetch(self.dev.address("sidecarAdmin")?, get("sidecar", "/clusters?format=text")).await?;
        ensure!(page.status == 200 && page.text().starts_with("CLUSTER "), "{} {}", page.status, page.text());
        let address = self.failing.0.to_string();
        let text = page.text();
        let line =
            text.lines().find(|line| line.contains(&address)).with_context(|| format!("no line for it\n{text}"))?;
        Ok(line.split_whitespace().map(str::to_owned).collect())
    }

    /// How often breakers of the service went over to this state.
    async fn transitions(&self, to: &str) -> Result<u64> {
        let metrics = fetch(self.dev.address("sidecarAdmin")?, get("sidecar", "/metrics")).await?.text();
        let of = format!("chancery_sidecar_breaker_transitions_total{{cluster=\"{SERVICE}\",to=\"{to}\"}} ");
        let count =
            metrics.lines().find_map(|line| line.strip_prefix(&of)).with_context(|| format!("{of} is not there"))?;
        Ok(count.parse()?)
    }

    /// Asks until the breaker is in this state.
    async fn until_asked(&mut self, state: &str) -> Result<()> {
        until(&format!("the breaker is {state}"), SOON, async || {
            self.ask().await?;
            let shown = self.shown().await?;
            ensure!(shown["breaker"] == state, "{shown}");
            Ok(())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_breaker_opens_is_probed_and_closes_and_no_caller_notices() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dev = Dev::start(folder.path(), free_offset()?, &["--no-envoy", "--chaos"]).await?;
    let mut scene = Scene::start(dev).await?;
    let failing = scene.failing.1;

    scene.until_asked("open").await?;
    let shown = scene.shown().await?;
    assert!(shown["standing"] == "out" && shown["outForMs"].as_u64().is_some_and(|ms| ms <= 7_500), "{shown}");
    let line = scene.line().await?;
    assert_eq!((line[0].as_str(), line[2].as_str(), line[4].as_str()), (SERVICE, "open", "s"), "{line:?}");
    // Two failures opened it; on a busy machine a probe may be among these already.
    let executed = failing.counted().await?.executions;
    assert!((2..=4).contains(&executed), "{executed} of {} were sent to it", scene.asked);

    until("it is half open, though nobody asks", SOON, async || {
        let shown = scene.shown().await?;
        ensure!(shown["breaker"] == "half-open" && shown["standing"] == "probe", "{shown}");
        Ok(())
    })
    .await?;
    assert_eq!(scene.line().await?[2], "half-open");
    let before = failing.counted().await?.executions;
    scene.ask().await?;
    let shown = scene.shown().await?;
    assert_eq!(shown["breaker"], "open", "it still fails: {shown}");
    assert_eq!(failing.counted().await?.executions, before + 1, "one request probes it");

    failing.fails(&json!({})).await?;
    scene.until_asked("closed").await?;
    until("it answers again", SOON, async || {
        let answered = scene.ask().await?;
        ensure!(answered == "demo-chaos-3", "{answered}");
        Ok(())
    })
    .await?;
    until("all of that is counted", SOON, async || {
        let counts = [scene.transitions("open").await?, scene.transitions("half-open").await?];
        ensure!(counts[0] >= 2 && counts[1] >= counts[0] && scene.transitions("closed").await? == 1, "{counts:?}");
        Ok(())
    })
    .await?;

    // In another way: nobody listens.
    failing.fails(&json!({ "faults": { "refuse": 1 } })).await?;
    scene.until_asked("open").await?;
    println!("{} of {} requests failed", scene.failed, scene.asked);
    assert!(scene.failed * 100 <= scene.asked, "{} of {} failed", scene.failed, scene.asked);
    scene.dev.interrupt().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_that_is_there_gets_it_when_asked_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dev = Dev::start(folder.path(), free_offset()?, &["--no-envoy"]).await?;
    assert!(dev.facts.get("chaos").is_none(), "{}", dev.facts);
    let path = format!("/api/v1/services/{SERVICE}");
    assert!(dev.api()?.read(&path).await.is_err());
    dev.interrupt().await?;

    let ports = async |offset: u16| -> Result<(u16, Vec<Value>)> {
        let dev = Dev::start(folder.path(), offset, &["--no-envoy", "--chaos"]).await?;
        let service = dev.api()?.read(&path).await?;
        let endpoints = service["spec"]["endpoints"].as_array().context("no endpoints")?;
        let ports = endpoints.iter().map(|endpoint| endpoint["port"].clone()).collect();
        let revision = u16::try_from(service["revision"].as_u64().context("no revision")?)?;
        let mut scene = Scene::start(dev).await?;
        let answered = scene.ask().await?;
        ensure!(answered.starts_with(SERVICE), "{answered}");
        scene.dev.interrupt().await?;
        Ok((revision, ports))
    };
    let offset = free_offset()?;
    let (first, at) = ports(offset).await?;
    assert_eq!(at, [10083, 10084, 10085].map(|port: u16| json!(port + offset)));
    assert_eq!(ports(offset).await?, (first, at), "it was written once");
    let elsewhere = free_offset()?;
    assert_eq!(ports(elsewhere).await?.1, [10083, 10084, 10085].map(|port: u16| json!(port + elsewhere)));
    Ok(())
}
