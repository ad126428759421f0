//! A sidecar under a real control plane: its callers do not notice an endpoint that fails, and it goes on without the
//! control plane, with what it was told.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use chancery_e2e::{
    api::Api,
    certificates::Authority,
    client::{Connection, fetch, get, request},
    control_plane::ControlPlane,
    document::{fleet, listener, route, route_to, service_with},
    port::free_port,
    sidecar::Sidecar,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use http::Method;
use serde_json::json;

const HOST: &str = "shop.example.com";

/// A control plane and a sidecar of it.
struct Scene {
    sidecar: Sidecar,
    api: Api,
    control_plane: ControlPlane,
    // Last, so that it outlives whoever has files in it.
    folder: tempfile::TempDir,
}

impl Scene {
    async fn start(upstreams: &[SocketAddr]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::create(folder.path(), "authority")?;
        let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
        let api = control_plane.caller();
        // No outlier detection here: what puts an endpoint out is the sidecar's own breaker.
        let breaker = json!({ "breaker": { "maxRequests": 500, "maxPending": 500 } });
        let rules = json!([{
            "match": { "path": { "prefix": "/" } },
            "to": [{ "service": "shop" }],
            "timeout": "5s",
            "retry": { "on": ["5xx", "reset", "connect-failure"], "attempts": 2 },
        }]);
        api.apply(&[
            fleet("edge"),
            listener("web", "edge", free_port()),
            service_with("shop", upstreams, breaker),
            route("shop", HOST, &rules),
        ])
        .await?;
        let saved = folder.path().join("saved");
        let more = ["--insecure", "--saved-config", saved.to_str().unwrap_or_default(), "--drain-seconds", "5"];
        let sidecar = Sidecar::start(folder.path(), "side", &authority, control_plane.xds, &more).await?;
        sidecar.ready().await?;
        Ok(Self { sidecar, api, control_plane, folder })
    }
}

