//! A server on a port of its own, and clients that say just what a test tells them to.

#![allow(dead_code, reason = "every test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a panic here is a test that fails")]

use std::{
    borrow::Cow,
    net::SocketAddr,
    panic::Location,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chancery_proto::envoy::{
    core::Node,
    discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
};
use chancery_proto::google::rpc;
use chancery_xds::{
    Admission, Admit, Cache, Hello, Resource, SharedStatus, StreamSettings, TypeStatus, Update, XdsServer,
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, Streaming, transport::Channel};

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// A type that no order concerns. Its resources say that nothing else was due before them.
const FENCE: &str = "type.example/Fence";

/// Waits for `future`, but not for ever.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let held = async {
        while !condition() {
            ticks.tick().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, held).await.is_ok(), "{what}: not in time");
}

/// Admits everyone whose cluster is one of two fleets.
pub(crate) struct Desk {
    pub(crate) edge: Arc<Cache>,
    pub(crate) core: Arc<Cache>,
    pub(crate) statuses: Mutex<Vec<SharedStatus>>,
    pub(crate) ended: CancellationToken,
    pub(crate) open: Arc<AtomicUsize>,
}

struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Admit for Desk {
    fn admit(&self, hello: Hello<'_>) -> Result<Admission, Status> {
        let cache = match hello.node.cluster.as_str() {
            "edge" => self.edge.clone(),
            "core" => self.core.clone(),
            other => return Err(Status::permission_denied(format!("no fleet {other}"))),
        };
        let status = SharedStatus::default();
        self.statuses.lock().push(status.clone());
        self.open.fetch_add(1, Ordering::SeqCst);
        let guard = Box::new(Guard(self.open.clone()));
        Ok(Admission { cache, status, ended: self.ended.clone(), guard })
    }
}

/// A server with the resources of two fleets.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) desk: Arc<Desk>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) streams: TaskTracker,
    sequence: AtomicUsize,
    server: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Served {
    pub(crate) async fn start(settings: StreamSettings) -> Self {
        let desk = Arc::new(Desk {
            edge: Arc::new(Cache::new()),
            core: Arc::new(Cache::new()),
            statuses: Mutex::default(),
            ended: CancellationToken::new(),
            open: Arc::default(),
        });
        let mut fences = Update::default();
        for i in 0..100 {
            fences.upsert(FENCE, Resource::new(FENCE, i.to_string(), b""));
        }
        desk.edge.apply(1, fences);
        let (shutdown, streams) = (CancellationToken::new(), TaskTracker::new());
        let xds = XdsServer::new(desk.clone(), settings, shutdown.clone(), streams.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tonic::transport::Server::builder()
            .add_routes(xds.into_routes())
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Self { address, desk, shutdown, streams, sequence: AtomicUsize::new(1), server }
    }

    /// With the settings that everybody has.
    pub(crate) async fn by_default() -> Self {
        Self::start(StreamSettings::default()).await
    }

    /// Changes what the `edge` fleet has.
    pub(crate) fn apply(&self, set: &[(&str, &str, &str)], removed: &[(&str, &str)]) -> u64 {
        let mut update = Update::default();
        for (type_url, name, body) in set {
            update.upsert(*type_url, Resource::new(type_url, *name, body.as_bytes()));
        }
        for (type_url, name) in removed {
            update.remove(*type_url, *name);
        }
        let sequence = self.sequence.fetch_add(1, Ordering::SeqCst) as u64 + 1;
        self.desk.edge.apply(sequence, update);
        sequence
    }

    pub(crate) fn set(&self, type_url: &str, name: &str, body: &str) -> u64 {
        self.apply(&[(type_url, name, body)], &[])
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = tonic::transport::Endpoint::new(format!("http://{}", self.address)).unwrap();
        // A client that does not read takes this much, and no more.
        endpoint.initial_stream_window_size(65_535).connect().await.unwrap()
    }

    pub(crate) async fn delta(&self) -> Delta {
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel().await).max_decoding_message_size(1 << 30);
        let (requests, receiver) = mpsc::channel(16);
        let call = client.delta_aggregated_resources(ReceiverStream::new(receiver));
        let responses = soon(call).await.unwrap().into_inner();
        Stream { requests, responses, fences: 0, fence_nonce: String::new() }
    }

    pub(crate) async fn sotw(&self) -> Sotw {
        let mut client = AggregatedDiscoveryServiceClient::new(self.channel().await).max_decoding_message_size(1 << 30);
        let (requests, receiver) = mpsc::channel(16);
        let call = client.stream_aggregated_resources(ReceiverStream::new(receiver));
        let responses = soon(call).await.unwrap().into_inner();
        Stream { requests, responses, fences: 0, fence_nonce: String::new() }
    }

    /// The status of the stream that was admitted last.
    pub(crate) fn status(&self) -> SharedStatus {
        self.desk.statuses.lock().last().unwrap().clone()
    }

    pub(crate) fn type_status(&self, type_url: &str) -> TypeStatus {
        let status = self.desk.statuses.lock().last().cloned().unwrap_or_default();
        status.types().get(type_url).cloned().unwrap_or_default()
    }
}

