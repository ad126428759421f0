//! What Envoy does, as far as the order of what Chancery sends rests on it (`docs/xds-conformance.md`).
//!
//! The server here is no part of Chancery: it says what a story tells it to and nothing else, so that what Envoy asks
//! for by itself can be seen. If one of these fails with a new Envoy, `xds/src/session.rs` has to be read again.

use std::{net::SocketAddr, path::Path, pin::Pin, time::Duration};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{bootstrap::with_grpc_cluster, envoy::Envoy, required, wait::PATIENCE};
use chancery_proto::{
    describe::{json as envoy_json, types::Type},
    envoy::discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
        aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
    },
    google::protobuf::Any,
    type_url::{CLUSTER, ENDPOINT, LISTENER, short_name},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// How long Envoy must say nothing to count as waiting. It answers in milliseconds; what it waits for here it waits for
/// for ever.
const QUIET: Duration = Duration::from_secs(2);

/// How many messages may wait to be read.
const UNREAD: usize = 64;

/// One stream as Envoy opened it.
struct Talk {
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
}

/// Hands each stream that is opened to the story.
struct Counter(mpsc::Sender<Talk>);

type Responses<R> = Pin<Box<dyn tokio_stream::Stream<Item = Result<R, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Counter {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("these stories are told over delta"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (responses, receiver) = mpsc::channel(UNREAD);
        let talk = Talk { requests: request.into_inner(), responses };
        self.0.send(talk).await.map_err(|_| Status::unavailable("the story is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// An Envoy, and the server that it asks.
struct Story {
    streams: mpsc::Receiver<Talk>,
    talk: Talk,
    _envoy: Envoy,
    _server: JoinSet<Result<(), tonic::transport::Error>>,
    _folder: TempDir,
}

impl Story {
    /// Until Envoy has opened its first stream.
    async fn begin() -> Result<Option<Self>> {
        let Some(program) = required::envoy() else { return Ok(None) };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (opened, mut streams) = mpsc::channel(UNREAD);
        let mut server = JoinSet::new();
        server.spawn(
            tonic::transport::Server::builder()
                .add_service(AggregatedDiscoveryServiceServer::new(Counter(opened)))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        let folder = tempfile::tempdir()?;
        let envoy = start(&program, folder.path(), address).await?;
        let talk = next(&mut streams).await?;
        Ok(Some(Self { streams, talk, _envoy: envoy, _server: server, _folder: folder }))
    }

    /// Until Envoy has one cluster with its endpoints, and no listeners, and has acknowledged all of it.
    async fn with_a_cluster() -> Result<Option<Self>> {
        let Some(mut story) = Self::begin().await? else { return Ok(None) };
        story.hears(&["asks for cluster"]).await?;
        story.says(CLUSTER, "c1", &[cluster(1)]).await?;
        story.hears(&["asks for endpoint: shop"]).await?;
        story.says(ENDPOINT, "e1", &[endpoints()]).await?;
        story.hears(&["acknowledges c1", "acknowledges e1", "asks for listener"]).await?;
        story.says(LISTENER, "l1", &[]).await?;
        story.hears(&["acknowledges l1"]).await?;
        Ok(Some(story))
    }

    /// A change of the cluster, for which Envoy needs endpoints again.
    async fn changes_the_cluster(&self) -> Result<()> {
        self.says(CLUSTER, "c2", &[cluster(2)]).await
    }

    async fn says(&self, type_url: &str, nonce: &str, resources: &[Resource]) -> Result<()> {
        let response = DeltaDiscoveryResponse {
            type_url: type_url.into(),
            nonce: nonce.into(),
            resources: resources.to_vec(),
            ..DeltaDiscoveryResponse::default()
        };
        self.talk.responses.send(Ok(response)).await.context("the stream is open")
    }

    /// The next requests say this, in any order.
    async fn hears(&mut self, expected: &[&str]) -> Result<()> {
        let mut heard = Vec::new();
        for _ in expected {
            let request = timeout(PATIENCE, self.talk.requests.message()).await;
            let request = request.with_context(|| format!("of {expected:?} Envoy says only {heard:?}"))??;
            heard.push(said(&request.context("Envoy keeps the stream open")?));
        }
        heard.sort();
        ensure!(heard == expected, "expected {expected:?}, heard {heard:?}");
        Ok(())
    }

    /// Nothing is said for a while.
    async fn hears_nothing(&mut self) -> Result<()> {
        match timeout(QUIET, self.talk.requests.message()).await {
            Err(_) => Ok(()),
            Ok(request) => anyhow::bail!("Envoy {:?}", request?.as_ref().map(said)),
        }
    }

    /// Ends the stream, until Envoy has opened another.
    async fn breaks_off(&mut self) -> Result<()> {
        self.talk.responses.send(Err(Status::unavailable("a story"))).await?;
        self.talk = next(&mut self.streams).await?;
        Ok(())
    }
}

/// What a request says.
fn said(request: &DeltaDiscoveryRequest) -> String {
    let mut said = match (&*request.response_nonce, &request.error_detail) {
        ("", _) => format!("asks for {}", short_name(&request.type_url)),
        (nonce, None) => format!("acknowledges {nonce}"),
        (nonce, Some(error)) => format!("rejects {nonce}, {}", error.message),
    };
    let held = request.initial_resource_versions.iter().map(|(name, version)| format!("{name} in version {version}"));
    for (before, names) in [
        (": ", request.resource_names_subscribe.clone()),
        (", without ", request.resource_names_unsubscribe.clone()),
        (", has ", held.collect()),
    ] {
        if !names.is_empty() {
            said.extend([before, &names.join(", ")]);
        }
    }
    said
}

async fn next(streams: &mut mpsc::Receiver<Talk>) -> Result<Talk> {
    timeout(PATIENCE, streams.recv()).await.context("Envoy opens a stream")?.context("the server runs")
}

async fn start(program: &Path, folder: &Path, server: SocketAddr) -> Result<Envoy> {
    let source = json!({ "ads": {}, "resource_api_version": "V3" });
    let mut bootstrap = json!({
        "node": { "id": "envoy", "cluster": "edge" },
        "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
        "static_resources": { "clusters": [] },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "server" } }],
            },
            "cds_config": source,
            "lds_config": source,
        },
    });
    with_grpc_cluster(&mut bootstrap, "server", server);
    Envoy::start(program, folder, "envoy", &bootstrap).await
}

