//! What one caller may ask for, what requests may be like, and what browsers are told.

use std::sync::Arc;

use axum::{body::Body, http::Method};
use serde_json::json;

use super::fixture::{Fixture, TOKEN, api};
use crate::{
    api::{Api, Guard, Networks, Rates, router},
    store,
};

async fn engine() -> Api {
    api(store::open("sqlite::memory:").await.unwrap()).await
}

/// An API that takes so many requests a second.
async fn limited(rates: Rates) -> Fixture {
    let trusted: Networks = "0.0.0.0/32".parse().unwrap();
    let guard = Arc::new(Guard::new(&rates, trusted));
    Fixture::of(router(Api { guard, ..engine().await }))
}

#[tokio::test]
async fn a_token_that_asks_too_often_is_told_when_to_come_again() {
    let api = limited(Rates { token: 1, registrations: 1, address: 1000 }).await;
    let first = api.ask(Method::GET, "/api/v1/whoami", &[]).await;
    assert_eq!(first.header("ratelimit-policy"), r#""token";q=10;w=10"#);
    assert_eq!(first.header("ratelimit"), r#""token";r=9;t=1"#);
    for _ in 0..9 {
        assert_eq!(api.ask(Method::GET, "/api/v1/whoami", &[]).await.status, 200);
    }
    let refused = api.ask(Method::GET, "/api/v1/whoami", &[]).await;
    refused.problem(429, "too-many-requests");
    assert_eq!((refused.header("retry-after"), refused.header("ratelimit")), ("1", r#""token";r=0;t=10"#));
    let endpoint = json!({ "address": "10.0.0.1", "port": 80 });
    let renewal = api.json(Method::PUT, "/api/v1/services/a/endpoints/b", endpoint).await;
    assert_eq!((renewal.status.as_u16(), renewal.header("ratelimit")), (404, r#""registrations";r=9;t=1"#));
    let secret = api.json(Method::POST, "/api/v1/tokens", json!({ "name": "ci", "role": "viewer" })).await;
    assert_eq!((secret.status.as_u16(), secret.header("ratelimit")), (201, r#""secrets";r=119;t=1"#));
    let other = api.with(secret.body["token"].as_str().unwrap());
    assert_eq!(other.ask(Method::GET, "/api/v1/whoami", &[]).await.status, 200, "each token has its own");
}

#[tokio::test]
async fn without_a_limit_nothing_is_counted() {
    let api = limited(Rates { token: 0, registrations: 0, address: 0 }).await;
    for _ in 0..50 {
        let answer = api.ask(Method::GET, "/api/v1/whoami", &[]).await;
        assert_eq!((answer.status.as_u16(), answer.header("ratelimit")), (200, ""));
    }
}

#[tokio::test]
async fn an_address_that_asks_too_often_is_refused_before_its_token_is_looked_at() {
    let api = limited(Rates { token: 0, registrations: 0, address: 1 }).await;
    let from = async |address: &str| {
        let headers = [("x-forwarded-for", address)];
        api.bare(Method::GET, "/docs/", &headers, Body::empty()).await
    };
    for _ in 0..10 {
        assert_eq!(from("192.0.2.1").await.status, 200);
    }
    from("192.0.2.1").await.problem(429, "too-many-requests");
    assert_eq!(from("192.0.2.2").await.status, 200);
    from("192.0.2.9, 192.0.2.1").await.problem(429, "too-many-requests");
}

#[tokio::test]
async fn who_guesses_tokens_is_not_looked_at_any_more() {
    let api = limited(Rates::default()).await;
    let ask = async |address: &str, token: &str| {
        let token = format!("Bearer {token}");
        let headers = [("x-forwarded-for", address), ("authorization", token.as_str())];
        api.bare(Method::GET, "/api/v1/whoami", &headers, Body::empty()).await
    };
    for _ in 0..21 {
        ask("192.0.2.1", "chy_wrong").await.problem(401, "unauthorized");
    }
    let refused = ask("192.0.2.1", "chy_wrong").await;
    refused.problem(429, "too-many-requests");
    assert!(["1", "2", "3"].contains(&refused.header("retry-after")));
    ask("192.0.2.1", TOKEN).await.problem(429, "too-many-requests");
    assert_eq!(ask("192.0.2.2", TOKEN).await.status, 200);
    for _ in 0..21 {
        ask("192.0.2.2", "chy_wrong").await;
    }
    ask("192.0.2.2", "chy_wrong").await.problem(429, "too-many-requests");
    assert_eq!(ask("192.0.2.2", TOKEN).await.status, 200, "it was good from there");
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused_with_a_reason() {
    let api = Fixture::of(router(engine().await));
    let long = format!("/api/v1/services?label={}", "x".repeat(16 << 10));
    api.ask(Method::GET, &long, &[]).await.problem(414, "uri-too-long");
    let large = "x".repeat(32 << 10);
    let answer = api.ask(Method::GET, "/api/v1/services", &[("x-large", &large)]).await;
    answer.problem(431, "headers-too-large");
    // Every character of the longest message takes twelve bytes.
    let message = "%F0%9F%92%A9".repeat(1000);
    let path = format!("/api/v1/services/a?message={message}");
    assert_eq!(api.json(Method::PUT, &path, json!({ "spec": { "endpoints": [] } })).await.status, 201);
}

#[tokio::test]
async fn only_what_is_asked_for_anew_is_kept() {
    let api = Fixture::of(router(engine().await));
    api.json(Method::PUT, "/api/v1/services/a", json!({ "spec": { "endpoints": [] } })).await;
    for (path, keeping) in [
        ("/api/v1/services/a", "private, no-cache"),
        ("/docs/", "private, no-cache"),
        ("/api/v1/services", "private, no-cache"),
        ("/api/v1/whoami", "no-store"),
        ("/api/v1/tokens", "no-store"),
        ("/api/v1/nothing", "no-store"),
    ] {
        let answer = api.ask(Method::GET, path, &[]).await;
        assert_eq!(answer.header("cache-control"), keeping, "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"), "{path}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_ask_only_if_that_is_set() {
    let preflight = [
        ("origin", "https://console.example.com"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "authorization, idempotency-key"),
    ];
    let closed = engine().await;
    let open = Api { origins: "https://console.example.com".parse().unwrap(), ..closed.clone() };
    let closed = Fixture::of(router(closed));
    let answer = closed.bare(Method::OPTIONS, "/api/v1/services/a", &preflight, Body::empty()).await;
    answer.problem(401, "unauthorized");
    assert_eq!(answer.header("access-control-allow-origin"), "");

    let open = Fixture::of(router(open));
    let answer = open.bare(Method::OPTIONS, "/api/v1/services/a", &preflight, Body::empty()).await;
    assert_eq!(answer.status, 200, "a browser asks without the token");
    assert_eq!(answer.header("access-control-allow-origin"), "https://console.example.com");
    assert!(answer.header("access-control-allow-methods").contains("PUT"));
    assert!(answer.header("access-control-allow-headers").contains("idempotency-key"));
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    let answer = open.ask(Method::GET, "/api/v1/whoami", &[("origin", "https://console.example.com")]).await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://console.example.com");
    assert!(answer.header("access-control-expose-headers").contains("x-request-id"));
    let refused = open.bare(Method::GET, "/api/v1/whoami", &preflight[..1], Body::empty()).await;
    refused.problem(401, "unauthorized");
    assert_eq!(refused.header("access-control-allow-origin"), "https://console.example.com", "pages see errors too");
    let answer = open.ask(Method::GET, "/api/v1/whoami", &[("origin", "https://evil.example.com")]).await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
}
