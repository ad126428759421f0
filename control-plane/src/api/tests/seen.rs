//! What fleets have seen, as the API tells it and plans with it.

use axum::http::Method;
use serde_json::json;
use time::OffsetDateTime;

use super::fixture::{self, Fixture};
use crate::{api::router, seen::Request, store};

#[tokio::test]
async fn what_a_fleet_has_seen_is_listed_and_planned_with() {
    let api = fixture::api(store::open("sqlite::memory:").await.unwrap()).await;
    let seen = api.seen.clone();
    let admin = Fixture::of(router(api));
    let route = |path: &str| {
        json!({ "kind": "Route", "name": "shop", "spec": { "listeners": ["edge/web"], "hosts": ["*"],
            "rules": [{ "match": { "path": { "exact": path } }, "respond": { "status": 200 } }] } })
    };
    let resources = json!({ "resources": [
        { "kind": "Fleet", "name": "edge", "spec": {} },
        { "kind": "Team", "name": "a", "spec": {} },
        { "kind": "Listener", "name": "web", "spec": { "fleet": "edge", "port": 80, "protocol": "http" } },
        route("/cart"),
    ] });
    assert_eq!(admin.json(Method::POST, "/api/v1/apply", resources).await.status, 200);
    let get = async |path: &str| admin.ask(Method::GET, path, &[]).await;
    let nothing = json!({ "fleet": "edge", "requests": 0, "leftOut": 0, "since": null, "items": [] });
    assert_eq!(get("/api/v1/traffic?fleet=edge").await.seen(), (200, &nothing));

    let proxy = seen.connect(&"edge".parse().unwrap(), "one".parse().unwrap(), |_| true).unwrap();
    let request = |path: &str| Some(Request { method: "GET", authority: "a".into(), path: path.into() });
    proxy.note(vec![request("/cart"), None, request("/else"), request("/cart")], OffsetDateTime::UNIX_EPOCH);
    let at = "1970-01-01T00:00:00Z";
    let item = |path: &str, count: u64| json!({ "method": "GET", "authority": "a", "path": path, "count": count, "lastSeen": at });
    let told = json!({ "fleet": "edge", "requests": 4, "leftOut": 1, "since": at, "items": [item("/cart", 2), item("/else", 1)] });
    assert_eq!(get("/api/v1/traffic?fleet=edge").await.seen(), (200, &told));
    get("/api/v1/traffic?fleet=lab").await.problem(404, "not-found");
    get("/api/v1/traffic?fleet=Not%20A%20Name").await.problem(400, "malformed-request");
    get("/api/v1/traffic").await.problem(400, "malformed-request");

    let question = json!({ "resources": [route("/else")], "seen": { "fleet": "edge" } });
    let plan = admin.json(Method::POST, "/api/v1/plan/traffic", question.clone()).await;
    assert_eq!((&plan.body["requests"], &plan.body["movedRequests"]), (&json!(3), &json!(3)), "{}", plan.text);
    for wrong in [json!({ "resources": [] }), json!({ "resources": [], "requests": [], "seen": { "fleet": "edge" } })] {
        let answer = admin.json(Method::POST, "/api/v1/plan/traffic", wrong).await;
        assert_eq!(answer.problems(), ["#: needs exactly one of requests and seen"], "{}", answer.text);
    }

    // It cannot be told apart by team.
    let made =
        admin.json(Method::POST, "/api/v1/tokens", json!({ "name": "a-ci", "role": "owner", "teams": ["a"] })).await;
    let ours = admin.with(made.body["token"].as_str().unwrap());
    let denied = ours.ask(Method::GET, "/api/v1/traffic?fleet=edge", &[]).await;
    let refused = ours.json(Method::POST, "/api/v1/plan/traffic", question).await;
    assert_eq!((denied.status.as_u16(), refused.status.as_u16()), (403, 403), "{} {}", denied.text, refused.text);
}