pub(crate) type Delta = Stream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;
pub(crate) type Sotw = Stream<DiscoveryRequest, DiscoveryResponse>;

/// One stream of a client that does nothing by itself.
pub(crate) struct Stream<Q, R> {
    requests: mpsc::Sender<Q>,
    responses: Streaming<R>,
    fences: usize,
    fence_nonce: String,
}

pub(crate) fn node() -> Option<Node> {
    Some(Node { id: "proxy-1".into(), cluster: "edge".into(), ..Node::default() })
}

fn rejection(message: &str) -> Option<rpc::Status> {
    Some(rpc::Status { message: message.into(), ..rpc::Status::default() })
}

impl<Q, R> Stream<Q, R> {
    pub(crate) async fn send(&self, request: Q) {
        soon(self.requests.send(request)).await.expect("the stream takes requests");
    }

    /// The next response.
    pub(crate) async fn next(&mut self) -> R {
        soon(self.responses.message()).await.expect("no error").expect("a response")
    }

    /// How the stream ends: after any responses, with this status.
    pub(crate) async fn end(mut self) -> Status {
        let ended = async {
            loop {
                match self.responses.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Status::ok(""),
                    Err(status) => return status,
                }
            }
        };
        soon(ended).await
    }
}

pub(crate) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

impl Delta {
    pub(crate) async fn subscribe(&self, type_url: &str, names: &[&str]) {
        self.subscribe_with(type_url, names, &[]).await;
    }

    /// As a client that had `held`.
    pub(crate) async fn subscribe_with(&self, type_url: &str, names: &[&str], held: &[(&str, String)]) {
        let initial_resource_versions = held.iter().map(|(name, v)| ((*name).to_owned(), v.clone())).collect();
        let resource_names_subscribe = strings(names);
        let type_url = type_url.to_owned();
        let node = node();
        self.send(DeltaDiscoveryRequest {
            node,
            type_url,
            resource_names_subscribe,
            initial_resource_versions,
            ..DeltaDiscoveryRequest::default()
        })
        .await;
    }

    pub(crate) async fn ack(&self, response: &DeltaDiscoveryResponse) {
        self.answer(response, None).await;
    }

    pub(crate) async fn nack(&self, response: &DeltaDiscoveryResponse, message: &str) {
        self.answer(response, rejection(message)).await;
    }

    async fn answer(&self, response: &DeltaDiscoveryResponse, error_detail: Option<rpc::Status>) {
        let (type_url, response_nonce) = (response.type_url.clone(), response.nonce.clone());
        self.send(DeltaDiscoveryRequest { type_url, response_nonce, error_detail, ..Default::default() }).await;
    }

    /// The next response must be this: resources set, names removed.
    #[track_caller]
    pub(crate) fn expect(
        &mut self,
        type_url: &str,
        set: &[&str],
        removed: &[&str],
    ) -> impl Future<Output = DeltaDiscoveryResponse> {
        let caller = Location::caller();
        async move {
            let response = self.next().await;
            let names: Vec<&str> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
            let has = (response.type_url.as_str(), names.as_slice(), response.removed_resources.as_slice());
            assert_eq!(has, (type_url, set, strings(removed).as_slice()), "expected at {caller}");
            response
        }
    }

