//! Writes that are sent more than once and made once.

use axum::http::Method;
use serde_json::{Value, json};

use super::fixture::{Answer, Fixture};

/// Sends JSON under a key.
async fn send(api: &Fixture, method: Method, path: &str, key: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    api.send(method, path, &headers, body.to_string()).await
}

fn service(port: u16) -> Value {
    json!({ "kind": "Service", "name": "a", "spec": { "endpoints": [{ "address": "10.0.0.1", "port": port }] } })
}

/// `again` is the answer that `first` was, and says that it is.
#[track_caller]
fn replayed(first: &Answer, again: &Answer) {
    assert_eq!(first.header("idempotent-replayed"), "");
    assert_eq!(again.header("idempotent-replayed"), "true", "{}", again.text);
    assert_eq!(again.seen(), first.seen());
    for name in ["etag", "location", "content-type"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
}

async fn head(api: &Fixture) -> Value {
    api.ask(Method::GET, "/api/v1/revisions?limit=1", &[]).await.body["items"][0]["number"].clone()
}

#[tokio::test]
async fn every_write_that_is_a_revision_is_made_once() {
    let api = Fixture::start().await;
    let apply = json!({ "resources": [service(1)] });
    for (number, (method, path, body)) in [
        (Method::POST, "/api/v1/services", service(80)),
        (Method::PUT, "/api/v1/services/a", service(81)),
        (Method::PATCH, "/api/v1/services/a", json!({ "labels": { "tier": "web" } })),
        (Method::POST, "/api/v1/apply?message=why", apply),
        (Method::POST, "/api/v1/revisions/4/revert", json!(null)),
        (Method::DELETE, "/api/v1/services/a", json!(null)),
    ]
    .into_iter()
    .enumerate()
    {
        let first = send(&api, method.clone(), path, &format!("key-{number}"), &body).await;
        assert!(first.status.is_success(), "{method} {path}: {}", first.text);
        assert_eq!(first.body["revision"], number + 1, "{method} {path}");
        let again = send(&api, method.clone(), path, &format!("\"key-{number}\""), &body).await;
        replayed(&first, &again);
        assert_eq!(head(&api).await, number + 1, "{method} {path}");
    }
    // Long after others have changed what they changed.
    let again = send(&api, Method::POST, "/api/v1/services", "key-0", &service(80)).await;
    assert_eq!((again.status.as_u16(), &again.body["revision"]), (201, &json!(1)));
    api.ask(Method::GET, "/api/v1/services/a", &[]).await.problem(404, "not-found");
}

#[tokio::test]
async fn what_changed_nothing_is_not_made_later() {
    let api = Fixture::start().await;
    let path = "/api/v1/services/a";
    api.json(Method::PUT, path, service(80)).await;
    let first = send(&api, Method::PUT, path, "key", &service(80)).await;
    assert_eq!(first.body, json!({ "revision": 1, "changed": [] }));
    api.json(Method::PUT, path, service(81)).await;
    let again = send(&api, Method::PUT, path, "key", &service(80)).await;
    assert_eq!((again.header("idempotent-replayed"), &again.body), ("true", &first.body));
    assert_eq!(again.header("etag"), "", "the resource is not what it was");
    assert_eq!(head(&api).await, 2);
}

#[tokio::test]
async fn another_request_under_the_key_is_refused() {
    let api = Fixture::start().await;
    assert_eq!(send(&api, Method::PUT, "/api/v1/services/a", "key", &service(80)).await.status, 201);
    for (method, path, body) in [
        (Method::PUT, "/api/v1/services/a", service(81)),
        (Method::PUT, "/api/v1/services/b", service(80)),
        (Method::PUT, "/api/v1/services/a?message=x", service(80)),
        (Method::DELETE, "/api/v1/services/a", json!(null)),
    ] {
        let answer = send(&api, method, path, "key", &body).await;
        answer.problem(422, "idempotency-key-reused");
    }
    let token = json!({ "name": "ci", "role": "admin" });
    let token = api.json(Method::POST, "/api/v1/tokens", token).await.body["token"].as_str().unwrap().to_owned();
    let answer = send(&api.with(&token), Method::PUT, "/api/v1/services/a", "key", &service(82)).await;
    assert_eq!((answer.status.as_u16(), &answer.body["revision"]), (200, &json!(2)), "the keys of others are others");
}

#[tokio::test]
async fn what_was_refused_or_only_tried_is_judged_anew() {
    let api = Fixture::start().await;
    let path = "/api/v1/services/a";
    let refused = send(&api, Method::PATCH, path, "key", &json!({ "labels": { "a": "b" } })).await;
    refused.problem(404, "not-found");
    let tried = send(&api, Method::PUT, "/api/v1/services/a?dryRun=true", "key", &service(80)).await;
    assert_eq!(tried.body["dryRun"], true);
    let made = send(&api, Method::PUT, path, "key", &service(80)).await;
    assert_eq!((made.status.as_u16(), made.header("idempotent-replayed")), (201, ""));
}

#[tokio::test]
async fn many_at_once_are_one() {
    let api = Fixture::start().await;
    let body = service(80);
    let asked = (0..8).map(|_| send(&api, Method::POST, "/api/v1/services", "key", &body));
    let answers = futures_util::future::join_all(asked).await;
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), &answer.body), (201, &answers[0].body), "{}", answer.text);
    }
    assert_eq!(answers.iter().filter(|answer| answer.header("idempotent-replayed").is_empty()).count(), 1);
    assert_eq!(head(&api).await, 1);
}

#[tokio::test]
async fn where_a_key_cannot_be_honoured_it_is_refused() {
    let api = Fixture::start().await;
    let token = json!({ "name": "ci", "role": "viewer" });
    let answer = send(&api, Method::POST, "/api/v1/tokens", "key", &token).await;
    answer.problem(400, "malformed-request");
    assert_eq!(api.ask(Method::GET, "/api/v1/tokens", &[]).await.body["items"], json!([]), "no token was made");
    let answer = send(&api, Method::PUT, "/api/v1/services/a", "a key", &service(80)).await;
    answer.problem(400, "malformed-request");
    assert_eq!(
        send(&api, Method::POST, "/api/v1/plan", "key", &json!({ "resources": [service(80)] })).await.status,
        200
    );
    let large = "x".repeat(9 << 20);
    let headers = [("content-type", "application/json"), ("idempotency-key", "key")];
    api.send(Method::POST, "/api/v1/apply", &headers, large).await.problem(413, "too-large");
}
