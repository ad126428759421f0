//! Proxies report the load of their services, and the API tells it: by a real Envoy, and by clients that would lie.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    bootstrap::Protocol,
    certificates::{Authority, Identity},
    client::get,
    command::User,
    control_plane::{ADMIN_TOKEN, ControlPlane},
    document::{fleet, listener, route_to, service},
    scene::Scene,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use chancery_proto::envoy::{
    core::Node,
    endpoint::{ClusterStats, UpstreamLocalityStats},
    load_stats::{LoadStatsRequest, LoadStatsResponse, load_reporting_service_client::LoadReportingServiceClient},
};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status, Streaming,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity as TlsIdentity},
};

const HOST: &str = "shop.example.com";

/// What the API says of the service `shop` on the fleet `edge`; null if it says nothing.
async fn load_of_shop(api: &chancery_e2e::api::Api) -> Result<Value> {
    Ok(api.read("/api/v1/services/shop/load?fleet=edge").await?["items"][0].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_envoy_counts_is_told_by_service() -> Result<()> {
    let Some(mut scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    scene.control_plane.start_again_with(&["--load-report-interval", "1s"]).await?;
    let shop = Upstream::start("shop").await?;
    scene.api.apply(&[service("shop", &[shop.address]), route_to("shop", HOST, "shop")]).await?;
    // Envoy counts a new cluster from its second report on.
    until("the proxy reports", PATIENCE, async || {
        scene.fetch(get(HOST, "/")).await?;
        let load = load_of_shop(&scene.api).await?;
        ensure!(load["requests"].as_u64() > Some(0), "{load}");
        Ok(())
    })
    .await?;
    // All that was sent before is reported when this one, which is answered last, is.
    shop.answer_with(503);
    ensure!(scene.fetch(get(HOST, "/")).await?.status == 503);
    let before = until("the last request is reported", PATIENCE, async || {
        let load = load_of_shop(&scene.api).await?;
        ensure!(load["errors"] == 1, "{load}");
        Ok(load)
    })
    .await?;

    for status in [200, 200, 200, 404, 500, 503, 200, 503] {
        shop.answer_with(status);
        ensure!(scene.fetch(get(HOST, "/")).await?.status == status);
    }
    shop.answer_after(Duration::from_secs(5));
    let slow = tokio::spawn(chancery_e2e::client::fetch(scene.web, get(HOST, "/slow")));
    let load = until("everything is reported", PATIENCE, async || {
        let load = load_of_shop(&scene.api).await?;
        ensure!(load["inProgress"] == 1 && load["errors"] == 4, "{load}");
        Ok(load)
    })
    .await?;
    let more = |field: &str| load[field].as_u64().zip(before[field].as_u64()).map(|(now, before)| now - before);
    assert_eq!((more("requests"), more("errors")), (Some(8), Some(3)), "{before} then {load}");
    assert_eq!((&load["proxies"], &load["dropped"]), (&1.into(), &0.into()));
    let rate = load["errorRate"].as_f64().context("a rate")?;
    assert!((rate - 4.0 / load["requests"].as_f64().context("a number")?).abs() < 1e-9, "{load}");
    assert!(load["requestsPerSecond"].as_f64().is_some_and(|rate| rate > 0.0), "{load}");
    let listed = scene.api.read("/api/v1/load").await?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "the control plane's own cluster is none: {listed}");
    let user = User::in_folder(scene.folder()).of(&format!("http://{}", scene.control_plane.api), ADMIN_TOKEN);
    let shown = user.asks("load shop --fleet edge -o json").await?;
    assert_eq!((&shown["items"][0]["service"], &shown["items"][0]["errors"]), (&"shop".into(), &4.into()), "{shown}");
    slow.await??;

    // Its numbers go with it.
    scene.envoy.terminate().await?;
    until("nobody reports", PATIENCE, async || {
        let load = load_of_shop(&scene.api).await?;
        ensure!(load.is_null(), "{load}");
        Ok(())
    })
    .await
}

/// A client that reports what it likes.
struct Reporter {
    reports: mpsc::Sender<LoadStatsRequest>,
    answers: Streaming<LoadStatsResponse>,
    node: Node,
}

impl Reporter {
    async fn open(
        control_plane: &ControlPlane,
        authority: &Authority,
        identity: &Identity,
        (fleet, id): (&str, &str),
    ) -> Result<Result<Self, Status>> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(fs::read(authority.file())?))
            .identity(TlsIdentity::from_pem(fs::read(&identity.certificate)?, fs::read(&identity.key)?))
            .domain_name("localhost");
        let channel = Endpoint::new(format!("https://{}", control_plane.xds))?.tls_config(tls)?.connect().await?;
        let node = Node { id: id.to_owned(), cluster: fleet.to_owned(), ..Node::default() };
        let (reports, receiver) = mpsc::channel(4);
        reports.send(LoadStatsRequest { node: Some(node.clone()), cluster_stats: Vec::new() }).await?;
        let call = LoadReportingServiceClient::new(channel).stream_load_stats(ReceiverStream::new(receiver)).await;
        Ok(call.map(|answers| Self { reports, answers: answers.into_inner(), node }))
    }

    /// What it is told first, or why it is refused.
    async fn told(&mut self) -> Result<Result<LoadStatsResponse, Status>> {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.context("nobody answered")?;
        Ok(answer.and_then(|answer| answer.ok_or_else(|| Status::cancelled("it ended"))))
    }

    async fn report(&self, clusters: &[(&str, u64, u64)]) -> Result<()> {
        let cluster_stats = clusters.iter().map(|&(cluster, successes, errors)| ClusterStats {
            cluster_name: cluster.to_owned(),
            upstream_locality_stats: vec![UpstreamLocalityStats {
                total_successful_requests: successes,
                total_error_requests: errors,
                ..UpstreamLocalityStats::default()
            }],
            ..ClusterStats::default()
        });
        let report = LoadStatsRequest { node: Some(self.node.clone()), cluster_stats: cluster_stats.collect() };
        Ok(self.reports.send(report).await?)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_reports_for_its_own_fleet_only() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
    let api = control_plane.caller();
    let shop = service("shop", &[([127, 0, 0, 1], 9).into()]);
    let route = route_to("shop", HOST, "shop");
    api.apply(&[fleet("edge"), fleet("inner"), listener("web", "edge", 10_000), shop, route]).await?;

    let inner = authority.proxy("inner", "one")?;
    let limiter = authority.rate_limiter("one")?;
    let ghost = authority.proxy("ghost", "one")?;
    for (identity, claim) in [
        (&inner, ("edge", "one")),
        (&inner, ("inner", "two")),
        (&limiter, ("rate-limiter", "one")),
        (&ghost, ("ghost", "one")),
    ] {
        let refused = match Reporter::open(&control_plane, &authority, identity, claim).await? {
            Ok(mut reporter) => reporter.told().await?.expect_err("it must not be served"),
            Err(status) => status,
        };
        assert_eq!(refused.code(), Code::PermissionDenied, "{claim:?}: {refused:?}");
    }

    // One that is let in may still not report of what is not its own, nor numbers that break anything.
    let mut own = Reporter::open(&control_plane, &authority, &inner, ("inner", "one")).await??;
    let told = own.told().await??;
    assert!(told.send_all_clusters && told.load_reporting_interval.is_some_and(|interval| interval.seconds == 10));
    own.report(&[("shop", 5, 5), ("../x", 1, 1), ("", 1, 1)]).await?;
    let edge = authority.proxy("edge", "one")?;
    let mut lying = Reporter::open(&control_plane, &authority, &edge, ("edge", "one")).await??;
    lying.told().await??;
    lying.report(&[("shop", u64::MAX, u64::MAX), ("shop", u64::MAX, 0), ("nothing", 1, 1)]).await?;
    until("the report has arrived", PATIENCE, async || {
        let load = load_of_shop(&api).await?;
        ensure!(load["requests"].as_u64() > Some(u64::from(u32::MAX)), "{load}");
        Ok(())
    })
    .await?;
    let listed = api.read("/api/v1/load").await?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");

    // Nor become another on the way.
    lying.node.cluster = "inner".to_owned();
    lying.report(&[("shop", 1, 1)]).await?;
    assert_eq!(lying.told().await?.expect_err("it is ended").code(), Code::InvalidArgument);
    until("nothing is left of it", PATIENCE, async || {
        let load = load_of_shop(&api).await?;
        ensure!(load.is_null(), "{load}");
        Ok(())
    })
    .await
}
