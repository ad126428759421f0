//! Replicas over one store, with proxies that answer as they are told.

use chancery_proto::type_url;
use chancery_xds::{Protocol, StreamStatus};
use serde_json::{Value, json};

use super::*;
use crate::{
    model::{Document, Key, Kind},
    proxies::{Connected, Connection, ProxyId},
    publish::{CanaryRejection, RouteForm, Served, Who},
    store::{self, NewChange, NewRevision, Store},
};

const HOST: &str = "web/a.example.com";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A replica.
struct Bench {
    publisher: Arc<Publisher>,
    replica: Arc<Replica>,
    proxies: Arc<Proxies>,
    stages: Stages,
}

/// A proxy that is connected to it.
struct Client {
    id: Name,
    served: Served,
    status: Arc<StreamStatus>,
    _connected: Connected,
}

impl Bench {
    async fn new(store: &Arc<dyn Store>, called: &str) -> Self {
        let publisher = Arc::new(Publisher::new());
        let feed = Arc::new(Feed::new("run".to_owned(), &CancellationToken::new()));
        let replica = Arc::new(Replica::load(store.clone(), publisher.clone(), feed.clone()).await.unwrap());
        let proxies = Arc::new(Proxies::new(called.to_owned(), feed.clone()));
        let loads = Arc::new(Loads::new(Duration::from_secs(1)));
        let stages = Stages::load(replica.clone(), publisher.clone(), proxies.clone(), loads, feed).await.unwrap();
        Self { publisher, replica, proxies, stages }
    }

    fn connect(&self, id: &str, track: &str) -> Client {
        let labels: BTreeMap<_, _> = [("track".to_owned(), track.to_owned())].into();
        let (id, fleet) = (name(id), name("edge"));
        let served = self.publisher.serve(&fleet, RouteForm::ByHost, &Who { id: &id, labels: &labels }).unwrap();
        let status = Arc::new(StreamStatus::default());
        let connected = self.proxies.connect(Connection {
            proxy: Arc::new(ProxyId { fleet: Some(fleet), id: id.clone() }),
            address: None,
            version: None,
            protocol: Protocol::Delta,
            since: SystemTime::now(),
            cache: served.cache.clone(),
            canary: served.rejections.is_some(),
            labels: Arc::new(labels),
            ended: served.ended.clone(),
            status: status.clone(),
        });
        Client { id, served, status, _connected: connected }
    }

    /// Takes in what was committed, and does what follows.
    async fn step(&self) {
        self.replica.catch_up().await.unwrap();
        self.stages.step().await.unwrap();
    }

    async fn state(&self) -> (u64, Option<u64>, Value) {
        let shown = self.stages.list().await.unwrap().pop().unwrap();
        let phase = shown.rollout.last.map(|last| serde_json::to_value(last.phase).unwrap()["name"].clone());
        (shown.rollout.stable, shown.waiting, phase.unwrap_or_default())
    }
}

impl Client {
    /// The body that the only host answers with.
    fn body(&self) -> String {
        let tables = self.served.cache.snapshot();
        let host = tables.table(type_url::VIRTUAL_HOST).resource(HOST).unwrap().body();
        let text = String::from_utf8_lossy(&host).into_owned();
        let bodies = ["first", "second", "third", "fourth"];
        bodies.into_iter().find(|body| text.contains(body)).unwrap().to_owned()
    }

    fn acknowledge(&self) {
        self.status.on_settled(self.served.cache.head());
    }

    fn reject(&self) {
        self.served.rejections.as_ref().unwrap().note(CanaryRejection {
            proxy: self.id.clone(),
            type_url: type_url::VIRTUAL_HOST.into(),
            resources: vec![HOST.into()],
            words: "no such thing".to_owned(),
            at: SystemTime::now(),
            sequence: self.served.cache.head(),
        });
    }
}

/// What the fleet's listener answers with, and who learns of a change of that first.
struct Desk {
    store: Arc<dyn Store>,
    documents: BTreeMap<Key, Arc<Document>>,
}

