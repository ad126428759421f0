//! What a `Service` says of its callers' patience: one edit, and an Envoy and a sidecar of the same fleet both do as it says, each as
//! far as it can.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    bootstrap::Protocol,
    client::{Response, fetch, get},
    document::{route, service_with},
    scene::Scene,
    sidecar::Sidecar,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use serde_json::{Value, json};

const HOST: &str = "shop.example.com";

/// Requests that are under way together.
const TOGETHER: u64 = 20;

/// Long enough for them to be.
const SLOW: Duration = Duration::from_millis(300);

/// An Envoy and a sidecar of one fleet, and a route to `shop` that tries failures once more.
struct Both {
    sidecar: Sidecar,
    scene: Scene,
}

impl Both {
    /// `application`: where the sidecar sends what it lets in, as the service `shop`.
    async fn start(application: &Upstream) -> Result<Option<Self>> {
        let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(None) };
        let application = application.address.to_string();
        let more = ["--insecure", "--service", "shop", "--app-addr", application.as_str()];
        let sidecar = Sidecar::start(scene.folder(), "side", &scene.authority, scene.control_plane.xds, &more).await?;
        sidecar.ready().await?;
        Ok(Some(Self { sidecar, scene }))
    }

    /// Says this of `shop`; returns once both have taken it.
    async fn shop(&self, upstreams: &[&Upstream], attempts: u32, policy: Value) -> Result<()> {
        let upstreams: Vec<SocketAddr> = upstreams.iter().map(|upstream| upstream.address).collect();
        let mut rule = json!({ "match": { "path": { "prefix": "/" } }, "to": [{ "service": "shop" }] });
        if attempts > 0 {
            rule["retry"] = json!({ "on": ["5xx"], "attempts": attempts });
        }
        let resources = [service_with("shop", &upstreams, policy), route("shop", HOST, &json!([rule]))];
        let applied = self.scene.api.apply_and_wait(&resources).await?;
        ensure!(applied["applied"]["proxies"] == 2 && applied["applied"]["applied"] == 2, "{applied}");
        Ok(())
    }

    /// What the sidecar says of the endpoints of `shop`: who is in, who is out.
    async fn standing(&self) -> Result<Vec<String>> {
        let clusters = self.sidecar.page("/clusters").await?;
        let shop = clusters["clusters"].as_array().into_iter().flatten().find(|one| one["name"] == "shop");
        let endpoints = shop.and_then(|shop| shop["endpoints"].as_array()).context("there is no shop")?;
        Ok(endpoints.iter().map(|one| one["standing"].as_str().unwrap_or_default().to_owned()).collect())
    }
}

