//! A listener says in which pieces its routes travel, and may say otherwise while it is in use.

use anyhow::{Result, ensure};
use chancery_e2e::{
    bootstrap::Protocol,
    client::{Connection, get},
    document::{listener, route_saying, route_to, service},
    load::Load,
    scene::Scene,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use serde_json::{Value, json};

const HOST: &str = "shop.example.com";

/// How often the delivery changes under load.
const CHANGES: usize = 8;

fn delivered(scene: &Scene, delivery: &str) -> Value {
    let mut web = listener("web", "edge", scene.web.port());
    web["spec"]["routeDelivery"] = json!(delivery);
    web
}

/// How often Envoy has taken routes whole, and hosts one by one.
async fn taken(scene: &Scene) -> Result<(u64, u64)> {
    let whole = scene.envoy.stat("http.web.rds.chancery.whole.web.update_success").await?;
    Ok((whole, scene.envoy.stat("http.web.rds.vhds.web.update_success").await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_come_by_host_or_whole_as_the_listener_says() -> Result<()> {
    let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let saying = |body: &str| route_saying("news", HOST, body);
    scene.api.apply_and_wait(&[saying("by host")]).await?;
    assert_eq!(scene.fetch(get(HOST, "/")).await?.text(), "by host");
    let (whole, by_host) = taken(&scene).await?;
    assert!(whole == 0 && by_host > 0, "{whole} and {by_host}");

    // A connection of before goes on, and hears of what comes later, however its routes came.
    let mut before = Connection::open(scene.web).await?;
    assert_eq!(before.send(get(HOST, "/")).await?.text(), "by host");
    scene.api.put_and_wait(&delivered(&scene, "whole")).await?;
    until("the routes have come whole", PATIENCE, async || {
        let (whole, by_host) = taken(&scene).await?;
        ensure!(whole > 0, "{whole} and {by_host}");
        Ok(())
    })
    .await?;
    let (first, _) = taken(&scene).await?;
    scene.api.put_and_wait(&saying("whole")).await?;
    assert_eq!(before.send(get(HOST, "/")).await?.text(), "whole");
    assert_eq!(scene.fetch(get(HOST, "/")).await?.text(), "whole");
    assert_eq!(taken(&scene).await?.0, first + 1, "the edit came whole");

    scene.api.put_and_wait(&delivered(&scene, "per-host")).await?;
    scene.api.delete_and_wait("Route", "news").await?;
    assert_eq!(before.send(get(HOST, "/")).await?.status, 404);
    until("the routes come by host again", PATIENCE, async || {
        ensure!(scene.fetch(get(HOST, "/")).await?.status == 404, "a deleted route is back");
        Ok(())
    })
    .await
}

async fn changes_lose_nothing(protocol: Protocol) -> Result<()> {
    let Some(scene) = Scene::start(protocol).await? else { return Ok(()) };
    let upstreams = [Upstream::start("even").await?, Upstream::start("odd").await?];
    let shops = [0, 1].map(|number: usize| service(&format!("shop-{number}"), &[upstreams[number].address]));
    let to = |number: usize| route_to("shop", HOST, &format!("shop-{}", number % 2));
    scene.api.apply_and_wait(&[shops.to_vec(), vec![to(0)]].concat()).await?;
    let load = Load::start(scene.web, 4, || get(HOST, "/"));
    load.goes_on_for(100).await?;
    for change in 1..=CHANGES {
        // The route goes to another service in the same step, and once more behind it.
        let delivery = ["per-host", "whole"][change % 2];
        scene.api.apply(&[delivered(&scene, delivery), to(change)]).await?;
        load.goes_on_for(50).await?;
        scene.api.put(&to(change + 1)).await?;
        let wanted = ["even", "odd"][(change + 1) % 2];
        let arrived = |response: &chancery_e2e::client::Response| response.header("x-upstream") == wanted;
        scene.fetch_until("the route arrives", get(HOST, "/"), arrived).await?;
    }
    let tally = load.stop().await?;
    assert_eq!(tally.failed(), 0, "{tally}");
    assert!(tally.requests() > 500, "the clients hardly requested: {tally}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_it_loses_no_request_over_delta() -> Result<()> {
    changes_lose_nothing(Protocol::Delta).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_it_loses_no_request_over_sotw() -> Result<()> {
    changes_lose_nothing(Protocol::StateOfTheWorld).await
}
