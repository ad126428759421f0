//! Endpoints that register themselves: they get requests while they renew, go when they do not, and reach Envoy as
//! endpoints alone.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    api::Api,
    bootstrap::{Protocol, Proxy},
    certificates::Authority,
    client::get,
    command::User,
    control_plane::{ADMIN_TOKEN, ControlPlane},
    document::{fleet, listener, resource, route_to},
    envoy::Envoy,
    load::Load,
    port::free_port,
    postgres::{Postgres, Stop},
    process::{Process, own_program},
    required,
    scene::Scene,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

const HOST: &str = "shop.example.com";
const PATH: &str = "/api/v1/services/checkout/endpoints";

/// Service `checkout`, whose endpoints register themselves, and a route to it.
fn documents() -> [Value; 2] {
    [resource("Service", "checkout", json!({ "registered": true })), route_to("shop", HOST, "checkout")]
}

#[expect(clippy::needless_pass_by_value, reason = "callers write json!(…) in place")]
fn endpoint(at: SocketAddr, more: Value) -> Value {
    let mut endpoint = json!({ "address": at.ip(), "port": at.port() });
    let more = more.as_object().cloned().unwrap_or_default();
    endpoint.as_object_mut().expect("an object").extend(more);
    endpoint
}

async fn register(api: &Api, id: &str, endpoint: &Value) -> Result<()> {
    let answer = api.json(Method::PUT, &format!("{PATH}/{id}"), Some(endpoint)).await?;
    ensure!(answer.status == 200, "registering {id}: {} {}", answer.status, answer.text());
    Ok(())
}

/// Renews a lease of a second, until this is dropped.
fn keep(api: &Api, id: &'static str, endpoint: Value) -> JoinSet<()> {
    let (api, mut task) = (api.clone(), JoinSet::new());
    task.spawn(async move {
        let mut due = tokio::time::interval(Duration::from_millis(250));
        loop {
            due.tick().await;
            // What goes wrong shows in what the endpoint is sent.
            let _ = register(&api, id, &endpoint).await;
        }
    });
    task
}

async fn ids(api: &Api) -> Result<Vec<String>> {
    let listed = api.read(PATH).await?;
    let items = listed["items"].as_array().context("endpoints come as items")?;
    Ok(items.iter().filter_map(|item| item["id"].as_str().map(str::to_owned)).collect())
}

/// How often Envoy has been given something else than endpoints.
async fn other_updates(envoy: &Envoy) -> Result<BTreeMap<String, u64>> {
    let mut stats = envoy.stats("update_success").await?;
    stats.retain(|name, _| !name.starts_with("cluster."));
    ensure!(stats.contains_key("cluster_manager.cds.update_success"), "{stats:?}");
    Ok(stats)
}

