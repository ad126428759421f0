//! What proxies report, as the API tells it.

use std::time::Instant;

use axum::http::Method;
use chancery_proto::envoy::endpoint::{ClusterStats, UpstreamLocalityStats};
use serde_json::json;

use super::fixture::{self, Fixture};
use crate::{api::router, store};

#[tokio::test]
async fn the_load_of_services_is_told_by_fleet() {
    let api = fixture::api(store::open("sqlite::memory:").await.unwrap()).await;
    let loads = api.loads.clone();
    let fixture = Fixture::of(router(api));
    let resources = json!({ "resources": [
        { "kind": "Fleet", "name": "edge", "spec": {} },
        { "kind": "Listener", "name": "web", "spec": { "fleet": "edge", "port": 80, "protocol": "http" } },
        { "kind": "Service", "name": "shop", "spec": { "endpoints": [{ "address": "10.0.0.1", "port": 80 }] } },
        { "kind": "Route", "name": "shop", "spec": { "listeners": ["edge/web"], "hosts": ["*"],
            "rules": [{ "to": [{ "service": "shop" }] }] } },
    ] });
    assert_eq!(fixture.json(Method::POST, "/api/v1/apply", resources).await.status, 200);
    let get = async |path: &str| fixture.ask(Method::GET, path, &[]).await;
    assert_eq!(get("/api/v1/load").await.seen(), (200, &json!({ "items": [] })));
    assert_eq!(get("/api/v1/services/shop/load").await.seen(), (200, &json!({ "items": [] })));

    let now = Instant::now();
    let streams = ["edge", "other"].map(|fleet| loads.connect(fleet.parse().unwrap(), "one".parse().unwrap(), now));
    let locality = UpstreamLocalityStats {
        total_successful_requests: 75,
        total_error_requests: 25,
        total_requests_in_progress: 3,
        ..UpstreamLocalityStats::default()
    };
    let stats = ClusterStats {
        cluster_name: "shop".into(),
        upstream_locality_stats: vec![locality],
        total_dropped_requests: 4,
        ..ClusterStats::default()
    };
    for stream in &streams {
        stream.report(std::slice::from_ref(&stats), now, |cluster| cluster.parse().ok());
    }
    let answer = get("/api/v1/services/shop/load").await;
    let mut item = answer.body["items"][0].clone();
    assert!(item["since"].take().is_string());
    let shop = json!({ "service": "shop", "fleet": "edge", "requestsPerSecond": 10.0, "errorRate": 0.25, "inProgress": 3,
        "requests": 100, "errors": 25, "dropped": 4, "proxies": 1, "since": null });
    assert_eq!(
        (item, answer.body["items"].as_array().map(Vec::len)),
        (shop, Some(1)),
        "the other fleet has no route to it"
    );
    assert_eq!(get("/api/v1/load?fleet=edge").await.body["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(get("/api/v1/load?fleet=lab").await.seen(), (200, &json!({ "items": [] })));

    get("/api/v1/services/gone/load").await.problem(404, "not-found");
    get("/api/v1/load?fleet=Not%20A%20Name").await.problem(400, "malformed-request");
    get("/api/v1/load?flet=edge").await.problem(400, "malformed-request");
}