/// So many requests under way together, and their answers.
async fn together(address: SocketAddr, requests: u64) -> Result<Vec<Response>> {
    let tasks: Vec<_> = (0..requests).map(|_| tokio::spawn(fetch(address, get(HOST, "/")))).collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await??);
    }
    Ok(answers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_budget_bounds_the_retries_of_both() -> Result<()> {
    let ill = Upstream::start("ill").await?;
    ill.answer_with(500);
    ill.answer_after(SLOW);
    let Some(both) = Both::start(&ill).await? else { return Ok(()) };
    let asked = async |address: SocketAddr| -> Result<u64> {
        let before = ill.requests();
        let answers = together(address, TOGETHER).await?;
        ensure!(answers.iter().all(|answer| answer.status == 500), "somebody was answered otherwise");
        Ok(ill.requests() - before)
    };
    // Without the breaker, so that the only endpoint is asked whatever it answers.
    let policy = |percent: u32| {
        json!({
            "breaker": { "consecutiveFailures": 0, "minSuccessPercent": 0 },
            "retryBudget": { "percent": percent, "ttl": "10s", "minPerSecond": 0 },
        })
    };
    // Envoy without a budget tries three again at a time; the sidecar, one in five.
    both.shop(&[&ill], 1, policy(100)).await?;
    assert_eq!(asked(both.scene.web).await?, 2 * TOGETHER, "Envoy");
    assert_eq!(both.scene.envoy.stat("cluster.shop.upstream_rq_retry_overflow").await?, 0);
    assert_eq!(asked(both.sidecar.outbound).await?, 2 * TOGETHER, "the sidecar");

    both.shop(&[&ill], 1, policy(0)).await?;
    let by_envoy = asked(both.scene.web).await?;
    assert!(by_envoy < 2 * TOGETHER, "Envoy: {by_envoy}");
    assert!(both.scene.envoy.stat("cluster.shop.upstream_rq_retry_overflow").await? > 0);
    assert_eq!(asked(both.sidecar.outbound).await?, TOGETHER, "the sidecar");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_sidecar_can_it_does_and_envoy_passes_over() -> Result<()> {
    let (one, two) = (Upstream::start("one").await?, Upstream::start("two").await?);
    let Some(both) = Both::start(&one).await? else { return Ok(()) };
    one.answer_with(500);
    two.answer_with(500);
    let breaker = json!({
        "consecutiveFailures": 2, "minSuccessPercent": 0, "openFor": "1h", "openForMost": "1h", "probeTimeout": "5s",
        "maxRequests": 100,
    });
    let hedging = json!({ "percentile": 50, "minSamples": 10, "minDelay": "2ms" });
    let policy = json!({ "breaker": breaker, "hedging": hedging, "retryBudget": {}, "adaptiveConcurrency": {} });
    both.shop(&[&one, &two], 0, policy).await?;
    for _ in 0..3 {
        assert_eq!(fetch(both.sidecar.outbound, get(HOST, "/")).await?.status, 500);
        assert_eq!(both.scene.fetch(get(HOST, "/")).await?.status, 500);
    }
    // One of two has failed twice in a row by then; the other is left, however it answers.
    let mut standing = both.standing().await?;
    standing.sort_unstable();
    assert_eq!(standing, ["in", "out"]);
    assert_eq!(both.scene.envoy.stat("cluster.shop.membership_healthy").await?, 2);

    // A breaker that never opens, and answers to learn from.
    one.answer_with(200);
    two.answer_with(200);
    let never = json!({ "consecutiveFailures": 0, "minSuccessPercent": 0, "openFor": "1ms", "openForMost": "1ms" });
    both.shop(&[&one, &two], 0, json!({ "breaker": never, "hedging": hedging })).await?;
    for _ in 0..40 {
        assert_eq!(fetch(both.sidecar.outbound, get(HOST, "/")).await?.status, 200);
    }
    one.answer_after(SLOW);
    until("a slow request is hedged", PATIENCE, async || {
        together(both.sidecar.outbound, 4).await?;
        let metrics = both.sidecar.metrics().await?;
        let hedges = metrics.lines().find(|line| line.starts_with("chancery_sidecar_hedges_total"));
        hedges.context("no hedge was counted")?;
        Ok(())
    })
    .await?;

    let dump = both.sidecar.page("/config_dump").await?;
    let shop =
        dump["resources"].as_array().into_iter().flatten().find(|r| r["type"] == "cluster" && r["name"] == "shop");
    let ignored = shop.context("the sidecar has no shop")?["ignored"].as_array().cloned().unwrap_or_default();
    let policies =
        |field: &Value| field.as_str().is_some_and(|field| field.contains("metadata") || field.contains("budget"));
    assert!(!ignored.iter().any(policies), "{ignored:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sidecar_in_front_of_a_service_lets_in_as_many_as_it_says() -> Result<()> {
    let application = Upstream::start("application").await?;
    application.answer_after(SLOW);
    let Some(both) = Both::start(&application).await? else { return Ok(()) };
    let let_in = async || -> Result<u64> {
        let answers = together(both.sidecar.inbound, TOGETHER).await?;
        let (good, shed): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
        for answer in shed {
            ensure!(answer.status == 503 && answer.header("x-chancery-reason") == "overload", "{}", answer.status);
        }
        Ok(u64::try_from(good.len())?)
    };
    both.shop(&[&application], 0, json!({ "adaptiveConcurrency": { "min": 1, "max": 3 } })).await?;
    assert_eq!(let_in().await?, 3);
    both.shop(&[&application], 0, json!({ "adaptiveConcurrency": { "algorithm": "aimd", "min": 5, "max": 7 } }))
        .await?;
    assert_eq!(let_in().await?, 7);
    both.shop(&[&application], 0, json!({})).await?;
    assert_eq!(let_in().await?, TOGETHER, "by itself it begins with 20");
    // Envoy counts for all services of a listener together, or not at all.
    assert!(together(both.scene.web, TOGETHER).await?.iter().all(|answer| answer.status == 200));
    Ok(())
}
