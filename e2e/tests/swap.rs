//! Services come and go under a route, back to back, while clients keep requesting: not one request is lost.
//!
//! A new service is created, the route moves to it, the old one is deleted, without a wait in between. A request is
//! lost if the route reaches Envoy before the new cluster is ready, or if the old cluster goes before
//! every worker has the new route.

use std::time::Duration;

use anyhow::Result;
use chancery_e2e::{
    bootstrap::Protocol,
    client::get,
    document::{dns_service, route_to, service},
    load::Load,
    scene::Scene,
    upstream::Upstream,
};
use serde_json::Value;

const HOST: &str = "shop.example.com";

/// How often the service is swapped.
const SWAPS: usize = 100;

/// Every edit is applied before the next one comes.
const NEARBY: Duration = Duration::ZERO;

/// Several edits come while one is acknowledged: only now does the order of what is sent matter.
const FAR: Duration = Duration::from_millis(25);

/// How many clients keep requesting.
const CLIENTS: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fixed_endpoints_over_delta_nearby() -> Result<()> {
    swaps_lose_nothing(Protocol::Delta, NEARBY, fixed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fixed_endpoints_over_delta_far_away() -> Result<()> {
    swaps_lose_nothing(Protocol::Delta, FAR, fixed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fixed_endpoints_over_sotw_nearby() -> Result<()> {
    swaps_lose_nothing(Protocol::StateOfTheWorld, NEARBY, fixed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fixed_endpoints_over_sotw_far_away() -> Result<()> {
    swaps_lose_nothing(Protocol::StateOfTheWorld, FAR, fixed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_names_over_delta_nearby() -> Result<()> {
    swaps_lose_nothing(Protocol::Delta, NEARBY, by_name).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_names_over_delta_far_away() -> Result<()> {
    swaps_lose_nothing(Protocol::Delta, FAR, by_name).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_names_over_sotw_nearby() -> Result<()> {
    swaps_lose_nothing(Protocol::StateOfTheWorld, NEARBY, by_name).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_names_over_sotw_far_away() -> Result<()> {
    swaps_lose_nothing(Protocol::StateOfTheWorld, FAR, by_name).await
}

fn fixed(name: &str, upstream: &Upstream) -> Value {
    service(name, &[upstream.address])
}

fn by_name(name: &str, upstream: &Upstream) -> Value {
    dns_service(name, "localhost", upstream.address.port())
}

async fn swaps_lose_nothing(protocol: Protocol, latency: Duration, make: fn(&str, &Upstream) -> Value) -> Result<()> {
    let Some(scene) = Scene::start_at(protocol, latency).await? else { return Ok(()) };
    let upstreams = [Upstream::start("even").await?, Upstream::start("odd").await?];
    let name = |swap: usize| format!("shop-{swap}");
    scene.api.apply_and_wait(&[make(&name(0), &upstreams[0]), route_to("shop", HOST, &name(0))]).await?;

    let load = Load::start(scene.web, CLIENTS, || get(HOST, "/"));
    load.goes_on_for(100).await?;
    for swap in 1..=SWAPS {
        scene.api.put(&make(&name(swap), &upstreams[swap % 2])).await?;
        scene.api.put(&route_to("shop", HOST, &name(swap))).await?;
        scene.api.delete("Service", &name(swap - 1)).await?;
    }
    // The last swap has arrived when its upstream, which the one before did not use, is asked.
    let last = ["even", "odd"][SWAPS % 2];
    scene
        .fetch_until("the last swap arrives", get(HOST, "/"), |response| response.header("x-upstream") == last)
        .await?;
    load.goes_on_for(100).await?;
    let tally = load.stop().await?;
    assert_eq!(tally.failed(), 0, "{tally}");
    assert!(tally.requests() > 500, "the clients hardly requested: {tally}");
    // What was deleted is gone from Envoy too: its own cluster to the control plane and the last service remain.
    scene.envoy.wait_for_stat("cluster_manager.active_clusters", |clusters| clusters == 2).await?;
    Ok(())
}
