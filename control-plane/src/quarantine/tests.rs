//! Two replicas over one store.

use std::time::SystemTime;

use chancery_proto::type_url;
use chancery_xds::{Name, Version};
use serde_json::{Value, json};

use super::*;
use crate::{
    feed::Feed,
    model::Document,
    publish::{Rejected, Shelf},
    replica::Replica,
    store::{self, NewChange, NewRevision},
};

const HOSTS: &str = type_url::VIRTUAL_HOST;
const HOST: &str = "web/a.example.com";

/// A replica.
struct Bench {
    publisher: Arc<Publisher>,
    replica: Replica,
    keeper: Keeper,
}

impl Bench {
    async fn new(store: &Arc<dyn Store>) -> Self {
        let publisher = Arc::new(Publisher::new());
        let feed = Arc::new(Feed::new("run".to_owned(), &CancellationToken::new()));
        let replica = Replica::load(store.clone(), publisher.clone(), feed).await.unwrap();
        Self { keeper: Keeper::new(publisher.clone(), store.clone()), publisher, replica }
    }

    fn shelf(&self) -> Arc<Shelf> {
        self.publisher.serve_anybody(&"edge".parse().unwrap(), RouteForm::ByHost).unwrap().shelf.unwrap()
    }

    fn names(&self) -> Vec<Name> {
        let tables = self.shelf().cache().snapshot();
        tables.table(HOSTS).resources().map(|resource| resource.name().clone()).collect()
    }

    /// The version of the host that is served.
    fn version(&self) -> Option<Version> {
        self.shelf().cache().snapshot().table(HOSTS).resource(HOST).map(|resource| resource.version())
    }

    fn ack(&self) {
        let (shelf, names) = (self.shelf(), self.names());
        shelf.acknowledged(&HOSTS.into(), shelf.cache().head(), &names, Instant::now());
    }

    fn nack(&self) {
        let (shelf, names) = (self.shelf(), self.names());
        let rejected = Rejected {
            type_url: &HOSTS.into(),
            sequence: shelf.cache().head(),
            set: &names,
            blamed: &[HOST.into()],
            proxy: "one",
            words: "bad",
            at: SystemTime::UNIX_EPOCH,
        };
        assert_eq!(shelf.rejected(&rejected, Instant::now()).len(), 1);
    }
}

async fn commit(store: &Arc<dyn Store>, documents: &[Value]) {
    let documents = documents.iter().map(|document| serde_json::from_value::<Document>(document.clone()).unwrap());
    let changes =
        documents.map(|document| NewChange { key: document.key(), before: None, after: Some(Arc::new(document)) });
    let revision = NewRevision {
        author: "ada".to_owned(),
        message: String::new(),
        at: OffsetDateTime::UNIX_EPOCH,
        changes: changes.collect(),
        from: String::new(),
    };
    store.begin().await.unwrap().commit(revision).await.unwrap();
}

/// A route that answers with `body`.
async fn edit(store: &Arc<dyn Store>, body: &str) {
    let rules = json!([{ "respond": { "status": 200, "body": body } }]);
    let spec = json!({ "listeners": ["edge/web"], "hosts": ["a.example.com"], "rules": rules });
    commit(store, &[json!({ "kind": "Route", "name": "r", "spec": spec })]).await;
}

async fn store() -> Arc<dyn Store> {
    let store = store::open("sqlite::memory:").await.unwrap();
    let fleet = json!({ "kind": "Fleet", "name": "edge", "spec": {} });
    let spec = json!({ "fleet": "edge", "address": "127.0.0.1", "port": 10000, "protocol": "http" });
    commit(&store, &[fleet, json!({ "kind": "Listener", "name": "web", "spec": spec })]).await;
    store
}

