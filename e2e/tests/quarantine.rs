//! What a real Envoy rejects, although nothing here could know, is taken back for its fleet: nobody else ever loses by it.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use chancery_control_plane::store;
use chancery_e2e::{
    bootstrap::{Protocol, Proxy},
    client::{fetch, get},
    document::{route_saying, route_to, service},
    envoy::Envoy,
    load::Load,
    over_both_protocols,
    port::free_port,
    raw::{self, patch},
    scene::Scene,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};

const HOST: &str = "news.example.com";

over_both_protocols!(
    the_last_good_version_is_served_and_all_else_flows,
    what_the_last_good_version_sends_to_stays,
    a_suspect_that_was_innocent_comes_back,
    what_was_never_good_is_not_served
);

/// A listener whose routes come over RDS as `name`, from a patch.
fn listener(name: &str, port: u16) -> Value {
    let listener = raw::listener(name, port, name, "raw");
    patch(&format!("{name}-listener"), json!({ "resource": listener }))
}

/// Routes that answer everything with `body`; if they are `bad`, the same domain is given twice, which no field's constraint forbids.
fn routes(name: &str, body: &str, bad: bool) -> Value {
    let hosts = if bad { ["one", "other"].as_slice() } else { &["one"] };
    routes_that(name, &raw::saying(body), hosts)
}

/// The same for any action.
fn routes_that(name: &str, action: &Value, hosts: &[&str]) -> Value {
    let hosts: Vec<_> = hosts.iter().map(|host| raw::host(host, action)).collect();
    patch(&format!("{name}-routes"), json!({ "resource": raw::routes(name, &hosts) }))
}

async fn quarantined(scene: &Scene) -> Result<Vec<Value>> {
    let listed = scene.api.read("/api/v1/quarantine?fleet=edge").await?;
    listed["items"].as_array().cloned().context("no items")
}

async fn wait_quarantined(scene: &Scene, names: &[&str]) -> Result<Vec<Value>> {
    until("the quarantine is as it should be", PATIENCE, async || {
        let listed = quarantined(scene).await?;
        let listed_names: Vec<_> = listed.iter().filter_map(|one| one["name"].as_str()).collect();
        ensure!(listed_names == names, "{listed:?}");
        Ok(listed)
    })
    .await
}

async fn says(address: SocketAddr, text: &str) -> Result<()> {
    until(&format!("{address} says {text:?}"), PATIENCE, async || {
        let response = fetch(address, get(HOST, "/")).await?;
        ensure!(response.text() == text, "{} {}", response.status, response.text());
        Ok(())
    })
    .await
}

/// Another Envoy of the fleet. Its listeners share their ports with the first, so it is asked what it was given.
async fn another(scene: &Scene, id: &str) -> Result<Envoy> {
    let (xds, authority) = (scene.control_plane.xds, &scene.authority);
    let proxy = Proxy { fleet: "edge", id, protocol: Protocol::Delta, xds, authority };
    Envoy::of(&scene.program, scene.folder(), &proxy).await
}

/// What another Envoy was given as routes contains `body`.
async fn is_given(envoy: &Envoy, body: &str) -> Result<()> {
    until("it is given the routes", PATIENCE, async || {
        let dump = envoy.config_dump().await?.to_string();
        ensure!(dump.contains(body), "{dump}");
        Ok(())
    })
    .await
}

async fn the_last_good_version_is_served_and_all_else_flows(scene: &Scene) -> Result<()> {
    let port = free_port();
    let raw = SocketAddr::from(([127, 0, 0, 1], port));
    scene.api.apply_and_wait(&[listener("raw", port), routes("raw", "good", false)]).await?;
    scene.api.put_and_wait(&route_saying("news", HOST, "news")).await?;
    says(raw, "good").await?;
    let loads = [Load::start(raw, 2, || get(HOST, "/")), Load::start(scene.web, 2, || get(HOST, "/"))];

    let body = json!({ "resources": [routes("raw", "bad", true), route_saying("news", HOST, "newer")] });
    let answer = scene.api.json(Method::POST, "/api/v1/apply?wait=applied&timeout=10s", Some(&body)).await?;
    let report = &answer.json()?["applied"];
    assert_eq!((&report["refused"][0]["proxy"], &report["timedOut"]), (&json!("envoy"), &json!(false)), "{report}");

    let listed = wait_quarantined(scene, &["raw"]).await?;
    assert!(listed[0]["reason"].as_str().is_some_and(|reason| reason.contains("omain")), "{listed:?}");
    assert_eq!((&listed[0]["proxy"], &listed[0]["type"]), (&json!("envoy"), &json!("route")));
    says(scene.web, "newer").await?;
    says(raw, "good").await?;

    // Whoever comes now never sees it.
    let late = another(scene, "late").await?;
    is_given(&late, "good").await?;
    assert_eq!(scene.api.proxy("late").await?["lastRejection"], Value::Null);

    scene.api.put_and_wait(&routes("raw", "better", false)).await?;
    says(raw, "better").await?;
    wait_quarantined(scene, &[]).await?;
    for load in loads {
        load.goes_on_for(50).await?;
        let tally = load.stop().await?;
        assert_eq!(tally.failed(), 0, "{tally}");
    }
    Ok(())
}