/// Requests for so long, one after another; how many, and how many of them failed.
async fn requests(address: SocketAddr, during: Duration) -> Result<(u32, u32)> {
    let until = Instant::now() + during;
    let mut connection = Connection::open(address).await?;
    let (mut all, mut failed) = (0, 0);
    while Instant::now() < until {
        let answer = connection.send(get(HOST, "/")).await?;
        all += 1;
        failed += u32::from(answer.status != 200);
    }
    Ok((all, failed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_do_not_notice_one_of_three_that_fails_and_it_comes_back() -> Result<()> {
    let (bad, one, two) = (Upstream::start("bad").await?, Upstream::start("one").await?, Upstream::start("two").await?);
    bad.answer_with(500);
    let scene = Scene::start(&[bad.address, one.address, two.address]).await?;
    let outbound = scene.sidecar.outbound;
    requests(outbound, Duration::from_secs(1)).await?;
    let before = bad.requests();
    let (all, failed) = requests(outbound, Duration::from_secs(3)).await?;
    ensure!(all > 300, "only {all} requests");
    ensure!(failed * 100 < all, "{failed} of {all} failed");
    ensure!((bad.requests() - before) * 20 < u64::from(all), "{} of {all} were sent to it", bad.requests() - before);
    ensure!(one.requests() > 50 && two.requests() > 50, "{} and {}", one.requests(), two.requests());

    bad.answer_with(200);
    let healed = bad.requests();
    until("it is asked again", PATIENCE, async || {
        requests(outbound, Duration::from_millis(200)).await?;
        let asked = bad.requests() - healed;
        ensure!(asked > 20, "{asked} requests");
        Ok(())
    })
    .await?;
    let clusters = scene.sidecar.page("/clusters").await?;
    let standing = &clusters["clusters"][0]["endpoints"];
    ensure!(standing.as_array().is_some_and(|all| all.iter().all(|one| one["standing"] == "in")), "{clusters}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_arrives_and_what_is_not_looked_at_is_listed() -> Result<()> {
    let (blue, green) = (Upstream::start("blue").await?, Upstream::start("green").await?);
    let scene = Scene::start(&[blue.address]).await?;
    let outbound = scene.sidecar.outbound;
    ensure!(fetch(outbound, get(HOST, "/")).await?.header("x-upstream") == "blue");
    scene
        .api
        .apply_and_wait(&[
            service_with("other", &[green.address], json!({ "protocol": "http2" })),
            route_to("other", "other.example.com", "other"),
        ])
        .await?;
    let answer = fetch(outbound, get("other.example.com", "/")).await?;
    ensure!(answer.header("x-upstream") == "green" && answer.json()?["version"] == "HTTP/2.0", "{}", answer.text());
    let dump = scene.sidecar.page("/config_dump").await?;
    let ignored = |kind: &str, field: &str| {
        let resources = dump["resources"].as_array().into_iter().flatten();
        resources
            .filter(|one| one["type"] == kind)
            .any(|one| one["ignored"].as_array().into_iter().flatten().any(|ignored| ignored == field))
    };
    ensure!(ignored("cluster", "per_connection_buffer_limit_bytes"), "{dump:#}");
    ensure!(!ignored("cluster", "connect_timeout"), "{dump:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_control_plane_it_starts_with_what_it_had() -> Result<()> {
    let blue = Upstream::start("blue").await?;
    let mut scene = Scene::start(&[blue.address]).await?;
    ensure!(fetch(scene.sidecar.outbound, get(HOST, "/")).await?.status == 200);
    scene.control_plane.kill();
    ensure!(fetch(scene.sidecar.outbound, get(HOST, "/")).await?.status == 200);
    // It is written beside the work.
    let saved = scene.folder.path().join("saved");
    until("the routes are saved", PATIENCE, async || {
        let saved = String::from_utf8_lossy(&std::fs::read(&saved)?).into_owned();
        ensure!(saved.contains(HOST), "they are not");
        Ok(())
    })
    .await?;
    scene.sidecar.start_again().await?;
    scene.sidecar.ready().await?;
    ensure!(fetch(scene.sidecar.outbound, get(HOST, "/")).await?.status == 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_refuses_no_call_of_the_application() -> Result<()> {
    let blue = Upstream::start("blue").await?;
    let mut scene = Scene::start(&[blue.address]).await?;
    let outbound = scene.sidecar.outbound;
    let mut application = Connection::open(outbound).await?;
    ensure!(application.send(get(HOST, "/")).await?.status == 200);
    scene.sidecar.ask_to_end()?;
    scene.sidecar.not_ready().await?;
    // The application ends its work, over the connection it has and over a new one.
    ensure!(application.send(request(Method::POST, HOST, "/", &[])).await?.status == 200);
    ensure!(fetch(outbound, get(HOST, "/")).await?.status == 200);
    drop(application);
    scene.sidecar.ended().await?;
    ensure!(!scene.sidecar.log().contains("error:"), "{}", scene.sidecar.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_of_requests_is_counted_by_cluster_and_route() -> Result<()> {
    let (bad, good) = (Upstream::start("bad").await?, Upstream::start("good").await?);
    bad.answer_with(503);
    let scene = Scene::start(&[bad.address, good.address]).await?;
    for _ in 0..40 {
        ensure!(fetch(scene.sidecar.outbound, get(HOST, "/")).await?.status == 200);
    }
    good.answer_with(404);
    bad.answer_with(404);
    until("a 404 comes through", PATIENCE, async || {
        ensure!(fetch(scene.sidecar.outbound, get(HOST, "/")).await?.status == 404);
        Ok(())
    })
    .await?;
    // The only service fails for good: what is left to pay for is not spent at once.
    good.answer_with(503);
    bad.answer_with(503);
    until("a request fails", PATIENCE, async || {
        ensure!(fetch(scene.sidecar.outbound, get(HOST, "/")).await?.status == 503);
        Ok(())
    })
    .await?;
    until("all of it is counted", PATIENCE, async || {
        let metrics = scene.sidecar.metrics().await?;
        let value = |name: &str, labels: &[&str]| {
            let of = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
            metrics.lines().find(of).and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(-1.0)
        };
        let (cluster, route) = (r#"cluster="shop""#, r#"route="shop"#);
        let answered = |class: &str| value("chancery_sidecar_route_requests_total{", &[cluster, route, class]);
        ensure!(answered(r#"outcome="2xx""#) == 40.0, "{metrics}");
        ensure!(answered(r#"outcome="4xx""#) >= 1.0 && answered(r#"outcome="5xx""#) >= 1.0, "{metrics}");
        let took = value("chancery_sidecar_route_request_duration_seconds_count{", &[cluster, route]);
        ensure!(took >= 42.0, "{metrics}");
        ensure!(value("chancery_sidecar_retries_total{", &[cluster, r#"reason="503""#]) >= 1.0, "{metrics}");
        let given_up = value("chancery_sidecar_retries_not_made_total{", &[cluster, r#"reason="tries-spent""#]);
        ensure!(given_up >= 1.0, "{metrics}");
        // Ten a second for ten seconds, less what was spent.
        let left = value("chancery_sidecar_retry_budget{", &[cluster]);
        ensure!((1.0..110.0).contains(&left) && left.fract() == 0.0, "{left} of {metrics}");
        Ok(())
    })
    .await
}
