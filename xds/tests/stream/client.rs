//! Our client on a real connection: what it is given, what it says, and that it comes back.

#![allow(clippy::unwrap_used, reason = "a panic here is a test that fails")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chancery_proto::envoy::core::Node;
use chancery_xds::{
    Cache, Resource, SharedStatus, StreamSettings, Update, XdsServer,
    client::{self, Backoff, Batch, BoxError, ClientSettings, Interest, Received, Refused, Variants},
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tower::util::MapRequestLayer;

use super::support::{DEADLINE, Desk, Served, soon, until};

const T: &str = "type.example/T";
const U: &str = "type.example/U";

/// A client that keeps what it takes and refuses what begins with `bad`.
struct Subscriber {
    seen: Arc<Mutex<Seen>>,
    server: Arc<Mutex<SocketAddr>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    in_force: BTreeMap<String, String>,
    /// Names that came, in order.
    received: Vec<String>,
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn settings(variants: Variants) -> ClientSettings {
    let node = Node { id: "proxy-1".into(), cluster: "edge".into(), ..Node::default() };
    let types = vec![(T.into(), Interest::Wildcard), (U.into(), Interest::Names(["u".into()].into()))];
    let backoff = Backoff { first: Duration::from_millis(5), longest: Duration::from_millis(20) };
    ClientSettings { variants, backoff, ..ClientSettings::new(node, types) }
}

impl Subscriber {
    fn start(server: SocketAddr, settings: ClientSettings) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let server = Arc::new(Mutex::new(server));
        let stop = CancellationToken::new();
        let connect = {
            let server = server.clone();
            move || connect(*server.lock())
        };
        let take = {
            let seen = seen.clone();
            move |batch: &Batch| seen.lock().take(batch)
        };
        let task = tokio::spawn(client::run(settings, connect, take, || 0.5, stop.clone()));
        Self { seen, server, stop, task }
    }

    async fn has(&self, expected: &[(&str, &str)]) {
        let expected: BTreeMap<_, _> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let what = format!("{expected:?} in force");
        until(&what, || self.seen.lock().in_force == expected).await;
    }

    fn received(&self) -> Vec<String> {
        self.seen.lock().received.clone()
    }
}

impl Seen {
    fn take(&mut self, batch: &Batch) -> Result<(), Vec<Refused>> {
        let mut refused = Vec::new();
        for Received { name, body, .. } in &batch.upserts {
            self.received.push(name.to_string());
            let body = text(body);
            if body.starts_with("bad") {
                refused.push(Refused { name: name.clone(), reason: format!("{body} cannot be used") });
            } else {
                self.in_force.insert(name.to_string(), body);
            }
        }
        for name in &batch.removed {
            self.in_force.remove(&**name);
        }
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }
}

/// The message that `body` made.
fn text(message: &[u8]) -> String {
    let name = usize::from(message[1]);
    String::from_utf8(message[2 + name..].to_vec()).unwrap().trim_start_matches('\u{12}').to_owned()
}

/// A message whose first field is its name, as all that is sent without names has to be.
fn message(name: &str, body: &str) -> String {
    format!("\n{}{name}\u{12}{body}", char::from(u8::try_from(name.len()).unwrap()))
}

async fn connect(server: SocketAddr) -> Result<Channel, BoxError> {
    Ok(client::endpoint(format!("http://{server}").parse()?).connect().await?)
}

fn set(served: &Served, name: &str, body: &str) {
    served.set(T, name, &message(name, body));
}

/// Whether the last thing said about `T` is an acknowledgement of the last response.
fn acknowledged(status: &SharedStatus) -> bool {
    let types = status.types();
    types.get(T).is_some_and(|t| {
        t.sent.is_some() && t.sent.as_ref().map(|s| &s.nonce) == t.acknowledged.as_ref().map(|s| &s.nonce)
    })
}

#[tokio::test]
async fn an_incremental_client_follows_its_server() {
    let served = Served::by_default().await;
    set(&served, "a", "1");
    let client = Subscriber::start(served.address, settings(Variants::Either));
    client.has(&[("a", "1")]).await;
    served.apply(&[(T, "b", &message("b", "1")), (T, "a", &message("a", "2"))], &[]);
    client.has(&[("a", "2"), ("b", "1")]).await;
    served.apply(&[], &[(T, "a")]);
    client.has(&[("b", "1")]).await;
    until("acknowledged", || acknowledged(&served.status())).await;
    served.set(U, "u", &message("u", "1"));
    client.has(&[("b", "1"), ("u", "1")]).await;
}

#[tokio::test]
async fn a_wildcard_is_answered_even_if_there_is_nothing() {
    let served = Served::by_default().await;
    let _client = Subscriber::start(served.address, settings(Variants::Delta));
    until("a stream", || !served.desk.statuses.lock().is_empty()).await;
    until("acknowledged", || acknowledged(&served.status())).await;
}

#[tokio::test]
async fn a_refusal_is_told_and_the_last_good_one_stays() {
    let served = Served::by_default().await;
    set(&served, "a", "1");
    let client = Subscriber::start(served.address, settings(Variants::Delta));
    client.has(&[("a", "1")]).await;
    served.apply(&[(T, "a", &message("a", "bad")), (T, "b", &message("b", "1"))], &[]);
    client.has(&[("a", "1"), ("b", "1")]).await;
    until("the rejection", || served.type_status(T).rejected.is_some()).await;
    let rejection = served.type_status(T).rejected.unwrap();
    assert_eq!(rejection.message, "a: bad cannot be used");
    assert_eq!(rejection.resources, ["a".into()]);
    set(&served, "a", "2");
    client.has(&[("a", "2"), ("b", "1")]).await;
    until("acknowledged", || acknowledged(&served.status())).await;
}

#[tokio::test]
async fn after_a_restart_of_the_server_only_what_changed_is_sent() {
    let served = Served::by_default().await;
    for name in ["a", "b", "c"] {
        set(&served, name, "1");
    }
    let client = Subscriber::start(served.address, settings(Variants::Either));
    client.has(&[("a", "1"), ("b", "1"), ("c", "1")]).await;
    let next = Served::by_default().await;
    set(&next, "a", "1");
    set(&next, "b", "2");
    set(&next, "d", "1");
    *client.server.lock() = next.address;
    served.shutdown.cancel();
    client.has(&[("a", "1"), ("b", "2"), ("d", "1")]).await;
    let received = client.received();
    assert_eq!(received.len(), 5, "{received:?}");
    assert_eq!(received.iter().filter(|name| *name == "a").count(), 1, "{received:?}");
}

/// What `Served` has, for clients that know the state of the world only.
struct OldServer {
    address: SocketAddr,
    cache: Arc<Cache>,
    calls: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for OldServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl OldServer {
    async fn start() -> Self {
        let desk = Arc::new(Desk {
            edge: Arc::default(),
            core: Arc::default(),
            statuses: Mutex::default(),
            ended: CancellationToken::new(),
            open: Arc::default(),
        });
        let cache = desk.edge.clone();
        let calls = Arc::<AtomicUsize>::default();
        let counted = calls.clone();
        let xds = XdsServer::new(desk, StreamSettings::default(), CancellationToken::new(), Default::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let forget_delta = MapRequestLayer::new(move |mut request: http::Request<_>| {
            if request.uri().path().ends_with("/DeltaAggregatedResources") {
                counted.fetch_add(1, Ordering::SeqCst);
                *request.uri_mut() = "/unknown".parse().unwrap();
            }
            request
        });
        let server = tonic::transport::Server::builder().layer(forget_delta).add_routes(xds.into_routes());
        let task = tokio::spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, cache, calls, task }
    }
}

#[tokio::test]
async fn a_server_without_the_incremental_variant_is_spoken_to_in_the_other() {
    let server = OldServer::start().await;
    let mut update = Update::default();
    // A type with the legacy wildcard, as limiters have it.
    let config = chancery_proto::type_url::RATE_LIMIT_CONFIG;
    update.upsert(config, Resource::new(config, "a", message("a", "1").as_bytes()));
    server.cache.apply(1, update);
    let types = vec![(config.into(), Interest::Wildcard)];
    let settings = ClientSettings { types, ..settings(Variants::Either) };
    let client = Subscriber::start(server.address, settings);
    client.has(&[("a", "1")]).await;
    let mut update = Update::default();
    update.upsert(config, Resource::new(config, "b", message("b", "1").as_bytes()));
    update.remove(config, "a");
    server.cache.apply(2, update);
    client.has(&[("b", "1")]).await;
    assert_eq!(server.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_tried_again() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let short = Duration::from_millis(50);
    let settings =
        ClientSettings { connect_timeout: short, first_response_timeout: short, ..settings(Variants::Delta) };
    let _client = Subscriber::start(silent.local_addr().unwrap(), settings);
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(soon(silent.accept()).await.unwrap());
    }
}

#[tokio::test]
async fn it_stops_when_it_is_told() {
    let served = Served::by_default().await;
    set(&served, "a", "1");
    let mut client = Subscriber::start(served.address, settings(Variants::Delta));
    client.has(&[("a", "1")]).await;
    client.stop.cancel();
    tokio::time::timeout(DEADLINE, &mut client.task).await.unwrap().unwrap();
    until("the stream is gone", || served.desk.open.load(Ordering::SeqCst) == 0).await;
}