    /// As [`Delta::expect`], and acknowledges it.
    #[track_caller]
    pub(crate) fn expect_and_ack(
        &mut self,
        type_url: &str,
        set: &[&str],
        removed: &[&str],
    ) -> impl Future<Output = DeltaDiscoveryResponse> {
        let requests = self.requests.clone();
        let response = self.expect(type_url, set, removed);
        async move {
            let response = response.await;
            let ack = DeltaDiscoveryRequest {
                type_url: response.type_url.clone(),
                response_nonce: response.nonce.clone(),
                ..DeltaDiscoveryRequest::default()
            };
            requests.send(ack).await.expect("the stream takes requests");
            response
        }
    }

    /// Nothing is due: something asked for now comes first.
    pub(crate) async fn expect_nothing(&mut self) {
        let fence = format!("fence-{}", self.fences);
        self.fences += 1;
        self.subscribe(FENCE, &[&fence]).await;
        self.expect_and_ack(FENCE, &[], &[&fence]).await;
    }
}

impl Sotw {
    pub(crate) async fn ask(&self, type_url: &str, names: &[&str]) {
        self.ask_with(type_url, names, "").await;
    }

    /// As a client that had `version`.
    pub(crate) async fn ask_with(&self, type_url: &str, names: &[&str], version: &str) {
        let request = DiscoveryRequest {
            node: node(),
            type_url: type_url.into(),
            version_info: version.into(),
            resource_names: strings(names),
            ..DiscoveryRequest::default()
        };
        self.send(request).await;
    }

    /// Asks for these names from now on, after the response with this nonce.
    pub(crate) async fn subscribe(&self, type_url: &str, nonce: &str, names: &[&str]) {
        let request = DiscoveryRequest {
            type_url: type_url.into(),
            response_nonce: nonce.into(),
            resource_names: strings(names),
            ..DiscoveryRequest::default()
        };
        self.send(request).await;
    }

    pub(crate) async fn ack(&self, response: &DiscoveryResponse, names: &[&str]) {
        self.answer(response, names, None).await;
    }

    pub(crate) async fn nack(&self, response: &DiscoveryResponse, names: &[&str], message: &str) {
        self.answer(response, names, rejection(message)).await;
    }

    async fn answer(&self, response: &DiscoveryResponse, names: &[&str], error_detail: Option<rpc::Status>) {
        let request = DiscoveryRequest {
            type_url: response.type_url.clone(),
            version_info: response.version_info.clone(),
            response_nonce: response.nonce.clone(),
            resource_names: strings(names),
            error_detail,
            ..DiscoveryRequest::default()
        };
        self.send(request).await;
    }

    /// The next response must have these bodies.
    #[track_caller]
    pub(crate) fn expect(&mut self, type_url: &str, bodies: &[&str]) -> impl Future<Output = DiscoveryResponse> {
        let caller = Location::caller();
        async move {
            let response = self.next().await;
            let has: Vec<_> = response.resources.iter().map(|any| String::from_utf8_lossy(&any.value)).collect();
            assert_eq!(
                (response.type_url.as_str(), has),
                (type_url, bodies.iter().map(|b| Cow::from(*b)).collect()),
                "expected at {caller}"
            );
            response
        }
    }

    /// Nothing is due: something asked for now comes first.
    pub(crate) async fn expect_nothing(&mut self) {
        let fence = self.fences.to_string();
        self.fences += 1;
        let request = DiscoveryRequest {
            node: node(),
            type_url: FENCE.into(),
            response_nonce: self.fence_nonce.clone(),
            resource_names: vec![fence.clone()],
            ..DiscoveryRequest::default()
        };
        self.send(request).await;
        let response = self.expect(FENCE, &[""]).await;
        self.ack(&response, &[&fence]).await;
        self.fence_nonce = response.nonce;
    }
}

/// The version that the server gives to a resource with this body.
pub(crate) fn version(body: &str) -> String {
    chancery_xds::Version::of(body.as_bytes()).to_string()
}
