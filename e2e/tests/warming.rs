//! A cluster that warms for long, because its health check gets no answer, holds up nothing for long.
//!
//! Envoy withholds the acknowledgement of the clusters until such a cluster is warm, and after a reconnect asks for
//! its endpoints before it asks for clusters. A server that waits for either hangs.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Result;
use chancery_e2e::{
    bootstrap::Protocol,
    client::get,
    document::{route_saying, route_to, service, service_with},
    scene::Scene,
    upstream::Upstream,
};
use serde_json::json;
use tokio::net::TcpListener;

const HOST: &str = "shop.example.com";

/// Longer than any of this may take, yet shorter than the patience of a server that waits for the wrong thing.
const PROMPT: Duration = Duration::from_secs(3);

/// Routes wait five seconds for clusters to be acknowledged, lest they arrive before what they refer to.
const PATIENCE_OF_A_STREAM: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_warming_cluster_arrives_over_delta() -> Result<()> {
    a_change_of_a_warming_cluster_arrives(Protocol::Delta).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_a_warming_cluster_arrives_over_sotw() -> Result<()> {
    a_change_of_a_warming_cluster_arrives(Protocol::StateOfTheWorld).await
}

async fn a_change_of_a_warming_cluster_arrives(protocol: Protocol) -> Result<()> {
    let Some(scene) = Scene::start(protocol).await? else { return Ok(()) };
    let _silent = warm_for_long(&scene).await?;
    becomes_good(&scene).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_while_warming_does_not_hang_over_delta() -> Result<()> {
    a_reconnect_while_warming_does_not_hang(Protocol::Delta).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_while_warming_does_not_hang_over_sotw() -> Result<()> {
    a_reconnect_while_warming_does_not_hang(Protocol::StateOfTheWorld).await
}

async fn a_reconnect_while_warming_does_not_hang(protocol: Protocol) -> Result<()> {
    let Some(mut scene) = Scene::start(protocol).await? else { return Ok(()) };
    let _silent = warm_for_long(&scene).await?;
    scene.control_plane.kill();
    scene.envoy.wait_for_stat("control_plane.connected_state", |state| state == 0).await?;
    scene.control_plane.start_again().await?;
    scene.envoy.wait_for_stat("control_plane.connected_state", |state| state == 1).await?;
    becomes_good(&scene).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_routes_wait_for_a_warming_cluster_no_longer_than_a_while() -> Result<()> {
    let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let _silent = warm_for_long(&scene).await?;
    let begun = Instant::now();
    scene.api.put(&route_saying("news", "news.example.com", "unaffected")).await?;
    scene.fetch_until("the other route", get("news.example.com", "/"), |response| response.status == 200).await?;
    assert!(begun.elapsed() < PATIENCE_OF_A_STREAM, "it took {:?}", begun.elapsed());
    Ok(())
}

/// Lets a service warm against an endpoint that takes connections and never answers.
async fn warm_for_long(scene: &Scene) -> Result<TcpListener> {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let check = json!({ "healthCheck": { "path": "/healthz", "interval": "60s", "timeout": "50s" } });
    let endpoint: SocketAddr = silent.local_addr()?;
    scene.api.apply(&[service_with("shop", &[endpoint], check), route_to("shop", HOST, "shop")]).await?;
    scene.envoy.wait_for_stat("cluster_manager.warming_clusters", |warming| warming == 1).await?;
    Ok(silent)
}

/// Gives the service a good endpoint and takes its check away: requests must reach it at once.
async fn becomes_good(scene: &Scene) -> Result<()> {
    let blue = Upstream::start("blue").await?;
    let begun = Instant::now();
    scene.api.put(&service("shop", &[blue.address])).await?;
    let served = |response: &chancery_e2e::client::Response| response.header("x-upstream") == "blue";
    scene.fetch_until("the changed service", get(HOST, "/"), served).await?;
    assert!(begun.elapsed() < PROMPT, "it took {:?}", begun.elapsed());
    scene.envoy.wait_for_stat("cluster_manager.warming_clusters", |warming| warming == 0).await?;
    Ok(())
}
