//! `chancery dev` as a newcomer runs it: everything comes up, the demo works, data outlives it, nothing else does.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    client::{fetch, get},
    dev::{Dev, END, LIMITED, START, free_offset, is_alive, numbers_in},
    document::{resource, route_saying},
    raw,
    redis::Redis,
    required,
    wait::until,
};
use http::Method;
use serde_json::{Value, json};

/// Who takes its configuration over xDS.
const LIMITER: &str = "dev";
const ENVOY: &str = "dev-1";
const SIDECAR: &str = "dev-sidecar";

/// The limit of the demo, and how it appears among the rules in force.
const LIMIT: &str = "demo-per-client";
const RULE: &str = "edge.chancery.limit_demo-per-client.remote_address";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_five_minutes() -> Result<()> {
    if required::envoy().is_none() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let offset = free_offset()?;
    let dev = Dev::start(folder.path(), offset, &[]).await?;
    for (field, port) in [("apiUrl", 8080), ("xdsAddress", 18000), ("adminUrl", 9900), ("envoyListener", 10000)] {
        assert_eq!(dev.address(field)?.port(), port + offset, "{field}");
    }
    assert_eq!((dev.text("fleet")?, dev.text("proxyId")?), ("edge", "dev-1"));
    assert!(dev.text("envoyVersion")?.contains("1.40"));
    let limiter = [("rateLimiterGrpc", 8081), ("rateLimiterHttp", 6070)];
    let sidecar = [("sidecarInbound", 15006), ("sidecarOutbound", 15001), ("sidecarAdmin", 15020)];
    for (field, port) in limiter.into_iter().chain(sidecar) {
        assert_eq!(dev.address(field)?.port(), port + offset, "{field}");
    }
    for file in ["caFile", "clientCertFile", "clientKeyFile"] {
        assert!(Path::new(dev.text(file)?).is_file(), "{file}");
    }

    // The demo route, in the first rule that has a path, leads somewhere.
    let (api, web) = (dev.api()?, dev.address("envoyListener")?);
    let routes = api.read("/api/v1/routes").await?;
    let host = routes["items"][0]["spec"]["hosts"][0].as_str().context("there is a demo route")?.replace('*', "demo");
    assert_eq!(fetch(web, get(&host, "/")).await?.status, 200);
    assert_eq!(fetch(dev.address("adminUrl")?, get("admin", "/readyz")).await?.status, 200);

    assert_eq!(fetch(dev.address("rateLimiterHttp")?, get("limiter", "/readyz")).await?.status, 200);

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
async fn the_sidecar_stands_before_the_demo_and_beside_it() -> Result<()> {
    if required::envoy().is_none() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let dev = Dev::start(folder.path(), free_offset()?, &[]).await?;
    assert_eq!(dev.well().await?, [LIMITER, ENVOY, SIDECAR]);
    let sidecar = dev.address("sidecarAdmin")?;
    let inbound = dev.address("sidecarInbound")?;
    let endpoints = &dev.api()?.read("/api/v1/services/demo-a").await?["spec"]["endpoints"];
    assert_eq!(endpoints[0]["port"], inbound.port(), "Envoy routes through it");
    assert!(fetch(inbound, get("localhost", "/")).await.is_err(), "in plaintext nobody gets in");

    // What reaches demo-a over Envoy has passed the sidecar, which counts it.
    let taken = async || -> Result<f64> {
        let metrics = fetch(sidecar, get("sidecar", "/metrics")).await?.text();
        let counted = |line: &str| line.starts_with("chancery_sidecar_requests_total{") && line.contains("inbound");
        let counts = metrics.lines().filter(|line| counted(line)).filter_map(|line| line.rsplit_once(' '));
        Ok(counts.filter_map(|(_, count)| count.parse::<f64>().ok()).sum())
    };
    let before = taken().await?;
    let mut by_demo_a = 0.0;
    for _ in 0..20 {
        let answer = fetch(dev.address("envoyListener")?, get("localhost", "/any/path")).await?;
        assert_eq!(answer.status, 200);
        by_demo_a += f64::from(u8::from(answer.text().starts_with("demo-a")));
    }
    assert!(by_demo_a > 0.0);
    assert_eq!(taken().await? - before, by_demo_a);

    // The application's own calls go out by the routes of the fleet, as edited.
    let outbound = dev.address("sidecarOutbound")?;
    let answer = fetch(outbound, get("demo.example.com", "/hello")).await?;
    assert!(answer.status == 200 && answer.text().ends_with("as Chancery told it\n"), "{}", answer.text());
    assert!(fetch(outbound, get(&outbound.to_string(), "/a")).await?.text().starts_with("demo-"));
    dev.api()?.put_and_wait(&route_saying("mine", "mine.example.com", "my own")).await?;
    assert_eq!(fetch(outbound, get("mine.example.com", "/")).await?.text(), "my own");
    dev.interrupt().await
}

/// The limit of the demo, of so many requests a minute: none comes back while a test looks.
fn limit(requests: u64) -> Value {
    resource(
        "RateLimit",
        LIMIT,
        json!({ "key": [{ "remoteAddress": true }], "limit": { "requests": requests, "per": "1m" } }),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_the_demo_refuses_and_can_be_edited() -> Result<()> {
    if required::envoy().is_none() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let dev = Dev::start(folder.path(), free_offset()?, &[]).await?;
    assert_eq!(dev.limits().await?, [(RULE.to_owned(), 5)]);
    // Some may come back meanwhile, one every two seconds.
    let (admitted, refusal) = dev.until_refused(50).await?;
    assert!(admitted >= 5, "refused after {admitted}");
    assert_eq!(refusal.text(), "slow down\n");
    assert!((1..=2).contains(&refusal.header("retry-after").parse::<u64>()?), "{:?}", refusal.headers);
    assert!(refusal.header("x-ratelimit-limit").starts_with('5'), "{:?}", refusal.headers);
    assert_eq!(refusal.header("x-ratelimit-remaining"), "0", "{:?}", refusal.headers);
    assert!(!refusal.header("x-ratelimit-reset").is_empty(), "{:?}", refusal.headers);

    let web = dev.address("envoyListener")?;
    for _ in 0..20 {
        assert_eq!(fetch(web, get("localhost", "/any/path")).await?.status, 200, "the rest of the demo is not limited");
    }

    dev.api()?.put(&limit(2)).await?;
    until("the edit is in force", END, async || {
        let limits = dev.limits().await?;
        ensure!(limits == [(RULE.to_owned(), 2)], "{limits:?}");
        Ok(())
    })
    .await?;
    let (admitted, refusal) = dev.until_refused(50).await?;
    assert!(admitted <= 2, "{admitted} admitted by a limit of 2");
    assert!(refusal.header("x-ratelimit-limit").starts_with('2'), "{:?}", refusal.headers);
    dev.interrupt().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_envoy_can_be_asked_about_every_change() -> Result<()> {
    if required::envoy().is_none() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let dev = Dev::start(folder.path(), free_offset()?, &["--validate"]).await?;
    let twice = ["one", "other"].map(|name| raw::host(name, &raw::saying("twice")));
    let bad = raw::patch("bad", json!({ "resource": raw::routes("raw", &twice) }));
    let answer = dev.api()?.json(Method::POST, "/api/v1/envoy-patches?dryRun=true", Some(&bad)).await?;
    assert_eq!(answer.status, 422, "{}", answer.text());
    assert!(answer.text().contains("that Envoy refuses: Only a single wildcard domain"), "{}", answer.text());
    dev.interrupt().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_can_be_counted_in_redis() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (Some(_), Some(redis)) = (required::envoy(), Redis::start(folder.path()).await?) else {
        return Ok(());
    };
    let offset = free_offset()?;
    let dev = Dev::start(folder.path(), offset, &["--redis", &redis.url()]).await?;
    dev.api()?.put(&limit(3)).await?;
    until("the edit is in force", END, async || {
        let limits = dev.limits().await?;
        ensure!(limits == [(RULE.to_owned(), 3)], "{limits:?}");
        Ok(())
    })
    .await?;
    let (admitted, _) = dev.until_refused(50).await?;
    assert!(admitted <= 3, "{admitted} admitted by a limit of 3");
    assert_ne!(redis.cli(&["dbsize"])?.trim(), "0", "nothing is in Redis");
    dev.interrupt().await?;

    // What was used stays used: another process finds it in Redis.
    let again = Dev::start(folder.path(), offset, &["--redis", &redis.url()]).await?;
    let (admitted, _) = again.until_refused(50).await?;
    assert!(admitted <= 1, "{admitted} admitted after a restart, none was left");
    again.interrupt().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_of_an_older_version_gets_the_limiter_and_keeps_its_edits() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let offset = free_offset()?;
    let dev = Dev::start(folder.path(), offset, &["--no-envoy"]).await?;
    let api = dev.api()?;
    // Back to what a version without a limiter left, and edited.
    let mut route = api.read("/api/v1/routes/demo").await?;
    let rules = route["spec"]["rules"].as_array_mut().context("the demo has rules")?;
    rules.retain(|rule| rule["rateLimits"].is_null());
    rules[0]["respond"]["body"] = json!("edited");
    let rules = rules.clone();
    api.put(&route).await?;
    api.delete("RateLimit", LIMIT).await?;
    let mut fleet = api.read("/api/v1/fleets/edge").await?;
    fleet["spec"] = json!({ "trustedHops": 1 });
    api.put(&fleet).await?;
    let mut demo_a = api.read("/api/v1/services/demo-a").await?;
    demo_a["spec"]["endpoints"][0]["port"] = 10081.into();
    demo_a["spec"]["tls"] = Value::Null;
    api.put(&demo_a).await?;
    dev.interrupt().await?;
    fs::remove_file(folder.path().join("data/demo"))?;

    // Somewhere else, too: ports and limiter have to agree.
    let offset = free_offset()?;
    let dev = Dev::start(folder.path(), offset, &["--no-envoy"]).await?;
    let api = dev.api()?;
    let fleet = api.read("/api/v1/fleets/edge").await?;
    assert_eq!(fleet["spec"]["trustedHops"], 1);
    let limiter = dev.address("rateLimiterGrpc")?.to_string();
    assert_eq!(fleet["spec"]["rateLimiter"]["addresses"], json!([limiter]));
    let route = api.read("/api/v1/routes/demo").await?;
    let upgraded = route["spec"]["rules"].as_array().context("the demo has rules")?;
    assert_eq!(upgraded[0]["match"]["path"]["exact"], LIMITED);
    assert_eq!(upgraded[1..], rules[..]);
    let demo_a = api.read("/api/v1/services/demo-a").await?;
    assert_eq!(demo_a["spec"]["endpoints"][0]["port"], dev.address("sidecarInbound")?.port());
    assert_eq!(demo_a["spec"]["tls"], json!({ "mesh": { "fleet": "edge", "proxies": [SIDECAR] } }));
    until("the limit is in force", END, async || {
        let limits = dev.limits().await?;
        ensure!(limits == [(RULE.to_owned(), 5)], "{limits:?}");
        Ok(())
    })
    .await?;

    // Whoever takes it away again is not given it a second time.
    let mut route = route.clone();
    route["spec"]["rules"] = json!(rules);
    api.put(&route).await?;
    dev.interrupt().await?;
    let dev = Dev::start(folder.path(), offset, &["--no-envoy"]).await?;
    assert_eq!(dev.api()?.read("/api/v1/routes/demo").await?["spec"]["rules"], json!(rules));
    assert_eq!(dev.limits().await?, []);
    dev.interrupt().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_run_side_by_side() -> Result<()> {
    if required::envoy().is_none() {
        return Ok(());
    }
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
    let first = Dev::start(folders[0].path(), free_offset()?, &[]).await?;
    let second = Dev::start(folders[1].path(), free_offset()?, &[]).await?;
    first.api()?.put_and_wait(&route_saying("mine", "mine.example.com", "first")).await?;
    assert_eq!(fetch(second.address("envoyListener")?, get("mine.example.com", "/")).await?.status, 404);
    let (admitted, _) = first.until_refused(50).await?;
    assert!(admitted >= 5, "refused after {admitted}");
    let limited = fetch(second.address("envoyListener")?, get("localhost", LIMITED)).await?;
    assert_eq!(limited.status, 200, "one's clients are counted by the other");
    first.interrupt().await?;
    assert_eq!(second.well().await?, [LIMITER, ENVOY, SIDECAR]);
    second.interrupt().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_envoy_everything_else_is_there() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dev = Dev::start(folder.path(), free_offset()?, &["--no-envoy"]).await?;
    assert!(dev.api()?.read("/api/v1/fleets").await?["items"].as_array().is_some_and(|items| !items.is_empty()));
    assert!(dev.facts["envoyListener"].is_null(), "{}", dev.facts);
    assert_eq!(dev.well().await?, [LIMITER, SIDECAR]);
    let answer = fetch(dev.address("sidecarOutbound")?, get("localhost", "/any/path")).await?;
    assert!(answer.text().starts_with("demo-"), "{} {}", answer.status, answer.text());
    dev.interrupt().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn even_a_crash_leaves_no_envoy_behind() -> Result<()> {
    if required::envoy().is_none() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let offset = free_offset()?;
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
