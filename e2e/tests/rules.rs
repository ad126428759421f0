//! What a rule of a route can say, each told to a real Envoy and seen in what it does with requests.

use anyhow::Result;
use chancery_e2e::{
    client::request,
    document::{route, service},
    over_both_protocols,
    scene::Scene,
    upstream::{Echo, Upstream},
};
use http::Method;
use serde_json::{Value, json};

/// A host of the routes here.
const HOST: &str = "shop.example.com";

over_both_protocols!(Delta in delta: cookies_and_calls_are_matched);

/// What reached the upstream.
async fn echo(scene: &Scene, path: &str, headers: &[(&str, &str)]) -> Result<Echo> {
    let response = scene.fetch(request(Method::POST, HOST, path, headers)).await?;
    anyhow::ensure!(response.status == 200, "{} {}", response.status, response.text());
    Ok(serde_json::from_slice(&response.body)?)
}

async fn cookies_and_calls_are_matched(scene: &Scene) -> Result<()> {
    let upstream = Upstream::start("shop").await?;
    let seen_by = |matches: Value, rule: &str| {
        let headers = json!({ "request": { "set": [{ "name": "x-rule", "value": rule }] } });
        json!({ "match": matches, "to": [{ "service": "shop" }], "headers": headers })
    };
    let rules = json!([
        seen_by(json!({ "grpc": { "service": "shop.v1.Checkout", "method": "Place" } }), "method"),
        seen_by(json!({ "grpc": { "service": "shop.v1.Checkout" } }), "service"),
        seen_by(json!({ "grpc": {} }), "call"),
        seen_by(json!({ "cookies": [{ "name": "tier", "exact": "gold" }] }), "gold"),
        seen_by(json!({ "cookies": [{ "name": "tier", "regex": "s.*" }, { "name": "id", "present": true }] }), "both"),
        seen_by(json!({ "cookies": [{ "name": "consent", "present": true, "invert": true }] }), "without"),
        seen_by(json!({ "cookies": [{ "name": "consent", "exact": "no", "invert": true }] }), "not no"),
        seen_by(json!({}), "rest"),
    ]);
    scene.api.apply_and_wait(&[service("shop", &[upstream.address]), route("shop", HOST, &rules)]).await?;
    let grpc = ("content-type", "application/grpc+proto");
    for (path, headers, wanted) in [
        ("/shop.v1.Checkout/Place", &[grpc] as &[_], "method"),
        ("/shop.v1.Checkout/Cancel", &[grpc], "service"),
        ("/shop.v1.CheckoutTwo/Place", &[grpc], "call"),
        ("/shop.v1.Checkout/Place", &[("content-type", "application/json"), ("cookie", "consent=no")], "rest"),
        ("/", &[("cookie", "id=7; tier=gold")], "gold"),
        ("/", &[("cookie", "id=7; tier=silver; consent=no")], "both"),
        ("/", &[("cookie", "tier=silver; consent=no")], "rest"),
        ("/", &[("cookie", "Tier=gold; consent=no")], "rest"),
        ("/", &[("cookie", "tier=golden")], "without"),
        ("/", &[], "without"),
        ("/", &[("cookie", "consent=yes")], "not no"),
    ] {
        let seen = echo(scene, path, headers).await?;
        assert_eq!(seen.headers["x-rule"], wanted, "{path} {headers:?}");
    }
    Ok(())
}
