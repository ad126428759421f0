//! The API over an engine of its own, asked without a socket.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use rand::{SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use time::OffsetDateTime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::{
    api::{Api, Guard, Networks, Origins, Rates, router},
    audit::Audit,
    commit::Commit,
    enrolment::Enrolments,
    feed::Feed,
    identity::{authority::Authority, token::AdminToken},
    load::Loads,
    proxies::Proxies,
    publish::Publisher,
    registry::Registry,
    replica::Replica,
    rollout::Stages,
    store::{self, Store},
    tokens::Tokens,
};

/// An engine over `store`.
pub(super) async fn api(store: Arc<dyn Store>) -> Api {
    let publisher = Arc::new(Publisher::new());
    let feed = Arc::new(Feed::new("run".to_owned(), &CancellationToken::new()));
    let replica = Arc::new(Replica::load(store.clone(), publisher.clone(), feed.clone()).await.unwrap());
    let proxies = Arc::new(Proxies::new("here".to_owned(), feed.clone()));
    let loads = Arc::new(Loads::new(Duration::from_secs(10)));
    let stages = Stages::load(replica.clone(), publisher.clone(), proxies.clone(), loads.clone(), feed.clone());
    let stages = Arc::new(stages.await.unwrap());
    let tokens = Arc::new(Tokens::load(store.clone()).await.unwrap());
    let audit = Arc::new(Audit::new(store.clone()));
    let enrolments = Arc::new(Enrolments::new(store.clone(), Some(authority())));
    let (registry, batches) = Registry::load(store, publisher.clone()).await.unwrap();
    let registry = Arc::new(registry);
    tokio::spawn(batches.run(registry.clone(), CancellationToken::new()));
    Api {
        publisher,
        commit: Commit::new(replica.clone(), None, TaskTracker::new()),
        replica,
        proxies,
        feed,
        loads,
        seen: Arc::default(),
        stages,
        registry,
        admin_token: Arc::new(admin_token()),
        tokens,
        enrolments,
        audit,
        guard: Arc::new(Guard::new(&Rates::default(), Networks::default())),
        sign_in: None,
        origins: Origins::default(),
    }
}

pub(super) const TOKEN: &str = "chy_sixteen-characters-or-more";

/// A CA that nobody trusts.
fn authority() -> Authority {
    let folder = tempfile::tempdir().unwrap();
    Authority::load_or_create(folder.path(), "test.example", OffsetDateTime::now_utc()).unwrap()
}

fn admin_token() -> AdminToken {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin-token");
    std::fs::write(&path, TOKEN).unwrap();
    AdminToken::load_or_create(&path, &mut StdRng::seed_from_u64(1)).unwrap()
}

/// An API with nothing in it, and the token that it is asked with.
pub(super) struct Fixture {
    router: Router,
    token: String,
}

/// An answer, read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
    pub(super) body: Value,
}

impl Fixture {
    pub(super) async fn start() -> Self {
        Self::of(router(api(store::open("sqlite::memory:").await.unwrap()).await))
    }

    pub(super) fn of(router: Router) -> Self {
        Self { router, token: TOKEN.to_owned() }
    }

    /// The same API, asked with another token.
    pub(super) fn with(&self, token: &str) -> Self {
        Self { router: self.router.clone(), token: token.to_owned() }
    }

    /// Asks with the token; `body` is JSON.
    pub(super) async fn json(&self, method: Method, path: &str, body: Value) -> Answer {
        self.send(method, path, &[("content-type", "application/json")], body.to_string()).await
    }

    /// Asks with the token and without a body.
    pub(super) async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(method, path, headers, Body::empty()).await
    }

    /// Asks with the token.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let token = format!("Bearer {}", self.token);
        let headers: Vec<_> = headers.iter().copied().chain([("authorization", token.as_str())]).collect();
        self.bare(method, path, &headers, body).await
    }

    /// Asks with what is given and nothing else.
    pub(super) async fn bare(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Answer { status: parts.status, headers: parts.headers, text, body }
    }
}

impl Answer {
    /// Status and whole body.
    pub(super) fn seen(&self) -> (u16, &Value) {
        (self.status.as_u16(), &self.body)
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The problem that it is, by slug and status.
    #[track_caller]
    pub(super) fn problem(&self, status: u16, slug: &str) -> &Value {
        let kind = format!("https://chancery.dev/problems/{slug}");
        assert_eq!((self.status.as_u16(), &self.body["type"]), (status, &Value::from(kind)), "{}", self.text);
        assert_eq!(self.header(header::CONTENT_TYPE.as_str()), "application/problem+json");
        assert_eq!(self.body["status"], status);
        &self.body
    }

    /// Resource, path and reason of every problem it lists.
    pub(super) fn problems(&self) -> Vec<String> {
        let listed: Vec<BTreeMap<String, String>> =
            serde_json::from_value(self.body["problems"].clone()).unwrap_or_default();
        listed
            .iter()
            .map(|problem| format!("{}#{}: {}", problem["resource"], problem["path"], problem["reason"]))
            .collect()
    }
}