impl Desk {
    async fn new(rollout: Value) -> Self {
        let store = store::open("sqlite::memory:").await.unwrap();
        let mut desk = Self { store, documents: BTreeMap::new() };
        let spec = json!({ "fleet": "edge", "address": "127.0.0.1", "port": 10000, "protocol": "http" });
        desk.put(json!({ "kind": "Fleet", "name": "edge", "spec": { "rollout": rollout } })).await;
        desk.put(json!({ "kind": "Listener", "name": "web", "spec": spec })).await;
        desk.answers("first").await;
        desk
    }

    async fn answers(&mut self, body: &str) {
        let rules = json!([{ "respond": { "status": 200, "body": body } }]);
        let spec = json!({ "listeners": ["edge/web"], "hosts": ["a.example.com"], "rules": rules });
        self.put(json!({ "kind": "Route", "name": "r", "spec": spec })).await;
    }

    async fn put(&mut self, document: Value) {
        let document: Arc<Document> = Arc::new(serde_json::from_value(document).unwrap());
        let before = self.documents.insert(document.key(), document.clone());
        let changes = vec![NewChange { key: document.key(), before, after: Some(document) }];
        let (author, message, at) = ("ada".to_owned(), String::new(), OffsetDateTime::UNIX_EPOCH);
        let revision = NewRevision { author, message, at, changes, from: String::new() };
        self.store.begin().await.unwrap().commit(revision).await.unwrap();
    }

    async fn bench(&self, called: &str) -> Bench {
        Bench::new(&self.store, called).await
    }
}

fn by_label(on_failure: &str) -> Value {
    json!({ "canary": { "labels": { "track": "canary" } }, "soak": "1s", "onFailure": on_failure })
}

#[tokio::test]
async fn a_revision_comes_to_the_canaries_first_and_what_comes_meanwhile_waits() {
    let mut desk = Desk::new(by_label("return")).await;
    let bench = desk.bench("here").await;
    bench.step().await;
    let (canary, other) = (bench.connect("a", "canary"), bench.connect("b", "stable"));
    desk.answers("second").await;
    bench.step().await;
    assert_eq!((canary.body(), other.body()), ("second".to_owned(), "first".to_owned()));
    assert_eq!(bench.state().await, (3, None, json!("applying")));
    canary.acknowledge();
    bench.step().await;
    desk.answers("third").await;
    bench.step().await;
    assert_eq!(bench.state().await, (3, Some(5), json!("soaking")));
    assert_eq!((canary.body(), other.body()), ("second".to_owned(), "first".to_owned()));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    bench.step().await;
    assert_eq!((canary.body(), other.body()), ("third".to_owned(), "second".to_owned()), "the next begins at once");
    assert_eq!(bench.state().await, (4, None, json!("applying")));
}

#[tokio::test]
async fn a_rejection_returns_the_canaries_and_the_next_revision_is_tried_with_all_since() {
    let mut desk = Desk::new(by_label("return")).await;
    let bench = desk.bench("here").await;
    bench.step().await;
    let (canary, other) = (bench.connect("a", "canary"), bench.connect("b", "stable"));
    desk.answers("second").await;
    bench.step().await;
    assert_eq!(canary.body(), "second");
    canary.reject();
    bench.step().await;
    assert_eq!((canary.body(), other.body()), ("first".to_owned(), "first".to_owned()));
    let shown = bench.stages.list().await.unwrap().pop().unwrap();
    let Some(Tried { phase: Phase::Returned { failure }, .. }) = shown.rollout.last else { panic!("not returned") };
    assert_eq!((failure.proxy.as_deref(), failure.reason.as_str()), (Some("a"), "no such thing"));
    assert_eq!((failure.resource_type.as_deref(), failure.resources), (Some("virtualHost"), vec![HOST.to_owned()]));
    bench.step().await;
    assert_eq!(canary.body(), "first", "it is not tried again");
    // What does not concern the fleet is no reason to try it either.
    desk.put(
        json!({ "kind": "Service", "name": "s", "spec": { "endpoints": [{ "address": "10.0.0.1", "port": 80 }] } }),
    )
    .await;
    bench.step().await;
    assert_eq!((canary.body(), bench.state().await), ("first".to_owned(), (3, None, json!("returned"))));
    desk.answers("third").await;
    bench.step().await;
    assert_eq!((canary.body(), other.body()), ("third".to_owned(), "first".to_owned()));
    canary.acknowledge();
    bench.step().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    bench.step().await;
    assert_eq!((other.body(), bench.state().await), ("third".to_owned(), (6, None, json!("promoted"))));
}