/// Waits until requests come to `upstream`.
async fn used(scene: &Scene, upstream: &Upstream) -> Result<()> {
    let before = upstream.requests();
    until("requests come to the endpoint", PATIENCE, async || {
        scene.fetch(get(HOST, "/")).await?;
        ensure!(upstream.requests() > before, "none");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_gets_requests_as_long_as_it_renews() -> Result<()> {
    for protocol in [Protocol::Delta, Protocol::StateOfTheWorld] {
        let Some(scene) = Scene::start(protocol).await? else { return Ok(()) };
        let (a, b) = (Upstream::start("a").await?, Upstream::start("b").await?);
        scene.api.apply_and_wait(&documents()).await?;
        scene.fetch_until("nobody is there", get(HOST, "/"), |response| response.status == 503).await?;
        let updates = other_updates(&scene.envoy).await?;

        let _a = keep(&scene.api, "a", endpoint(a.address, json!({ "ttl": "1s" })));
        let b_keeps = keep(&scene.api, "b", endpoint(b.address, json!({ "ttl": "1s" })));
        used(&scene, &a).await?;
        used(&scene, &b).await?;

        let load = Load::start(scene.web, 4, || get(HOST, "/"));
        load.goes_on_for(100).await?;
        drop(b_keeps);
        register(&scene.api, "b", &endpoint(b.address, json!({ "ttl": "1s", "health": "draining" }))).await?;
        scene.envoy.wait_for_stat("cluster.checkout.membership_healthy", |healthy| healthy == 1).await?;
        // It does not renew any more, and goes by itself.
        scene.envoy.wait_for_stat("cluster.checkout.membership_total", |total| total == 1).await?;
        ensure!(ids(&scene.api).await? == ["a"]);
        load.goes_on_for(100).await?;
        let tally = load.stop().await?;
        ensure!(tally.failed() == 0, "{tally}");

        let deleted = scene.api.json(Method::DELETE, &format!("{PATH}/a"), None).await?;
        ensure!(deleted.status == 200, "{}", deleted.text());
        ensure!(other_updates(&scene.envoy).await? == updates, "only endpoints were sent");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_changes_reach_envoy_as_endpoints_alone() -> Result<()> {
    const ENDPOINTS: u16 = 2000;
    const ROUNDS: u16 = 40;
    const CHANGES: u16 = 250;
    let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    scene.api.apply_and_wait(&documents()).await?;
    let updates = other_updates(&scene.envoy).await?;
    let named = |n: u16, weight: u16| json!({ "id": format!("e{n}"), "address": "127.0.0.1", "port": 20000 + n, "weight": weight, "ttl": "10m" });
    let write = async |endpoints: Vec<Value>| {
        let answer = scene.api.json(Method::POST, PATH, Some(&json!({ "register": endpoints }))).await?;
        ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    };
    write((0..ENDPOINTS).map(|n| named(n, 1)).collect()).await?;
    scene.envoy.wait_for_stat("cluster.checkout.membership_total", |total| total == u64::from(ENDPOINTS)).await?;

    let mut weights: BTreeMap<u16, u16> = (0..ENDPOINTS).map(|n| (n, 1)).collect();
    let started = Instant::now();
    for round in 0..ROUNDS {
        let changed: Vec<(u16, u16)> =
            (0..CHANGES).map(|n| ((n * 7 + round * CHANGES) % ENDPOINTS, 2 + (round + n) % 100)).collect();
        let changed: BTreeMap<u16, u16> = changed.into_iter().collect();
        write(changed.iter().map(|(n, weight)| named(*n, *weight)).collect()).await?;
        weights.extend(changed);
    }
    let took = started.elapsed();
    until("Envoy has every weight", PATIENCE, async || {
        let text = scene.envoy.ask("/clusters").await?.text();
        let weight = |line: &str| {
            let rest = line.strip_prefix("checkout::127.0.0.1:")?;
            let (port, weight) = rest.split_once("::weight::")?;
            Some((port.parse::<u16>().ok()? - 20000, weight.parse::<u16>().ok()?))
        };
        let held: BTreeMap<u16, u16> = text.lines().filter_map(weight).collect();
        let wrong = weights.iter().filter(|(n, weight)| held.get(n) != Some(weight)).count();
        ensure!(held.len() == weights.len() && wrong == 0, "{wrong} of {} are wrong", held.len());
        Ok(())
    })
    .await?;
    let per_second = f64::from(ROUNDS * CHANGES) / took.as_secs_f64();
    println!("{} changes in {took:?}: {per_second:.0} a second", ROUNDS * CHANGES);
    ensure!(other_updates(&scene.envoy).await? == updates, "only endpoints were sent");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_planes_agree_and_an_outage_ends_no_lease() -> Result<()> {
    const LEASE: Duration = Duration::from_secs(6);
    let (Some(program), Some(mut postgres)) = (required::envoy(), Postgres::start().await?) else { return Ok(()) };
    let (database, folder) = (postgres.create_database().await?, tempfile::tempdir()?);
    let authority = Authority::create(folder.path(), "authority")?;
    let mut left = ControlPlane::start(folder.path(), "left", &database, &authority).await?;
    let mut right = ControlPlane::start(folder.path(), "right", &database, &authority).await?;
    let port = free_port();
    left.caller().apply(&[fleet("edge"), listener("web", "edge", port)]).await?;
    left.caller().apply(&documents()).await?;
    let proxy = Proxy { fleet: "edge", id: "envoy", protocol: Protocol::Delta, xds: right.xds, authority: &authority };
    let envoy = Envoy::of(&program, folder.path(), &proxy).await?;
    let members = async |count: u64| {
        envoy.wait_for_stat("cluster.checkout.membership_total", |total| total == count).await.map(drop)
    };

    // Through one control plane, to the proxy of the other.
    let (a, api) = (Upstream::start("a").await?, right.caller());
    let lease = json!({ "ttl": format!("{}s", LEASE.as_secs()) });
    register(&left.caller(), "a", &endpoint(a.address, lease)).await?;
    members(1).await?;
    let load = Load::start(([127, 0, 0, 1], port).into(), 2, || get(HOST, "/"));
    left.kill();

    // The database is away until the lease is over.
    let renewed = Instant::now();
    let renewal = api.json(Method::POST, PATH, Some(&json!({ "renew": ["a"] }))).await?;
    ensure!(renewal.json()?["renewed"] == 1, "{}", renewal.text());
    postgres.stop(Stop::Immediate).await?;
    let refused = api.json(Method::POST, PATH, Some(&json!({ "renew": ["a"] }))).await?;
    ensure!(refused.status == 503 && refused.header("retry-after").parse::<u32>().is_ok(), "{}", refused.text());
    until("the lease is over", PATIENCE, async || {
        ensure!(renewed.elapsed() > LEASE, "{:?} of it are gone", renewed.elapsed());
        Ok(())
    })
    .await?;
    ensure!(envoy.stat("cluster.checkout.membership_total").await? == 1, "the endpoint stays");
    postgres.start_again().await?;

    // Leases end again, but not that of who could not renew it.
    let brief = endpoint(([127, 0, 0, 1], 9).into(), json!({ "ttl": "1s", "health": "draining" }));
    until("registering works again", PATIENCE, async || register(&api, "brief", &brief).await).await?;
    until("a lease of a second has ended", PATIENCE, async || {
        let ids = ids(&api).await?;
        ensure!(ids == ["a"], "{ids:?}");
        Ok(())
    })
    .await?;
    let renewal = api.json(Method::POST, PATH, Some(&json!({ "renew": ["a", "nobody"] }))).await?;
    ensure!(renewal.json()?["unknown"] == json!(["nobody"]), "{}", renewal.text());

    // A start serves what is registered: the proxy that comes back keeps it.
    right.kill();
    right.start_again().await?;
    envoy.wait_for_stat("control_plane.connected_state", |state| state == 1).await?;
    register(&api, "late", &brief).await?;
    members(2).await?;
    let tally = load.stop().await?;
    ensure!(tally.failed() == 0, "{tally}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_registers_and_deregisters() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
    let (api, server) = (control_plane.caller(), format!("http://{}", control_plane.api));
    let user = User::in_folder(folder.path()).of(&server, ADMIN_TOKEN);
    api.put(&resource("Service", "plain", json!({ "endpoints": [] }))).await?;
    api.put(&resource("Service", "checkout", json!({ "registered": true }))).await?;
    let refused = user.runs("endpoints register plain --address 10.0.0.7 --port 80", "").await?;
    ensure!(refused.code == 1 && refused.errors.contains("spec.registered"), "{refused:?}");

    user.does("endpoints register checkout --id one --address 10.0.0.7 --port 80 --ttl 1m", "").await?;
    let listed = user.asks("endpoints list checkout").await?;
    ensure!(listed["items"][0]["address"] == "10.0.0.7" && listed["items"][0]["ttlMs"] == 60000, "{listed}");
    user.does("endpoints deregister checkout one", "").await?;

    let mut command = Command::new(own_program("chancery")?);
    command
        .args("endpoints register checkout --address 10.0.0.8 --port 80 --ttl 1s --keep".split(' '))
        .env("CHANCERY_SERVER", &server)
        .env("CHANCERY_TOKEN", ADMIN_TOKEN)
        .current_dir(folder.path());
    let mut kept = Process::spawn("keep", command, folder.path())?;
    until("it is registered", PATIENCE, async || {
        ensure!(ids(&api).await? == ["10.0.0.8:80"]);
        Ok(())
    })
    .await?;
    // Longer than its lease, which another without --keep does not outlive.
    user.does("endpoints register checkout --id brief --address 10.0.0.9 --port 80 --ttl 2s", "").await?;
    until("the one that is not kept is gone", PATIENCE, async || {
        let ids = ids(&api).await?;
        ensure!(ids == ["10.0.0.8:80"], "{ids:?}");
        Ok(())
    })
    .await?;
    let status = kept.terminate(PATIENCE).await?;
    ensure!(status.success(), "{status}");
    ensure!(ids(&api).await?.is_empty(), "it is deregistered");
    Ok(())
}