/// The cluster `shop`, which waits for its endpoints without end; `revision` makes it differ.
fn cluster(revision: u32) -> Resource {
    let source = json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" });
    let cluster = json!({
        "name": "shop",
        "type": "EDS",
        "eds_cluster_config": { "eds_config": source },
        "connect_timeout": format!("{revision}s"),
    });
    resource(CLUSTER, &revision.to_string(), &cluster)
}

fn endpoints() -> Resource {
    resource(ENDPOINT, "the-only", &json!({ "cluster_name": "shop" }))
}

fn resource(type_url: &str, version: &str, message: &Value) -> Resource {
    let of = Type::of_url(type_url).expect("a type of Envoy's");
    let value = envoy_json::encode(of, message).expect("a message of that type");
    let any = Any { type_url: type_url.into(), value };
    Resource { name: "shop".into(), version: version.into(), resource: Some(any), ..Resource::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_opens_clusters_and_listeners_with_the_empty_wildcard() -> Result<()> {
    let Some(mut story) = Story::begin().await? else { return Ok(()) };
    story.hears(&["asks for cluster"]).await?;
    story.says(CLUSTER, "c1", &[]).await?;
    story.hears(&["acknowledges c1", "asks for listener"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_a_changed_cluster_it_waits_for_endpoints_and_neither_asks_nor_acknowledges() -> Result<()> {
    let Some(mut story) = Story::with_a_cluster().await? else { return Ok(()) };
    story.changes_the_cluster().await?;
    story.hears_nothing().await?;
    story.says(ENDPOINT, "e2", &[endpoints()]).await?;
    story.hears(&["acknowledges c2", "acknowledges e2"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnecting_while_warming_it_asks_for_endpoints_that_it_has_and_for_no_clusters() -> Result<()> {
    let Some(mut story) = Story::with_a_cluster().await? else { return Ok(()) };
    story.changes_the_cluster().await?;
    story.hears_nothing().await?;
    story.breaks_off().await?;
    story.hears(&["asks for endpoint: shop, has shop in version the-only", "asks for listener"]).await?;
    // It has what it asks for, and waits all the same.
    story.hears_nothing().await?;
    story.says(ENDPOINT, "e2", &[endpoints()]).await?;
    story.hears(&["acknowledges e2", "asks for cluster, has shop in version 2"]).await
}