#[tokio::test]
async fn other_replicas_and_those_that_start_again_serve_the_same() {
    let mut desk = Desk::new(by_label("hold")).await;
    let (one, two) = (desk.bench("one").await, desk.bench("two").await);
    one.step().await;
    two.step().await;
    let (canary, other) = (one.connect("a", "canary"), two.connect("b", "stable"));
    let far = two.connect("c", "canary");
    desk.answers("second").await;
    one.step().await;
    assert_eq!((far.body(), other.body()), ("first".to_owned(), "first".to_owned()));
    two.step().await;
    assert_eq!((canary.body(), far.body(), other.body()), ("second".into(), "second".into(), "first".to_owned()));
    canary.acknowledge();
    one.step().await;
    assert_eq!(one.state().await.2, json!("applying"), "there is another canary elsewhere");
    two.step().await;
    let again = desk.bench("again").await;
    let (late, plain) = (again.connect("d", "canary"), again.connect("e", "stable"));
    assert_eq!((late.body(), plain.body()), ("second".to_owned(), "first".to_owned()));
    far.reject();
    two.step().await;
    for bench in [&one, &two, &again] {
        bench.step().await;
        assert_eq!(bench.state().await, (3, None, json!("held")));
    }
    assert_eq!(canary.body(), "second", "that is what hold means");
    one.stages.decide(&name("edge"), Decision::Return, "ada").await.unwrap();
    two.step().await;
    again.step().await;
    for client in [&canary, &far, &late, &plain, &other] {
        assert_eq!(client.body(), "first");
    }
    let started = desk.bench("started").await;
    assert_eq!(started.connect("f", "canary").body(), "first", "what was returned stays so");
    one.stages.decide(&name("edge"), Decision::Promote, "ada").await.unwrap();
    two.step().await;
    assert_eq!((far.body(), other.body()), ("second".to_owned(), "second".to_owned()));
    let refused = two.stages.decide(&name("edge"), Decision::Return, "ada").await;
    assert!(matches!(refused, Err(DecisionError::Undecidable(Undecidable::Nothing))), "{refused:?}");
}

