//! Lists, page by page.

use axum::http::Method;
use serde_json::{Value, json};

use super::fixture::{Fixture, api};
use crate::{
    api::router,
    store::{self, ProxyRecord},
};

/// All lists.
const LISTS: [&str; 9] = [
    "services",
    "revisions",
    "proxies",
    "tokens",
    "quarantine",
    "rollouts",
    "load",
    "services/a/load",
    "services/a/endpoints",
];

async fn start() -> Fixture {
    let store = store::open("sqlite::memory:").await.unwrap();
    for id in ["c", "a", "b"] {
        let status = json!({
            "id": id, "role": "proxy", "fleet": "edge", "connected": true, "replica": "other",
            "connectedSince": "2026-11-21T03:00:00Z", "protocol": "delta", "settledRevision": 1, "wantedRevision": 1, "types": {},
        });
        let record = ProxyRecord { fleet: "edge".into(), id: id.into(), connected: true, status: status.to_string() };
        store.record_proxies("other", vec![record]).await.unwrap();
    }
    store.replica_lives("other").await.unwrap();
    let fixture = Fixture::of(router(api(store).await));
    let spec = json!({ "spec": { "registered": true, "endpoints": [] } });
    assert_eq!(fixture.json(Method::PUT, "/api/v1/services/a", spec).await.status, 201);
    for name in ["x", "y", "z"] {
        let token = json!({ "name": name, "role": "viewer" });
        assert_eq!(fixture.json(Method::POST, "/api/v1/tokens", token).await.status, 201);
        let endpoint = json!({ "address": "10.0.0.1", "port": 80 });
        let path = format!("/api/v1/services/a/endpoints/{name}");
        let answer = fixture.json(Method::PUT, &path, endpoint).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let fleet = json!({ "spec": { "rollout": { "canary": { "percent": 10 } } } });
        let answer = fixture.json(Method::PUT, &format!("/api/v1/fleets/{name}"), fleet).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    fixture
}

#[tokio::test]
async fn pages_put_together_are_the_list() {
    let api = start().await;
    for list in ["proxies", "tokens", "services/a/endpoints", "rollouts", "revisions", "fleets"] {
        let ask = async |query: &str| api.ask(Method::GET, &format!("/api/v1/{list}?{query}"), &[]).await.body;
        let whole = ask("").await;
        assert!(whole["items"].as_array().unwrap().len() >= 3, "{list}: {whole}");
        assert_eq!(whole["nextCursor"], Value::Null, "{list}");
        let (mut items, mut query) = (Vec::new(), "limit=1".to_owned());
        loop {
            let page = ask(&query).await;
            let names = page["items"].as_array().unwrap().iter().map(name).collect::<Vec<_>>();
            assert_eq!(names.len(), 1, "{list}: {page}");
            items.extend(names);
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            query = format!("limit=1&cursor={cursor}");
        }
        assert_eq!(items, whole["items"].as_array().unwrap().iter().map(name).collect::<Vec<_>>(), "{list}");
    }
}

/// What an item is called.
fn name(item: &Value) -> Value {
    let fields = ["id", "name", "fleet", "number"];
    fields.into_iter().map(|field| &item[field]).find(|value| !value.is_null()).cloned().unwrap_or_default()
}

#[tokio::test]
async fn every_list_refuses_what_is_no_page() {
    let api = start().await;
    for list in LISTS {
        for query in ["limit=0", "limit=1001", "limit=x", "cursor=", "cursor=%00", "cursor=..%2F..%2Fx%00", "page=2"] {
            let answer = api.ask(Method::GET, &format!("/api/v1/{list}?{query}"), &[]).await;
            answer.problem(400, "malformed-request");
        }
        assert_eq!(api.ask(Method::GET, &format!("/api/v1/{list}?limit=1000"), &[]).await.status, 200, "{list}");
    }
}

/// What lists has pages: a new list cannot forget it.
#[test]
fn every_operation_that_lists_has_pages() {
    let description = serde_json::to_value(crate::api::openapi()).unwrap();
    for (path, item) in description["paths"].as_object().unwrap() {
        let operation = &item["get"];
        let lists = operation["operationId"].as_str().is_some_and(|id| id.starts_with("list"));
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let names: Vec<_> = parameters.filter_map(|parameter| parameter["name"].as_str()).collect();
        assert!(!lists || names.contains(&"limit") && names.contains(&"cursor"), "{path} has {names:?}");
    }
}