#[tokio::test]
async fn another_replica_and_one_that_starts_again_serve_the_last_good_version() {
    let store = store().await;
    let (mut one, mut other) = (Bench::new(&store).await, Bench::new(&store).await);
    edit(&store, "good").await;
    for bench in [&one, &other] {
        bench.replica.catch_up().await.unwrap();
        bench.ack();
    }
    let good = one.version();
    assert!(good.is_some());
    edit(&store, "bad").await;
    one.replica.catch_up().await.unwrap();
    one.nack();
    assert_eq!(one.version(), good);
    one.keeper.step().await.unwrap();
    assert_eq!(store.quarantined().await.unwrap().len(), 1);

    other.keeper.step().await.unwrap();
    assert_eq!(store.quarantined().await.unwrap().len(), 1, "who is behind forgets nothing");
    other.replica.catch_up().await.unwrap();
    let bad = other.version();
    assert_ne!(bad, good);
    other.keeper.step().await.unwrap();
    assert_eq!(other.version(), good);

    let mut again = Bench::new(&store).await;
    assert_eq!(again.version(), bad);
    again.keeper.step().await.unwrap();
    assert_eq!(again.version(), good);
    // When it was served is another matter on each.
    let of = |bench: &Bench| {
        let found = bench.publisher.quarantined().into_iter();
        found.map(|(place, what)| (place, what.rejected, what.good, what.cause)).collect::<Vec<_>>()
    };
    assert_eq!(of(&again), of(&one));

    edit(&store, "better").await;
    again.replica.catch_up().await.unwrap();
    again.keeper.step().await.unwrap();
    assert_eq!(store.quarantined().await.unwrap(), [], "nobody is to be served that any more");
    one.keeper.step().await.unwrap();
    assert_eq!(one.version(), good, "the revision that ended it is on its way");
    one.replica.catch_up().await.unwrap();
    one.keeper.step().await.unwrap();
    assert_eq!((one.version(), one.publisher.quarantined().len()), (again.version(), 0));
}

#[tokio::test]
async fn what_another_replica_found_good_is_released() {
    let store = store().await;
    edit(&store, "good").await;
    let (mut one, mut other) = (Bench::new(&store).await, Bench::new(&store).await);
    edit(&store, "bad").await;
    one.replica.catch_up().await.unwrap();
    other.replica.catch_up().await.unwrap();
    let bad = one.version();
    one.nack();
    one.keeper.step().await.unwrap();
    other.keeper.step().await.unwrap();
    assert_ne!(other.version(), bad);
    let (place, _) = one.publisher.quarantined().pop().unwrap();
    assert!(one.publisher.release(&place));
    for bench in [&mut one, &mut other] {
        bench.keeper.step().await.unwrap();
        assert_eq!((bench.version(), bench.publisher.quarantined().len()), (bad, 0));
    }
    assert_eq!(store.quarantined().await.unwrap(), []);
}

#[tokio::test]
async fn what_was_quarantined_under_an_older_revision_is_forgotten() {
    let store = store().await;
    let mut one = Bench::new(&store).await;
    edit(&store, "bad").await;
    one.replica.catch_up().await.unwrap();
    one.nack();
    assert_eq!(one.version(), None, "there was no good one");
    one.keeper.step().await.unwrap();
    assert_eq!(store.quarantined().await.unwrap().len(), 1);
    edit(&store, "better").await;
    let mut late = Bench::new(&store).await;
    late.keeper.step().await.unwrap();
    assert_eq!((store.quarantined().await.unwrap(), late.publisher.quarantined()), (vec![], vec![]));
}

#[tokio::test]
async fn what_could_not_be_written_is_written_later() {
    let store = store().await;
    let mut one = Bench::new(&store).await;
    edit(&store, "bad").await;
    one.replica.catch_up().await.unwrap();
    one.nack();
    let closed = store::open("sqlite::memory:").await.unwrap();
    closed.close().await;
    let working = std::mem::replace(&mut one.keeper.store, closed);
    assert!(one.keeper.step().await.is_err());
    one.keeper.store = working;
    one.keeper.step().await.unwrap();
    assert_eq!(store.quarantined().await.unwrap().len(), 1);
}