#[tokio::test]
async fn a_share_is_elected_and_has_to_open_its_streams_anew() {
    let mut desk = Desk::new(json!({ "canary": { "percent": 10 }, "soak": "1s" })).await;
    let bench = desk.bench("here").await;
    bench.step().await;
    let mut clients: BTreeMap<Name, Client> =
        ["a", "b", "c"].map(|id| (name(id), bench.connect(id, ""))).into_iter().collect();
    desk.answers("second").await;
    bench.replica.catch_up().await.unwrap();
    let reconnects = async {
        let stray = loop {
            if let Some(client) = clients.values().find(|client| client.served.ended.is_cancelled()) {
                break client.id.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        clients.remove(&stray);
        stray
    };
    let (stepped, stray) = tokio::join!(bench.stages.step(), reconnects);
    stepped.unwrap();
    let canary = bench.connect(stray.as_str(), "");
    assert_eq!(canary.body(), "second");
    assert_eq!(clients.len(), 2);
    assert!(clients.values().all(|client| client.body() == "first" && !client.served.ended.is_cancelled()));
    canary.acknowledge();
    bench.step().await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    bench.step().await;
    assert!(clients.values().all(|client| client.body() == "second"));
    desk.answers("third").await;
    bench.step().await;
    assert_eq!(canary.body(), "third", "it is elected again, and stays connected");
}

#[tokio::test]
async fn without_a_policy_all_get_the_newest_at_once() {
    let mut desk = Desk::new(by_label("return")).await;
    let bench = desk.bench("here").await;
    bench.step().await;
    let (canary, other) = (bench.connect("a", "canary"), bench.connect("b", "stable"));
    desk.answers("second").await;
    bench.step().await;
    assert_eq!(other.body(), "first");
    desk.put(json!({ "kind": "Fleet", "name": "edge", "spec": {} })).await;
    bench.step().await;
    assert_eq!((other.body(), other.served.ended.is_cancelled()), ("second".to_owned(), false));
    assert!(canary.served.ended.is_cancelled(), "it is served from where the others are from now on");
    bench.step().await;
    assert_eq!(desk.store.rollouts().await.unwrap(), []);
    desk.answers("third").await;
    bench.step().await;
    assert_eq!(other.body(), "third");
    assert!(bench.stages.list().await.unwrap().is_empty());
    desk.put(json!({ "kind": "Fleet", "name": "edge", "spec": { "rollout": by_label("return") } })).await;
    bench.step().await;
    desk.answers("fourth").await;
    bench.step().await;
    assert_eq!((bench.connect("a", "canary").body(), other.body()), ("fourth".to_owned(), "third".to_owned()));
}

#[tokio::test]
async fn a_fleet_that_is_gone_is_forgotten() {
    let mut desk = Desk::new(by_label("return")).await;
    let bench = desk.bench("here").await;
    bench.step().await;
    assert_eq!(desk.store.rollouts().await.unwrap().len(), 1);
    for key in
        [Key::new(Kind::Route, name("r")), Key::new(Kind::Listener, name("web")), Key::new(Kind::Fleet, name("edge"))]
    {
        let before = desk.documents.remove(&key);
        let changes = vec![NewChange { key, before, after: None }];
        let (author, message, at) = ("ada".to_owned(), String::new(), OffsetDateTime::UNIX_EPOCH);
        let revision = NewRevision { author, message, at, changes, from: String::new() };
        desk.store.begin().await.unwrap().commit(revision).await.unwrap();
    }
    bench.step().await;
    assert_eq!(desk.store.rollouts().await.unwrap(), []);
}

#[tokio::test]
async fn who_is_behind_takes_nothing_back_when_a_policy_goes_and_comes() {
    let mut desk = Desk::new(by_label("return")).await;
    let (one, two) = (desk.bench("one").await, desk.bench("two").await);
    one.step().await;
    two.step().await;
    let (here, there) = (one.connect("a", "stable"), two.connect("b", "stable"));
    desk.answers("second").await;
    one.step().await;
    one.stages.decide(&name("edge"), Decision::Promote, "ada").await.unwrap();
    two.step().await;
    assert_eq!((here.body(), there.body()), ("second".to_owned(), "second".to_owned()));
    desk.put(json!({ "kind": "Fleet", "name": "edge", "spec": {} })).await;
    one.step().await;
    assert_eq!(desk.store.rollouts().await.unwrap(), []);
    two.stages.step().await.unwrap();
    assert_eq!(there.body(), "second", "it has not heard of the policy's end, and has nothing to go by");
    desk.answers("third").await;
    one.step().await;
    two.stages.step().await.unwrap();
    assert_eq!(desk.store.rollouts().await.unwrap().len(), 1);
    desk.put(json!({ "kind": "Fleet", "name": "edge", "spec": { "rollout": by_label("return") } })).await;
    one.step().await;
    assert_eq!(here.body(), "third", "what was written down by who was behind says nothing of now");
    two.step().await;
    assert_eq!(there.body(), "third");
    desk.answers("fourth").await;
    one.step().await;
    two.step().await;
    assert_eq!((here.body(), there.body()), ("third".to_owned(), "third".to_owned()));
    assert_eq!(two.connect("c", "canary").body(), "fourth");
}
