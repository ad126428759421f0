//! What is known of proxies: by resource, while it happens, and from every replica. As an operator asks for it.

use std::{net::Ipv4Addr, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    bootstrap::{Protocol, Proxy},
    certificates::Authority,
    command::User,
    control_plane::{ADMIN_TOKEN, ControlPlane},
    document::{fleet, listener, route_saying, route_to, service, service_with},
    envoy::Envoy,
    over_both_protocols,
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
use tokio::net::TcpListener;

const HOST: &str = "shop.example.com";

/// Long enough to see that a replica says nothing any more, and some more.
const LOST_WITHIN: Duration = Duration::from_secs(30);

over_both_protocols!(what_a_proxy_has_is_known_by_resource);

fn operator(folder: &Path, control_plane: &ControlPlane) -> User {
    User::in_folder(folder).of(&format!("http://{}", control_plane.api), ADMIN_TOKEN)
}

/// `proxy-config --diff`: type, name, state, and why.
async fn differences(user: &User) -> Result<Vec<(String, String, String, String)>> {
    let given = user.asks("proxy-config envoy --diff -o json").await?;
    let text = |resource: &Value, field: &str| resource[field].as_str().unwrap_or_default().to_owned();
    let resources = given["resources"].as_array().context("there are resources")?.iter();
    let why = |resource: &Value| text(resource, "because") + &text(resource, "reason");
    Ok(resources.map(|r| (text(r, "type"), text(r, "name"), text(r, "state"), why(r))).collect())
}

async fn what_a_proxy_has_is_known_by_resource(scene: &Scene) -> Result<()> {
    let user = operator(scene.folder(), &scene.control_plane);
    let blue = Upstream::start("blue").await?;
    scene.api.apply_and_wait(&[service("shop", &[blue.address]), route_to("shop", HOST, "shop")]).await?;
    assert_eq!(differences(&user).await?, []);
    let given = user.asks("proxy-config envoy --type cluster --name shop -o json").await?;
    let shop = &given["resources"][0];
    assert_eq!((&shop["state"], &shop["resource"]["name"]), (&json!("synced"), &json!("shop")), "{given}");
    assert_eq!(shop["version"], shop["wantedVersion"]);

    // A port that somebody else has: only the proxy can know.
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    scene.api.put(&listener("taken", "edge", taken.local_addr()?.port())).await?;
    until("the listener is refused, and taken back", PATIENCE, async || {
        let found = user.asks("quarantine list --fleet edge -o json").await?;
        let refused = &found["items"][0];
        ensure!(refused["name"] == "taken" && refused["proxy"] == "envoy", "{found}");
        ensure!(refused["reason"].as_str().is_some_and(|words| words.contains("in use")), "{found}");
        ensure!(differences(&user).await?.is_empty());
        Ok(())
    })
    .await?;
    let status = user.asks("proxies envoy -o json").await?;
    let listeners = &status["types"]["listener"];
    assert_eq!((&listeners["status"], &listeners["lastRejection"]["resources"]), (&json!("synced"), &json!(["taken"])));
    assert_eq!(status["lastRejection"]["revision"], status["wantedRevision"], "{status}");
    let table = user.does("proxies envoy -o table", "").await?;
    assert!(table.contains("in use"), "{table}");
    scene.api.delete_and_wait("Listener", "taken").await?;
    assert_eq!(differences(&user).await?, []);

    // A service that warms for long: Envoy says nothing of it.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let check = json!({ "healthCheck": { "path": "/healthz", "interval": "60s", "timeout": "50s" } });
    let slow = [service_with("slow", &[silent.local_addr()?], check), route_to("slow", "slow.example.com", "slow")];
    scene.api.apply(&slow).await?;
    scene.envoy.wait_for_stat("cluster_manager.warming_clusters", |warming| warming == 1).await?;
    let found = differences(&user).await?;
    let expected = ["cluster", "slow", "missing", "notAnswered"].map(str::to_owned);
    assert!(found.contains(&expected.clone().into()), "{found:?}");
    let warming = async || {
        let status = user.asks("proxies envoy -o json").await?;
        let clusters = &status["types"]["cluster"];
        assert_eq!(clusters["status"], "stale", "{status}");
        clusters["warmingMs"].as_f64().context("it says for how long")
    };
    let before = warming().await?;
    until("the age grows", PATIENCE, async || {
        let after = warming().await?;
        ensure!(after > before, "{after} ms after {before} ms");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happens_is_told_while_it_happens() -> Result<()> {
    let Some(mut scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let mut command = Command::new(own_program("chancery")?);
    command.args([
        "events",
        "--fleet",
        "edge",
        "-o",
        "json",
        "--server",
        &format!("http://{}", scene.control_plane.api),
    ]);
    command.args(["--token", ADMIN_TOKEN]);
    let mut follower = Process::spawn("events", command, scene.folder())?;
    // What has been told so far, by a word for each.
    let told = |follower: &Process| {
        let events = follower.output();
        let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.collect::<Vec<_>>()
    };
    let until_told = async |follower: &Process, event: &str, revision: u64| {
        until(&format!("{event} of revision {revision} is told"), PATIENCE, async || {
            let told = told(follower);
            let found = told.iter().position(|told| told["event"] == event && told["revision"] == revision);
            found.with_context(|| format!("{told:?}"))
        })
        .await
    };
    let news = |body: &str| route_saying("news", HOST, body);
    // It may not listen yet: until it does, nothing is told.
    until("the follower hears", PATIENCE, async || {
        scene.api.put(&news(&format!("{:?}", std::time::Instant::now()))).await?;
        ensure!(!told(&follower).is_empty(), "nothing yet");
        Ok(())
    })
    .await?;
    let revision = scene.api.put_and_wait(&news("last")).await?["revision"].as_u64().context("a number")?;
    let settled = until_told(&follower, "settled", revision).await?;
    let acknowledged = until_told(&follower, "acknowledged", revision).await?;
    assert!(until_told(&follower, "revision", revision).await? < acknowledged && acknowledged < settled);
    let event = &told(&follower)[acknowledged];
    assert_eq!(
        (&event["proxy"], &event["fleet"], &event["type"]),
        (&json!("envoy"), &json!("edge"), &json!("virtualHost"))
    );
    assert!(event["lagMs"].as_f64().is_some_and(|lag| lag > 0.0), "{event}");

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let bad = scene.api.put(&listener("taken", "edge", taken.local_addr()?.port())).await?;
    let bad = bad["revision"].as_u64().context("a number")?;
    let rejected = until_told(&follower, "rejected", bad).await?;
    let event = &told(&follower)[rejected];
    assert!(event["message"].as_str().is_some_and(|words| words.contains("in use")), "{event}");

    // Who follows does not keep the control plane from ending, and is there again after it.
    let begun = std::time::Instant::now();
    assert!(scene.control_plane.terminate().await?.success());
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    scene.control_plane.start_again().await?;
    until("the follower is back, and says that it missed something", PATIENCE, async || {
        let told = told(&follower);
        ensure!(told.iter().any(|told| told["event"] == "lagged"), "{}", told.len());
        Ok(())
    })
    .await?;
    follower.kill();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_knows_the_proxies_of_the_others() -> Result<()> {
    let (Some(program), Some(mut postgres)) = (required::envoy(), Postgres::start().await?) else { return Ok(()) };
    let database = postgres.create_database().await?;
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let left = ControlPlane::start(folder.path(), "left", &database, &authority).await?;
    let mut right = ControlPlane::start(folder.path(), "right", &database, &authority).await?;
    right.start_again_with(&["--replica-name", "right"]).await?;
    left.caller().apply(&[fleet("edge"), listener("web", "edge", free_port())]).await?;
    let proxy = Proxy { fleet: "edge", id: "one", protocol: Protocol::Delta, xds: right.xds, authority: &authority };
    let mut envoy = Envoy::of(&program, folder.path(), &proxy).await?;

    let api = left.caller();
    let seen = async |what: &str, within: Duration, fits: &dyn Fn(&Value) -> bool| {
        until(what, within, async || {
            let status = api.read("/api/v1/proxies/one").await?;
            ensure!(fits(&status), "{status}");
            Ok(status)
        })
        .await
    };
    let synced = |status: &Value, revision: u64| {
        (&status["connected"], &status["replica"]) == (&json!(true), &json!("right"))
            && status["settledRevision"].as_u64() >= Some(revision)
    };
    seen("the other replica knows the proxy", PATIENCE, &|status| synced(status, 1)).await?;
    let revision = api.put(&route_saying("news", HOST, "hello")).await?["revision"].as_u64().context("a number")?;
    seen("the other replica knows what it applied", PATIENCE, &|status| synced(status, revision)).await?;
    let listed = api.read("/api/v1/proxies").await?;
    assert_eq!((&listed["complete"], &listed["items"][0]["id"]), (&json!(true), &json!("one")));
    let elsewhere = api.json(Method::GET, "/api/v1/proxies/one/config", None).await?;
    assert_eq!(elsewhere.status, 421, "{}", elsewhere.text());
    assert!(elsewhere.text().contains("right"), "{}", elsewhere.text());

    right.kill();
    let lost = |status: &Value| status["replicaLost"] == true && status["connected"] == false;
    seen("the replica has fallen silent", LOST_WITHIN, &lost).await?;
    right.start_again().await?;
    seen("the proxy is back", PATIENCE, &|status| synced(status, revision)).await?;

    postgres.stop(Stop::Immediate).await?;
    let alone = right.caller().read("/api/v1/proxies").await?;
    assert_eq!((&alone["complete"], &alone["items"][0]["id"]), (&json!(false), &json!("one")));
    assert_eq!(api.read("/api/v1/proxies").await?, json!({ "items": [], "complete": false }));
    postgres.start_again().await?;

    envoy.terminate().await?;
    seen("the other replica knows that the proxy has gone", PATIENCE, &|status| status["connected"] == false).await?;
    let gone = api.json(Method::GET, "/api/v1/proxies/one/config", None).await?;
    assert_eq!(gone.status, 409, "{}", gone.text());
    Ok(())
}
