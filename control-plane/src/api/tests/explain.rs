//! What the API says of requests.

use axum::http::Method;
use serde_json::{Value, json};

use super::fixture::Fixture;

async fn shop() -> Fixture {
    let fixture = Fixture::start().await;
    let service = |name: &str| json!({ "kind": "Service", "name": name, "spec": { "endpoints": [{ "address": "10.0.0.1", "port": 80 }] } });
    let resources = json!({ "resources": [
        { "kind": "Fleet", "name": "edge", "spec": {} },
        { "kind": "Listener", "name": "web", "spec": { "fleet": "edge", "port": 80, "protocol": "http" } },
        service("shop"),
        service("shop-next"),
        route(&json!([{ "match": { "path": { "prefix": "/api" } }, "to": [{ "service": "shop" }] }])),
    ] });
    assert_eq!(fixture.json(Method::POST, "/api/v1/apply", resources).await.status, 200);
    fixture
}

fn route(rules: &Value) -> Value {
    json!({ "kind": "Route", "name": "shop", "spec": { "listeners": ["edge/web"], "hosts": ["shop.example.com"], "rules": rules } })
}

#[tokio::test]
async fn a_request_is_explained() {
    let fixture = shop().await;
    let explain = async |body: Value| fixture.json(Method::POST, "/api/v1/explain", body).await;
    let answer = explain(json!({ "fleet": "edge", "method": "GET", "url": "http://shop.example.com/api/x",
        "headers": [{ "name": "x-a", "value": "1" }] }))
    .await;
    let at = &answer.body["listeners"][0];
    assert_eq!((answer.status.as_u16(), &answer.body["revision"]), (200, &json!(1)), "{}", answer.text);
    assert_eq!(at["rule"], json!({ "resource": "Route/shop", "path": "spec.rules[0]", "revision": 1 }));
    assert_eq!(at["destination"]["to"][0]["service"]["resource"], "Service/shop");

    let gone = json!({ "fleet": "lab", "method": "GET", "url": "http://shop.example.com/" });
    explain(gone).await.problem(404, "not-found");
    let wrong = |field: &str, value: Value| {
        let mut body = json!({ "fleet": "edge", "method": "GET", "url": "http://shop.example.com/" });
        body[field] = value;
        body
    };
    for (field, value, path) in [
        ("url", json!("shop.example.com"), "url"),
        ("method", json!("G T"), "method"),
        ("headers", json!([{ "name": "a b", "value": "1" }]), "headers"),
        ("headers", json!([{ "name": "a" }]), "headers[0]"),
        ("fleet", json!("Not A Name"), "fleet"),
        ("flet", json!("edge"), "flet"),
    ] {
        let answer = explain(wrong(field, value)).await;
        assert_eq!(answer.problem(422, "invalid")["problems"][0]["path"], path, "{}", answer.text);
    }
}

#[tokio::test]
async fn traffic_that_a_change_moves_is_listed() {
    let fixture = shop().await;
    let rules = json!([
        { "match": { "path": { "prefix": "/api/cart" } }, "to": [{ "service": "shop-next" }] },
        { "match": { "path": { "prefix": "/api" } }, "to": [{ "service": "shop" }] },
    ]);
    let seen = |method: &str, path: &str, count: u64| json!({ "method": method, "authority": "shop.example.com", "path": path, "count": count });
    let plan = async |resources: Value, requests: Value| {
        let body = json!({ "fleet": "edge", "resources": resources, "requests": requests });
        fixture.json(Method::POST, "/api/v1/plan/traffic", body).await
    };
    let requests =
        json!([seen("GET", "/api/x", 5), seen("GET", "/api/cart", 7), seen("G T", "/", 2), seen("GET", "/other", 1)]);
    let answer = plan(json!([route(&rules)]), requests).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let numbers = ["revision", "requests", "movedRequests", "unreadable"].map(|field| answer.body[field].as_u64());
    assert_eq!(numbers, [Some(1), Some(13), Some(7), Some(2)]);
    let moved = answer.body["moved"].as_array().unwrap();
    assert_eq!((moved.len(), &moved[0]["listener"]), (1, &json!("Listener/web")), "{}", answer.text);
    let service = |goal: &Value| goal["destination"]["to"][0]["service"]["resource"].clone();
    assert_eq!([service(&moved[0]["before"]), service(&moved[0]["after"])], ["Service/shop", "Service/shop-next"]);
    assert_eq!(fixture.ask(Method::GET, "/api/v1/routes/shop", &[]).await.body["revision"], 1, "nothing is written");

    plan(json!([]), json!([])).await.problem(422, "invalid");
    let dangling = route(&json!([{ "to": [{ "service": "gone" }] }]));
    plan(json!([dangling]), json!([])).await.problem(422, "invalid");
    let many: Vec<Value> = (0..5001).map(|_| seen("GET", "/", 1)).collect();
    let refused = plan(json!([route(&rules)]), many.into()).await;
    assert_eq!(refused.problem(422, "invalid")["problems"][0]["path"], "requests");
}
