//! A sidecar in front of services that fail in every way that services fail: what it delivers as a success is one, whole and
//! once; and who fails is not asked for long.
//!
//! `CHANCERY_CHAOS_REQUESTS` says how many requests each protocol is tried with, if not 10,000.

use std::{
    env,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    client::{Connection, get},
    demo::Demo,
    document::{route, service_with},
    sealed::{Ended, Endings, over_http1, over_http2},
    sidecar_scene::{SidecarScene, retried},
    wait::until,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const HOST: &str = "shop.example.com";

/// So many if nothing else is said: some ten seconds in all on two cores.
const REQUESTS: usize = 10_000;

/// The longest time for which an endpoint is out after the failures of a phase: it is doubled with each probe that fails, and a half is
/// added at most. Then it may take five seconds until it is drawn, since a failure weighs so long.
const PROBE_WITHIN: Duration = Duration::from_secs(40);

fn requests() -> Result<usize> {
    env::var("CHANCERY_CHAOS_REQUESTS").map_or(Ok(REQUESTS), |number| Ok(number.parse()?))
}

/// A bit of everything, but no more than what leaves nearly every request a way.
fn everything() -> Value {
    json!({
        "seed": 4711,
        "latencyMs": 20,
        "dripMs": 1,
        "retryAfter": 0,
        "faults": {
            "error": 0.02, "latency": 0.01, "rateLimited": 0.005, "hangUp": 0.002, "resetMidBody": 0.005,
            "earlyResponse": 0.01, "drip": 0.01, "trailersOnly": 0.01, "goaway": 0.005, "finOnReuse": 0.01, "refuse": 0.02,
        },
    })
}

async fn scene(folder: &std::path::Path, protocol: &str) -> Result<(Demo, SidecarScene)> {
    let demo = Demo::start(folder, "demo", 3).await?;
    let breaker = json!({ "maxConnections": 1000, "maxRequests": 1000, "maxPending": 1000 });
    let shop = service_with("shop", &demo.upstreams, json!({ "protocol": protocol, "breaker": breaker }));
    let scene = SidecarScene::start(&[shop, route("shop", HOST, &retried("shop"))], &["--insecure"]).await?;
    demo.fails(&everything()).await?;
    Ok((demo, scene))
}

async fn nothing_was_made_up(demo: &Demo, scene: &SidecarScene, endings: &Endings, sent: usize) -> Result<()> {
    println!("{endings}");
    let wrong = endings.count(|ended| matches!(ended, Ended::Wrong(_) | Ended::Late));
    ensure!(wrong == 0, "{wrong} answers are not what they say\n{endings}");
    ensure!(endings.count(|_| true) == sent, "{endings}");
    let well = endings.count(|ended| matches!(ended, Ended::Well(_)));
    ensure!(well * 100 >= sent * 90, "only {well} of {sent} ended well\n{endings}");
    for fault in ["latency", "earlyResponse", "drip", "goaway"] {
        ensure!(endings.0.contains_key(&Ended::Well(fault.to_owned())), "{fault} never came\n{endings}");
    }
    ensure!(endings.0.contains_key(&Ended::BrokenOff), "no answer was broken off\n{endings}");
    let counted = demo.counted().await?;
    println!("{} executions of {} ids, {} ids repeated", counted.executions, counted.ids, counted.repeated.len());
    ensure!(counted.without_room == 0 && counted.ids as usize <= sent, "{counted:?}");
    let twice: Vec<_> = counted.repeated.iter().filter(|(id, _)| id.starts_with("post-")).collect();
    ensure!(twice.is_empty(), "executed more than once: {twice:?}");
    ensure!(!counted.repeated.is_empty(), "nothing was tried again");
    ensure!(!scene.sidecar.log().contains("panicked"), "{}", scene.sidecar.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http1_no_answer_is_made_up_and_nothing_done_twice() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (demo, scene) = scene(folder.path(), "http1").await?;
    let sent = requests()?;
    let endings = over_http1(scene.sidecar.outbound, HOST, 32, 0..sent).await?;
    nothing_was_made_up(&demo, &scene, &endings, sent).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_no_answer_is_made_up_and_nothing_done_twice() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (demo, scene) = scene(folder.path(), "http2").await?;
    let sent = requests()?;
    let endings = over_http2(scene.sidecar.outbound, HOST, 2, 24, 0..sent).await?;
    nothing_was_made_up(&demo, &scene, &endings, sent).await
}

/// Requests of eight callers for so long; how many, and how many of them failed.
async fn asked(scene: &SidecarScene, during: Duration) -> Result<(u64, u64)> {
    let until = Instant::now() + during;
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let address = scene.sidecar.outbound;
        callers.spawn(async move {
            let mut connection = Connection::open(address).await?;
            let (mut all, mut failed) = (0, 0);
            while Instant::now() < until {
                all += 1;
                match connection.send(get(HOST, "/")).await {
                    Ok(answer) => failed += u64::from(answer.status != 200),
                    Err(_) => {
                        failed += 1;
                        connection = Connection::open(address).await?;
                    }
                }
            }
            Ok::<_, anyhow::Error>((all, failed))
        });
    }
    let mut sum = (0, 0);
    while let Some(caller) = callers.join_next().await {
        let (all, failed) = caller??;
        sum = (sum.0 + all, sum.1 + failed);
    }
    Ok(sum)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_may_fail_be_slow_and_refuse() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let bad = Demo::start(folder.path(), "bad", 1).await?;
    let good = Demo::start(folder.path(), "good", 2).await?;
    let all = [&bad.upstreams[..], &good.upstreams[..]].concat();
    let mut rules = retried("shop");
    rules[0]["retry"]["perTryTimeout"] = "250ms".into();
    let shop = service_with("shop", &all, json!({}));
    let scene = SidecarScene::start(&[shop, route("shop", HOST, &rules)], &["--insecure"]).await?;
    for (phase, chaos) in [
        ("fails", json!({ "faults": { "error": 1 }, "status": 500 })),
        ("is slow", json!({ "faults": { "latency": 1 }, "latencyMs": 3000 })),
        ("refuses", json!({ "faults": { "refuse": 1 } })),
    ] {
        bad.fails(&chaos).await?;
        asked(&scene, Duration::from_secs(1)).await?;
        let (all, failed) = asked(&scene, Duration::from_secs(3)).await?;
        println!("one of three {phase}: {failed} of {all} failed");
        ensure!(all > 200, "it {phase}: only {all} requests");
        ensure!(failed * 100 < all, "it {phase}: {failed} of {all} failed");
    }
    bad.fails(&json!({})).await?;
    let (healed, before) = (Instant::now(), bad.counted().await?.executions);
    until("it is asked again", PROBE_WITHIN, async || {
        let (all, failed) = asked(&scene, Duration::from_millis(250)).await?;
        ensure!(failed == 0, "{failed} of {all} failed");
        let executed = bad.counted().await?.executions - before;
        ensure!(executed > 20, "{executed} executions");
        Ok(())
    })
    .await
    .context("healed")?;
    println!("asked again {:?} after it was well", healed.elapsed());
    Ok(())
}
