//! A revision comes to the canaries of a fleet first, and what speaks against it keeps it from all others.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    bootstrap::{Protocol, Proxy},
    client::{fetch, get},
    command::User,
    control_plane::ADMIN_TOKEN,
    document::{resource, route_saying, route_to, service},
    envoy::Envoy,
    load::Load,
    port::free_port,
    raw::{self, patch},
    scene::Scene,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use serde_json::{Value, json};

const HOST: &str = "news.example.com";

/// The proxies of the fleet, by id, beside the scene's own. Their listeners share their ports, so a connection is taken by any of them.
struct Others(Vec<(String, Envoy)>);

impl Others {
    /// So many, of both protocols.
    async fn of(scene: &Scene, count: usize) -> Result<Self> {
        let mut others = Vec::new();
        for number in 1..=count {
            let id = format!("envoy-{number}");
            let (xds, authority) = (scene.control_plane.xds, &scene.authority);
            let protocol = if number.is_multiple_of(2) { Protocol::Delta } else { Protocol::StateOfTheWorld };
            let proxy = Proxy { fleet: "edge", id: &id, protocol, xds, authority };
            let envoy = Envoy::of(&scene.program, scene.folder(), &proxy).await?;
            others.push((id, envoy));
        }
        Ok(Self(others))
    }

    fn and<'f>(&'f self, scene: &'f Scene) -> impl Iterator<Item = (&'f str, &'f Envoy)> {
        [("envoy", &scene.envoy)].into_iter().chain(self.0.iter().map(|(id, envoy)| (id.as_str(), envoy)))
    }

    fn ids(&self, scene: &Scene) -> Vec<String> {
        let mut ids: Vec<String> = self.and(scene).map(|(id, _)| id.to_owned()).collect();
        ids.sort();
        ids
    }

    /// Waits until these have `text` somewhere in their configuration, and no others.
    async fn have(&self, scene: &Scene, ids: &[String], text: &str) -> Result<()> {
        until(&format!("{ids:?} have {text:?}"), PATIENCE, async || {
            let mut found = Vec::new();
            for (id, envoy) in self.and(scene) {
                if envoy.config_dump().await?.to_string().contains(text) {
                    found.push(id.to_owned());
                }
            }
            found.sort();
            ensure!(found == ids, "{found:?}");
            Ok(())
        })
        .await
    }
}

async fn phase(scene: &Scene, phase: &str) -> Result<Value> {
    until(&format!("the rollout is {phase}"), Duration::from_secs(90), async || {
        let rollout = scene.api.read("/api/v1/rollouts/edge").await?;
        ensure!(rollout["phase"] == phase, "{rollout}");
        Ok(rollout)
    })
    .await
}

fn canaries(rollout: &Value) -> Vec<String> {
    let canaries = rollout["canaries"].as_array().into_iter().flatten();
    canaries.filter_map(|canary| canary["id"].as_str()).map(str::to_owned).collect()
}

/// The fleet, with `rollout`.
async fn stage(scene: &Scene, rollout: Value) -> Result<()> {
    scene.api.put(&resource("Fleet", "edge", json!({ "rollout": rollout }))).await?;
    phase(scene, "idle").await?;
    Ok(())
}

/// A listener whose routes come over RDS, and answer with `body`; if they are `bad`, the same domain is given twice, which no
/// field's constraint forbids.
fn raw_listener(port: u16) -> Value {
    patch("raw-listener", json!({ "resource": raw::listener("raw", port, "raw", "raw") }))
}

