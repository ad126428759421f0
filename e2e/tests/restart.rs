//! The control plane dies and comes back while Envoy serves. Nobody notices, except that changes wait.

use anyhow::{Result, ensure};
use chancery_e2e::{
    bootstrap::{Protocol, XDS_CLUSTER},
    client::get,
    document::{route_saying, route_to, service},
    envoy::Envoy,
    load::Load,
    scene::Scene,
    upstream::Upstream,
    wait::{PATIENCE, until},
};

const HOST: &str = "shop.example.com";

/// What Envoy counts when listeners or clusters arrive, whether they differ from what it has or not, and when they make it
/// drain connections. Its endpoints may come again: Envoy wants them after a reconnect.
const TOUCHED: &str = "^(listener_manager\\.(listener_.*|lds\\.update_success|total_listeners_draining)|\
                       cluster_manager\\.(cluster_.*|cds\\.update_success)|http\\..*\\.downstream_cx_drain_close)$";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_is_not_noticed_over_delta() -> Result<()> {
    a_crash_is_not_noticed(Protocol::Delta).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_is_not_noticed_over_sotw() -> Result<()> {
    a_crash_is_not_noticed(Protocol::StateOfTheWorld).await
}

async fn a_crash_is_not_noticed(protocol: Protocol) -> Result<()> {
    let Some(mut scene) = Scene::start(protocol).await? else { return Ok(()) };
    let upstream = Upstream::start("blue").await?;
    scene.api.apply_and_wait(&[service("shop", &[upstream.address]), route_to("shop", HOST, "shop")]).await?;
    let load = Load::start(scene.web, 4, || get(HOST, "/"));
    load.goes_on_for(100).await?;
    let before = scene.envoy.stats(TOUCHED).await?;

    scene.control_plane.kill();
    disconnected(&scene.envoy).await?;
    load.goes_on_for(100).await?;
    scene.control_plane.start_again().await?;
    connected(&scene.envoy).await?;
    // An edit after the return shows that the proxy really listens again; before it nothing may have been sent anew.
    reported_in_sync(&scene).await?;
    assert_eq!(scene.envoy.stats(TOUCHED).await?, before, "what Envoy already had was sent to it again");
    scene.api.put_and_wait(&route_saying("news", "news.example.com", "after the crash")).await?;
    assert_eq!(scene.fetch(get("news.example.com", "/")).await?.text(), "after the crash");

    load.goes_on_for(100).await?;
    let tally = load.stop().await?;
    assert_eq!(tally.failed(), 0, "{tally}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_survives_a_crash() -> Result<()> {
    let Some(mut scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    for round in 0..5 {
        let body = format!("round {round}");
        // The answer is the promise: killed right behind it, the write must be there.
        scene.api.put(&route_saying("news", HOST, &body)).await?;
        scene.control_plane.kill();
        scene.control_plane.start_again().await?;
        let stored = scene.api.read("/api/v1/routes/news").await?;
        assert_eq!(stored["spec"]["rules"][0]["respond"]["body"], body.as_str());
        scene.fetch_until("the write reaches Envoy", get(HOST, "/"), |response| response.text() == body).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_end_is_quick_and_loses_nothing() -> Result<()> {
    let Some(mut scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    scene.api.put_and_wait(&route_saying("news", HOST, "here")).await?;
    let load = Load::start(scene.web, 2, || get(HOST, "/"));
    load.goes_on_for(50).await?;
    // An open xDS stream never ends by itself; it must not hold up the end of the program.
    let status = scene.control_plane.terminate().await?;
    assert!(status.success(), "{status}");
    load.goes_on_for(50).await?;
    let tally = load.stop().await?;
    assert_eq!(tally.failed(), 0, "{tally}");
    Ok(())
}

/// Connections end so that proxies spread over the replicas, and show certificates that may have been revoked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_grow_old_are_not_noticed() -> Result<()> {
    let Some(mut scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let upstream = Upstream::start("blue").await?;
    scene.api.apply_and_wait(&[service("shop", &[upstream.address]), route_to("shop", HOST, "shop")]).await?;
    scene.control_plane.start_again_with(&["--xds-connection-age", "1s"]).await?;
    reported_in_sync(&scene).await?;
    let load = Load::start(scene.web, 4, || get(HOST, "/"));
    let before = scene.envoy.stats(TOUCHED).await?;

    let connections = format!("cluster.{XDS_CLUSTER}.upstream_cx_total");
    let opened = scene.envoy.wait_for_stat(&connections, |opened| opened > 0).await?;
    scene.envoy.wait_for_stat(&connections, |now| now >= opened + 3).await?;
    assert_eq!(scene.envoy.stats(TOUCHED).await?, before, "what Envoy already had was sent to it again");
    scene.api.put(&route_saying("news", "news.example.com", "on a new connection")).await?;
    let news = get("news.example.com", "/");
    scene.fetch_until("the edit arrives", news, |response| response.text() == "on a new connection").await?;

    let tally = load.stop().await?;
    assert_eq!(tally.failed(), 0, "{tally}");
    Ok(())
}

async fn connected(envoy: &Envoy) -> Result<()> {
    envoy.wait_for_stat("control_plane.connected_state", |state| state == 1).await.map(drop)
}

async fn disconnected(envoy: &Envoy) -> Result<()> {
    envoy.wait_for_stat("control_plane.connected_state", |state| state == 0).await.map(drop)
}

/// Waits until the control plane knows that the proxy is connected and up to date in every type.
async fn reported_in_sync(scene: &Scene) -> Result<()> {
    until("the proxy is reported in sync", PATIENCE, async || {
        let proxy = scene.api.proxy("envoy").await?;
        let types = proxy["types"].as_object().cloned().unwrap_or_default();
        let settled = ["cluster", "listener"].iter().all(|kind| types.contains_key(*kind))
            && types.values().all(|state| state["status"] == "synced" || state["status"] == "notSent");
        ensure!(proxy["connected"] == true && settled, "{proxy}");
        Ok(())
    })
    .await
}
