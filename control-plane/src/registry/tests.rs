use chancery_proto::{Message as _, any, envoy::endpoint::ClusterLoadAssignment, google::protobuf::Any, type_url};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;
use crate::{
    feed::Feed,
    model::{Document, endpoint::Health},
    publish::RouteForm,
    replica::Replica,
    store::{self, LeaseAction, NewChange, NewRevision},
};

const LONG: Duration = Duration::from_secs(600);

/// A control plane without its API.
struct Scene {
    store: Arc<dyn Store>,
    publisher: Arc<Publisher>,
    replica: Replica,
    registry: Arc<Registry>,
    batches: Option<Batches>,
}

impl Scene {
    /// Fleet `edge`, and a route to service `checkout`, which has the endpoint 10.0.0.1 of its own.
    async fn start(registered: bool) -> Self {
        let store = store::open("sqlite::memory:").await.unwrap();
        let listener = json!({ "fleet": "edge", "address": "127.0.0.1", "port": 80, "protocol": "http" });
        let rules = json!([{ "to": [{ "service": "checkout" }] }]);
        let route = json!({ "listeners": ["edge/web"], "hosts": ["a.example.com"], "rules": rules });
        commit(&store, "Fleet", "edge", json!({})).await;
        commit(&store, "Listener", "web", listener).await;
        commit(&store, "Service", "checkout", service(registered)).await;
        commit(&store, "Route", "shop", route).await;
        Self::over(store).await
    }

    async fn over(store: Arc<dyn Store>) -> Self {
        let publisher = Arc::new(Publisher::new());
        let feed = Arc::new(Feed::new("run".to_owned(), &CancellationToken::new()));
        let replica = Replica::load(store.clone(), publisher.clone(), feed).await.unwrap();
        let (registry, batches) = Registry::load(store.clone(), publisher.clone()).await.unwrap();
        Self { store, publisher, replica, registry: Arc::new(registry), batches: Some(batches) }
    }

    async fn register(&self, id: &str, last: u8) {
        self.act(id, registration(last)).await;
    }

    async fn act(&self, id: &str, action: LeaseAction) {
        self.store.write_leases(&[lease_write(id, action)]).await.unwrap();
        self.registry.catch_up().await.unwrap();
    }

    /// What the service is from now on.
    async fn service(&self, registered: bool) {
        commit(&self.store, "Service", "checkout", service(registered)).await;
        self.replica.catch_up().await.unwrap();
    }

    /// The last parts of the addresses that a proxy of the fleet is sent.
    fn endpoints(&self, form: RouteForm) -> Vec<u8> {
        let served = self.publisher.serve_anybody(&"edge".parse().unwrap(), form).unwrap();
        let tables = served.cache.snapshot();
        let resource = tables.table(type_url::ENDPOINT).resource("checkout").unwrap();
        let assignment: ClusterLoadAssignment = any::unpack(&Any::decode(resource.any_bytes()).unwrap()).unwrap();
        let hosts = assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
        let debug = hosts.map(|host| format!("{host:?}"));
        debug.map(|text| text.split("10.0.0.").nth(1).unwrap().split('"').next().unwrap().parse().unwrap()).collect()
    }

    /// The sequence and how many of each type there are, except endpoints.
    fn versions(&self) -> Vec<String> {
        let served = self.publisher.serve_anybody(&"edge".parse().unwrap(), RouteForm::ByHost).unwrap();
        let tables = served.cache.snapshot();
        let types = [type_url::CLUSTER, type_url::LISTENER, type_url::ROUTE, type_url::VIRTUAL_HOST];
        let all = types.iter().flat_map(|type_url| tables.table(type_url).changes_since(0).unwrap());
        all.map(|(name, kept)| format!("{name} {kept:?}")).collect()
    }
}

fn registration(last: u8) -> LeaseAction {
    let endpoint = RegisteredEndpoint {
        address: [10, 0, 0, last].into(),
        port: 80,
        priority: 0,
        weight: 1,
        labels: Default::default(),
        zone: None,
        health: Health::Healthy,
    };
    LeaseAction::Register { endpoint, ttl: LONG }
}

fn lease_write(id: &str, action: LeaseAction) -> LeaseWrite {
    LeaseWrite { service: "checkout".parse().unwrap(), id: id.parse().unwrap(), action }
}

fn service(registered: bool) -> Value {
    json!({ "endpoints": [{ "address": "10.0.0.1", "port": 80 }], "registered": registered })
}

