//! Endpoints in the zone of the proxy are preferred where a service says so, by a real Envoy that has been told its zone.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use chancery_control_plane::model::service::Zone;
use chancery_e2e::{
    bootstrap::{Protocol, Proxy, dynamic_in},
    certificates::Authority,
    client::{fetch, get},
    control_plane::ControlPlane,
    document::{fleet, listener, resource, route_to},
    envoy::Envoy,
    port::free_port,
    required,
    upstream::Upstream,
    wait::{PATIENCE, until},
};
use serde_json::{Value, json};

/// A host of the routes here.
const HOST: &str = "shop.example.com";

/// Requests after which chance has been everywhere it can come to.
const MANY: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_stay_in_the_zone_while_somebody_there_is_well() -> Result<()> {
    let Some(program) = required::envoy() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
    let api = control_plane.caller();
    let port = free_port();
    api.apply(&[fleet("edge"), listener("web", "edge", port)]).await?;
    let (protocol, xds) = (Protocol::Delta, control_plane.xds);
    let proxy = Proxy { fleet: "edge", id: "envoy", protocol, xds, authority: &authority };
    let zone = Zone { region: "eu-1".into(), zone: "a".into() };
    let envoy = Envoy::start(&program, folder.path(), "envoy", &dynamic_in(&proxy, Some(zone))?).await?;
    envoy.live().await?;

    let [here, near, far] =
        [Upstream::start("here").await?, Upstream::start("near").await?, Upstream::start("far").await?];
    let endpoint = |upstream: &Upstream, region: &str, zone: &str| {
        let at = upstream.address;
        json!({ "address": at.ip(), "port": at.port(), "region": region, "zone": zone })
    };
    let shop = |load_balancing: Value| {
        // The same name in another region is another zone.
        let endpoints =
            json!([endpoint(&here, "eu-1", "a"), endpoint(&near, "eu-1", "b"), endpoint(&far, "us-1", "a")]);
        let health = json!({ "path": "/healthz", "interval": "100ms", "unhealthyAfter": 1, "healthyAfter": 1 });
        let spec = json!({ "endpoints": endpoints, "loadBalancing": load_balancing, "healthCheck": health });
        resource("Service", "shop", spec)
    };
    let answering = async |what: &str, wanted: &[&str]| {
        until(what, PATIENCE, async || {
            let mut seen = BTreeSet::new();
            for _ in 0..MANY {
                let response = fetch(([127, 0, 0, 1], port).into(), get(HOST, "/")).await?;
                ensure!(response.status == 200, "{} {}", response.status, response.text());
                seen.insert(response.header("x-upstream").to_owned());
            }
            ensure!(seen.iter().eq(wanted), "{seen:?}");
            Ok(())
        })
        .await
    };
    let everywhere = ["far", "here", "near"];
    api.apply_and_wait(&[shop(json!("round-robin")), route_to("shop", HOST, "shop")]).await?;
    answering("zones do not matter unless the service says so", &everywhere).await?;
    for policy in ["round-robin", "least-request", "random"] {
        api.put_and_wait(&shop(json!({ "policy": policy, "zoneAware": {} }))).await?;
        answering("requests stay in the zone", &["here"]).await?;
    }
    here.answer_health_checks_with(503);
    answering("others help when nobody there is well", &["far", "near"]).await?;
    here.answer_health_checks_with(200);
    answering("requests come back", &["here"]).await?;
    api.put_and_wait(&shop(json!({ "zoneAware": { "minEndpoints": 2 } }))).await?;
    answering("one in the zone is too few", &everywhere).await
}
