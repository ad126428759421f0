//! Events as they leave, read while they come.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, BodyDataStream},
    http::{Method, Request, StatusCode},
};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::fixture::{Fixture, TOKEN, api};
use crate::{
    api::{Api, router},
    feed::Event,
    store,
};

/// An open stream of events.
struct Reader {
    body: BodyDataStream,
    text: String,
}

impl Reader {
    async fn open(router: &Router, path: &str, last: Option<&str>) -> Self {
        Self::open_with(TOKEN, router, path, last).await
    }

    async fn open_with(token: &str, router: &Router, path: &str, last: Option<&str>) -> Self {
        let mut request = Request::get(path).header("authorization", format!("Bearer {token}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut reader = Self { body: response.into_body().into_data_stream(), text: String::new() };
        assert_eq!(reader.block().await.as_deref(), Some(": listening\nretry: 2000"));
        reader
    }

    /// What comes next, up to an empty line; none at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let chunk = tokio::time::timeout(Duration::from_secs(60), self.body.next()).await.expect("something comes");
            self.text.push_str(std::str::from_utf8(&chunk?.unwrap()).unwrap());
        }
    }

    /// Id, name and data of the next event.
    async fn event(&mut self) -> (String, String, Value) {
        let block = self.block().await.unwrap();
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_default().to_owned()
        };
        (field("id"), field("event"), serde_json::from_str(&field("data")).unwrap())
    }
}

async fn start() -> (Api, Router) {
    let api = api(store::open("sqlite::memory:").await.unwrap()).await;
    (api.clone(), router(api))
}

#[tokio::test]
async fn a_token_that_is_revoked_hears_no_more() {
    let (api, router) = start().await;
    let admin = Fixture::of(router.clone());
    let made = admin.json(Method::POST, "/api/v1/tokens", json!({ "name": "eve", "role": "viewer" })).await;
    let made: Value = serde_json::from_str(&made.text).unwrap();
    let mut reader = Reader::open_with(made["token"].as_str().unwrap(), &router, "/api/v1/events", None).await;
    api.feed.tell(|| settled("one", 1));
    assert_eq!(reader.event().await.1, "settled");
    let revoked = admin.ask(Method::DELETE, &format!("/api/v1/tokens/{}", made["id"].as_str().unwrap()), &[]).await;
    assert_eq!(revoked.status, StatusCode::OK, "{}", revoked.text);
    api.feed.tell(|| settled("one", 2));
    assert_eq!(reader.block().await, None);
}

fn settled(proxy: &str, revision: u64) -> Event {
    Event::Settled { proxy: proxy.to_owned(), fleet: "edge".to_owned(), revision }
}

#[tokio::test]
async fn a_revision_and_what_proxies_do_are_told_with_ids() {
    let (api, router) = start().await;
    let mut reader = Reader::open(&router, "/api/v1/events?fleet=edge&proxy=one", None).await;
    let body = json!({ "message": "why", "resources": [{ "kind": "Fleet", "name": "edge", "spec": {} }] });
    let written = Fixture::of(router.clone()).json(Method::POST, "/api/v1/apply", body).await;
    assert_eq!(written.status, StatusCode::OK, "{}", written.text);
    api.feed.tell(|| settled("two", 1));
    api.feed.tell(|| settled("one", 1));

    let (id, name, mut data) = reader.event().await;
    assert_eq!((id.as_str(), name.as_str()), ("run-1", "revision"));
    assert!(data["at"].take().is_string());
    let expected = json!({ "at": null, "event": "revision", "revision": 1, "author": "admin", "message": "why", "changeCount": 1 });
    assert_eq!(data, expected);
    let (id, name, data) = reader.event().await;
    assert_eq!((id.as_str(), name.as_str(), &data["proxy"]), ("run-3", "settled", &json!("one")));

    drop(reader);
    api.feed.tell(|| settled("three", 1));
    let mut again = Reader::open(&router, "/api/v1/events", Some("run-1")).await;
    for expected in ["run-2", "run-3", "run-4"] {
        assert_eq!(again.event().await.0, expected);
    }
    let mut filtered = Reader::open(&router, "/api/v1/events?proxy=three", Some("run-1")).await;
    assert_eq!(filtered.event().await.0, "run-4");
    let mut stranger = Reader::open(&router, "/api/v1/events", Some("another-1")).await;
    let (id, name, data) = stranger.event().await;
    assert_eq!((id.as_str(), name.as_str(), data), ("", "lagged", json!({ "event": "lagged", "missed": null })));
}

#[tokio::test]
async fn a_stream_ends_when_the_feed_does() {
    let (api, router) = start().await;
    let mut reader = Reader::open(&router, "/api/v1/events", None).await;
    api.feed.tell(|| settled("one", 1));
    assert_eq!(reader.event().await.1, "settled");
    api.feed.end();
    assert_eq!(reader.block().await, None);
}

#[tokio::test]
async fn events_need_a_token_and_have_room_for_so_many() {
    let (api, router) = start().await;
    let fixture = Fixture::of(router.clone());
    fixture.bare(Method::GET, "/api/v1/events", &[], Body::empty()).await.problem(401, "unauthorized");
    fixture.ask(Method::GET, "/api/v1/events?flet=edge", &[]).await.problem(400, "malformed-request");
    let listeners: Vec<_> = std::iter::from_fn(|| api.feed.listen(None).ok()).collect();
    fixture.ask(Method::GET, "/api/v1/events", &[]).await.problem(429, "too-many-listeners");
    drop(listeners);
    Reader::open(&router, "/api/v1/events", None).await;
}