async fn commit(store: &Arc<dyn Store>, kind: &str, name: &str, spec: Value) {
    let document: Document = serde_json::from_value(json!({ "kind": kind, "name": name, "spec": spec })).unwrap();
    let change = NewChange { key: document.key(), before: None, after: Some(Arc::new(document)) };
    let (author, message, at) = ("ada".to_owned(), String::new(), OffsetDateTime::UNIX_EPOCH);
    let revision = NewRevision { author, message, at, changes: vec![change], from: String::new() };
    store.begin().await.unwrap().commit(revision).await.unwrap();
}

#[tokio::test]
async fn what_registers_stands_beside_what_the_catalog_says_and_changes_nothing_else() {
    let scene = Scene::start(true).await;
    let before = scene.versions();
    scene.register("a", 2).await;
    scene.register("b", 3).await;
    for form in [RouteForm::ByHost, RouteForm::Whole] {
        assert_eq!(scene.endpoints(form), [1, 2, 3], "{form:?}");
    }
    scene.act("a", LeaseAction::Remove).await;
    for form in [RouteForm::ByHost, RouteForm::Whole] {
        assert_eq!(scene.endpoints(form), [1, 3], "{form:?}");
    }
    assert_eq!(scene.versions(), before);
}

#[tokio::test]
async fn a_revision_of_the_service_keeps_what_is_registered() {
    let scene = Scene::start(true).await;
    scene.register("a", 2).await;
    let spec = json!({ "endpoints": [{ "address": "10.0.0.9", "port": 80 }], "registered": true });
    commit(&scene.store, "Service", "checkout", spec).await;
    scene.replica.catch_up().await.unwrap();
    assert_eq!(scene.endpoints(RouteForm::ByHost), [9, 2]);
}

#[tokio::test]
async fn the_service_says_whether_registered_endpoints_are_used() {
    let scene = Scene::start(false).await;
    scene.register("a", 2).await;
    assert_eq!(scene.endpoints(RouteForm::ByHost), [1]);
    scene.service(true).await;
    assert_eq!(scene.endpoints(RouteForm::ByHost), [1, 2]);
    scene.service(false).await;
    assert_eq!(scene.endpoints(RouteForm::ByHost), [1]);
}

#[tokio::test]
async fn a_start_serves_what_was_registered() {
    let before = Scene::start(true).await;
    before.register("a", 2).await;
    let scene = Scene::over(before.store.clone()).await;
    assert_eq!(scene.endpoints(RouteForm::ByHost), [1, 2]);
}

#[tokio::test]
async fn who_forgot_too_much_reads_everything_anew() {
    let scene = Scene::start(true).await;
    scene.register("a", 2).await;
    scene
        .store
        .write_leases(&[lease_write("a", LeaseAction::Remove), lease_write("b", registration(3))])
        .await
        .unwrap();
    scene.registry.reload().await.unwrap();
    assert_eq!(scene.endpoints(RouteForm::ByHost), [1, 3]);
    scene.store.write_leases(&[lease_write("b", LeaseAction::Remove)]).await.unwrap();
    scene.registry.reload().await.unwrap();
    assert_eq!(scene.endpoints(RouteForm::ByHost), [1]);
}

#[tokio::test]
async fn writes_at_the_same_time_are_one_batch_and_each_hears_of_its_own() {
    let mut scene = Scene::start(true).await;
    let registry = scene.registry.clone();
    let one = |id: &str, action| registry.write(vec![lease_write(id, action)]);
    let (stop, batches) = (CancellationToken::new(), scene.batches.take().unwrap());
    let running = tokio::spawn(batches.run(registry.clone(), stop.clone()));
    let (a, b, again, nobody, c) = tokio::join!(
        one("a", registration(2)),
        one("b", registration(3)),
        one("a", registration(4)),
        one("nobody", LeaseAction::Renew),
        one("c", registration(5)),
    );
    assert_eq!((a.unwrap(), b.unwrap(), again.unwrap(), c.unwrap()), (vec![], vec![], vec![], vec![]));
    assert_eq!(nobody.unwrap(), ["nobody".parse::<EndpointId>().unwrap()]);
    let all = scene.store.registrations().await.unwrap();
    assert_eq!((all.sequence, all.endpoints.len()), (2, 3), "the second write of a is in a second batch");
    registry.catch_up().await.unwrap();
    assert_eq!(scene.endpoints(RouteForm::ByHost), [1, 3, 4, 5], "and it counts");

    stop.cancel();
    running.await.unwrap();
    let late = one("late", registration(6)).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
}