async fn what_the_last_good_version_sends_to_stays(scene: &Scene) -> Result<()> {
    let (port, shop) = (free_port(), Upstream::start("shop").await?);
    let raw = SocketAddr::from(([127, 0, 0, 1], port));
    let to_shop = |hosts: &[&str]| routes_that("raw", &json!({ "route": { "cluster": "shop" } }), hosts);
    // The route uses the service, so that the fleet is served it.
    let in_use = [service("shop", &[shop.address]), route_to("shop", "shop.example.com", "shop")];
    scene.api.apply_and_wait(&in_use).await?;
    scene.api.apply_and_wait(&[listener("raw", port), to_shop(&["one"])]).await?;
    until("the service answers", PATIENCE, async || {
        let response = fetch(raw, get(HOST, "/")).await?;
        ensure!(response.status == 200, "{} {}", response.status, response.text());
        Ok(())
    })
    .await?;
    let load = Load::start(raw, 2, || get(HOST, "/"));
    scene.api.put(&to_shop(&["one", "other"])).await?;
    wait_quarantined(scene, &["raw"]).await?;
    scene.api.delete_and_wait("Route", "shop").await?;
    scene.api.delete_and_wait("Service", "shop").await?;
    load.goes_on_for(200).await?;
    let tally = load.stop().await?;
    assert_eq!(tally.failed(), 0, "{tally}");

    scene.api.put_and_wait(&routes("raw", "better", false)).await?;
    says(raw, "better").await?;
    scene.envoy.wait_for_stat("cluster_manager.active_clusters", |clusters| clusters == 1).await.map(drop)
}

/// Two at once, and Envoy's words may name one, none or both.
async fn a_suspect_that_was_innocent_comes_back(scene: &Scene) -> Result<()> {
    let ports = [free_port(), free_port()];
    let at = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let names = ["raw-a", "raw-b"];
    for (name, port) in names.into_iter().zip(ports) {
        scene.api.apply_and_wait(&[listener(name, port), routes(name, "good", false)]).await?;
    }
    for at in at {
        says(at, "good").await?;
    }
    scene.api.apply(&[routes("raw-a", "bad", true), routes("raw-b", "fine", false)]).await?;
    wait_quarantined(scene, &["raw-a"]).await?;
    says(at[1], "fine").await?;
    says(at[0], "good").await?;
    wait_quarantined(scene, &["raw-a"]).await.map(drop)
}

async fn what_was_never_good_is_not_served(scene: &Scene) -> Result<()> {
    let port = free_port();
    let raw = SocketAddr::from(([127, 0, 0, 1], port));
    scene.api.apply(&[listener("raw", port), routes("raw", "bad", true)]).await?;
    wait_quarantined(scene, &["raw"]).await?;
    scene.api.put_and_wait(&route_saying("news", HOST, "news")).await?;
    says(scene.web, "news").await?;
    scene.api.put(&routes("raw", "good", false)).await?;
    says(raw, "good").await?;
    wait_quarantined(scene, &[]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_starts_again_knows() -> Result<()> {
    let Some(mut scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let port = free_port();
    let raw = SocketAddr::from(([127, 0, 0, 1], port));
    scene.api.apply_and_wait(&[listener("raw", port), routes("raw", "good", false)]).await?;
    says(raw, "good").await?;
    scene.api.put(&routes("raw", "bad", true)).await?;
    let before = wait_quarantined(&scene, &["raw"]).await?;
    // Killed too early, it would be found out once more.
    let store = store::open(&format!("sqlite://{}", scene.folder().join("chancery.db").display())).await?;
    until("it is written down", PATIENCE, async || {
        ensure!(store.quarantined().await?.len() == 1);
        Ok(())
    })
    .await?;
    store.close().await;
    scene.control_plane.kill();
    scene.control_plane.start_again().await?;
    assert_eq!(quarantined(&scene).await?, before);
    let late = another(&scene, "late").await?;
    is_given(&late, "good").await?;
    assert_eq!(scene.api.proxy("late").await?["lastRejection"], Value::Null);

    // As after an upgrade of the proxies; but these find the same.
    scene.api.json(Method::POST, "/api/v1/quarantine/release?fleet=edge", None).await?;
    until("it is tried again", PATIENCE, async || {
        // By whichever is connected again first; the other never sees it.
        let proxies = [scene.api.proxy("envoy").await?, scene.api.proxy("late").await?];
        ensure!(proxies.iter().any(|proxy| !proxy["lastRejection"].is_null()), "{proxies:?}");
        Ok(())
    })
    .await?;
    wait_quarantined(&scene, &["raw"]).await?;
    says(raw, "good").await
}
