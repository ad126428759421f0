//! A rolling restart of all that is ours, one program after the other, as an upgrade does it: no request fails, no edit is lost, no
//! proxy is sent what it has, no limit is forgotten or counted twice.
//!
//! What is said of resources that are not sent again holds over delta xDS. In the state of the world a proxy cannot say what it has,
//! so all is sent once to whoever connects, which changes nothing there (see `restart.rs`).

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use chancery_e2e::{
    client::{fetch, request},
    document::limit_per_key,
    estate::{Estate, LIMITED, Meanwhile, Plan},
    scripted::keeper::Keepers,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::json;

/// Scripted proxies beside the two real ones.
const SCRIPTED: usize = 18;

/// What a client may ask for at once, and in an hour.
const LIMIT: u32 = 300;

/// What Envoy counts when listeners or clusters come, or make it drain connections.
const TOUCHED: &str = "^(listener_manager\\.(listener_.*|lds\\.update_success|total_listeners_draining)|\
                       cluster_manager\\.(cluster_(added|modified|removed)|cds\\.update_success)|\
                       http\\..*\\.downstream_cx_drain_close)$";

/// The share of the limit that must have passed.
const LEAST: f64 = 0.95;

/// Longer than tokens lie with a limiter that has borrowed them.
const LEASES_END: Duration = Duration::from_secs(2);

/// How many limiters a proxy asks.
const ASKED: &str = "cluster.chancery.rate-limiter.membership_healthy";

/// Whether one request of this client passes.
async fn passes(estate: &Estate, client: &str) -> Result<bool> {
    let answer = fetch(estate.web, request(Method::GET, LIMITED, "/", &[("x-api-key", client)])).await?;
    ensure!([200, 429].contains(&answer.status), "{answer:?}");
    Ok(answer.status == 200)
}

/// How many of so many requests of this client pass.
async fn passing(estate: &Estate, client: &str, asked: u32) -> Result<u32> {
    let mut passed = 0;
    for _ in 0..asked {
        passed += u32::from(passes(estate, client).await?);
    }
    Ok(passed)
}

/// Waits until both control planes say that all proxies are connected, whichever of them has each.
async fn all_connected(estate: &Estate, proxies: usize) -> Result<()> {
    until("all proxies are connected", 2 * PATIENCE, async || {
        let items = estate.api.list("/api/v1/proxies").await?;
        let connected = items.iter().filter(|one| one["connected"] == true && one["fleet"] == "edge").count();
        ensure!(connected == proxies, "{connected} of {proxies}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_is_not_noticed() -> Result<()> {
    let limit = limit_per_key("per-client", LIMIT, "1h", json!({ "limit": { "burst": LIMIT } }));
    let plan = Plan { on_failure: "deny", timeout: "5s", limit, envoys: 2, ..Plan::default() };
    let Some(mut estate) = Estate::start(plan).await? else { return Ok(()) };
    let keepers = Keepers::start(&estate.authority, estate.to_xds.address, SCRIPTED)?;
    all_connected(&estate, SCRIPTED + estate.envoys.len()).await?;
    let touched = async |estate: &Estate| -> Result<Vec<_>> {
        let mut all = Vec::new();
        for envoy in &estate.envoys {
            all.push(envoy.stats(TOUCHED).await?);
        }
        Ok(all)
    };
    let before = touched(&estate).await?;

    let begun = Instant::now();
    let asked = LIMIT / 3;
    let mut passed = passing(&estate, "ann", asked).await?;
    assert_eq!(passed, asked, "there is room");
    let observed = estate
        .observe("a rolling restart", async |estate, meanwhile: &Meanwhile| {
            for number in 0..2 {
                let status = estate.limiters[number].terminate().await?;
                ensure!(status.success(), "a limiter ended with {status}");
                meanwhile.goes_on().await?;
                passed += passing(estate, "ann", asked).await?;
                estate.limiters[number].start_again().await?;
                estate.limiters[number].ready().await?;
                // A proxy that has met a limiter's end leaves it alone for a while; the next one has to be taken away after that.
                for envoy in &estate.envoys {
                    envoy.wait_for_stat(ASKED, |healthy| healthy == 2).await?;
                }
                meanwhile.goes_on().await?;
                passed += passing(estate, "ann", asked).await?;
            }
            for number in 0..2 {
                let ended = Instant::now();
                let status = estate.control_planes[number].terminate().await?;
                ensure!(status.success() && ended.elapsed() < PATIENCE, "a control plane ended with {status}");
                meanwhile.goes_on().await?;
                estate.control_planes[number].start_again().await?;
                meanwhile.goes_on().await?;
                all_connected(estate, SCRIPTED + estate.envoys.len()).await?;
            }
            passed += passing(estate, "ann", asked).await?;
            Ok(())
        })
        .await?;
    observed.nothing_lost()?;
    assert_eq!((observed.edits_refused, observed.edits_unanswered), (0, 0), "{observed:?}");

    // What lies with one limiter the other one cannot give out; it comes back.
    let last = Instant::now();
    while last.elapsed() < LEASES_END {
        passed += passing(&estate, "ann", 5).await?;
        tokio::time::sleep(LEASES_END / 10).await;
    }

    // Twice as much was asked for as is allowed: the bucket as it was, what has come since, and nothing else. What a limiter had
    // borrowed it has given back, so hardly anything is missing.
    let refill = f64::from(LIMIT) * (begun.elapsed() + Duration::from_secs(1)).as_secs_f64() / 3600.0;
    let passed = f64::from(passed);
    println!("{passed} of {LIMIT} and {refill:.1} passed");
    assert!(passed <= f64::from(LIMIT) + refill, "{passed} passed: the limit was forgotten");
    assert!(passed >= LEAST * f64::from(LIMIT), "{passed} passed: something was counted twice");

    assert_eq!(touched(&estate).await?, before, "what Envoy already had was sent to it again");
    let kept = &keepers.kept;
    let returns = kept.returns.load(std::sync::atomic::Ordering::Relaxed);
    println!("{returns} returns, {:?} sent again", kept.resent());
    assert!(returns >= SCRIPTED as u64, "each was on a control plane that was restarted: {returns} returns");
    assert!(kept.resent().is_empty(), "{:?}", kept.resent());
    Ok(())
}