fn raw_routes(body: &str, bad: bool) -> Value {
    let hosts = if bad { ["one", "other"].as_slice() } else { &["one"] };
    let hosts: Vec<_> = hosts.iter().map(|host| raw::host(host, &raw::saying(body))).collect();
    patch("raw-routes", json!({ "resource": raw::routes("raw", &hosts) }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_canaries_see_what_envoy_rejects() -> Result<()> {
    let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let scene = &scene;

    let raw = free_port();
    scene.api.apply_and_wait(&[raw_listener(raw), raw_routes("good", false)]).await?;
    scene.api.put_and_wait(&route_saying("news", HOST, "first")).await?;
    let fleet = Others::of(scene, 9).await?;
    fleet.have(scene, &fleet.ids(scene), "first").await?;
    stage(scene, json!({ "canary": { "percent": 20 }, "soak": "2s" })).await?;
    let load = |port| Load::start(([127, 0, 0, 1], port).into(), 10, || get(HOST, "/"));
    let loads = [load(raw), load(scene.web.port())];

    // Good: the canaries have it alone for a while, then all.
    let answer = scene.api.put_and_wait(&route_saying("news", HOST, "second")).await?;
    assert_eq!(answer["applied"]["staged"], json!(["edge"]), "{answer}");
    let chosen = canaries(&phase(scene, "soaking").await?);
    assert_eq!(chosen.len(), 2);
    fleet.have(scene, &chosen, "second").await?;
    let promoted = phase(scene, "promoted").await?;
    fleet.have(scene, &fleet.ids(scene), "second").await?;

    // Bad in one resource: all of the revision goes back.
    let begun = Instant::now();
    scene.api.apply(&[raw_routes("bad", true), route_saying("news", HOST, "third")]).await?;
    let returned = phase(scene, "returned").await?;
    fleet.have(scene, &[], "third").await?;
    println!("from the edit until the canaries had the last good revision: {:?}", begun.elapsed());
    assert_eq!(canaries(&returned), chosen, "the same are asked first");
    assert_eq!(returned["stableRevision"], promoted["revision"]);
    let failure = &returned["failure"];
    assert!(chosen.contains(&failure["proxy"].as_str().unwrap_or_default().to_owned()), "{failure}");
    let names_it = failure["resources"].as_array().is_some_and(|resources| resources.contains(&json!("raw")));
    assert!(failure["type"] == "route" && names_it, "{failure}");
    assert!(failure["reason"].as_str().is_some_and(|reason| reason.contains("omain")), "{failure}");
    let bad = returned["revision"].as_u64().context("no revision")?;
    for (id, envoy) in fleet.and(scene) {
        let proxy = scene.api.proxy(id).await?;
        let is_canary = chosen.iter().any(|canary| canary == id);
        assert_eq!(proxy["canary"].as_bool().unwrap_or(false), is_canary, "{proxy}");
        if !is_canary {
            assert_eq!(proxy["lastRejection"], Value::Null, "{id}");
            assert!(proxy["wantedRevision"].as_u64().is_some_and(|wanted| wanted < bad), "{proxy}");
            let rejected = envoy.stats("update_rejected$").await?;
            assert!(rejected.values().all(|count| *count == 0), "{id}: {rejected:?}");
        }
    }

    // Mended: the next is tried with all that came since.
    scene.api.put(&raw_routes("better", false)).await?;
    phase(scene, "promoted").await?;
    fleet.have(scene, &fleet.ids(scene), "third").await?;
    fleet.have(scene, &fleet.ids(scene), "better").await?;
    for load in loads {
        load.goes_on_for(100).await?;
        let tally = load.stop().await?;
        assert_eq!(tally.failed(), 0, "{tally}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_rate_that_rises_returns_the_canaries() -> Result<()> {
    let Some(mut scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };

    scene.control_plane.start_again_with(&["--load-report-interval", "1s"]).await?;
    let scene = &scene;
    let (good, bad) = (Upstream::start("good").await?, Upstream::start("bad").await?);
    bad.answer_with(500);
    let services = [service("good", &[good.address]), service("bad", &[bad.address])];
    // Both are in use, so that either is known before it gets traffic.
    let uses = [route_to("news", HOST, "good"), route_to("spare", "spare.example.com", "bad")];
    scene.api.apply_and_wait(&services).await?;
    scene.api.apply_and_wait(&uses).await?;
    let fleet = Others::of(scene, 2).await?;
    fleet.have(scene, &fleet.ids(scene), "spare.example.com").await?;
    let gates = json!({ "errorRate": { "marginPercent": 5, "minRequests": 20 } });
    stage(scene, json!({ "canary": { "percent": 60 }, "soak": "10m", "gates": gates })).await?;
    let load = Load::start(scene.web, 12, || get(HOST, "/"));
    // Long enough for something to be known of it.
    until("proxies have reported for a while", PATIENCE, async || {
        let reported = scene.api.read("/api/v1/services/good/load?fleet=edge").await?;
        ensure!(reported["items"][0]["requests"].as_u64() > Some(2000), "{reported}");
        Ok(())
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(11)).await;
    scene.api.put(&route_to("news", HOST, "bad")).await?;
    phase(scene, "soaking").await?;
    let returned = phase(scene, "returned").await?;
    let reason = returned["failure"]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("requests through the canaries failed"), "{reason}");
    until("all requests are answered well again", PATIENCE, async || {
        for _ in 0..20 {
            let response = fetch(scene.web, get(HOST, "/")).await?;
            ensure!(response.status == 200, "{}", response.status);
        }
        Ok(())
    })
    .await?;
    let tally = load.stop().await?;
    assert_eq!(tally.errors, 0, "{tally}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_outlives_its_control_plane() -> Result<()> {
    let Some(mut scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };

    scene.api.put_and_wait(&route_saying("news", HOST, "first")).await?;
    let fleet = Others::of(&scene, 2).await?;
    fleet.have(&scene, &fleet.ids(&scene), "first").await?;
    stage(&scene, json!({ "canary": { "percent": 10 }, "soak": "10m" })).await?;
    scene.api.put(&route_saying("news", HOST, "second")).await?;
    let chosen = canaries(&phase(&scene, "soaking").await?);
    assert_eq!(chosen.len(), 1);
    scene.control_plane.start_again_with(&[]).await?;
    phase(&scene, "soaking").await?;
    until("all are connected again", PATIENCE, async || {
        for (id, _) in fleet.and(&scene) {
            let proxy = scene.api.proxy(id).await?;
            ensure!(proxy["connected"] == true && proxy["settledRevision"].as_u64() > Some(0), "{proxy}");
        }
        Ok(())
    })
    .await?;
    fleet.have(&scene, &chosen, "second").await?;

    let command = User::in_folder(scene.folder()).of(&format!("http://{}", scene.control_plane.api), ADMIN_TOKEN);
    let shown = command.does("rollout status -o table", "").await?;
    assert!(shown.contains("soaking") && shown.contains("1 of 1"), "{shown}");
    command.does("rollout return edge", "").await?;
    fleet.have(&scene, &[], "second").await?;
    let shown = command.does("rollout promote edge -o table", "").await?;
    assert!(shown.contains("promoted by admin"), "{shown}");
    fleet.have(&scene, &fleet.ids(&scene), "second").await?;
    let refused = command.runs("rollout return edge", "").await?;
    assert!(refused.errors.contains("no revision is being rolled out"), "{refused:?}");
    Ok(())
}
