//! The gRPC services: ADS, and one service per type, over one set of caches.
//!
//! Written by hand rather than generated, because responses are encoded by our own codec (`codec.rs`), messages are
//! framed by our own (`wire.rs`), and the five services differ only in their path.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use chancery_proto::type_url;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, body::Body};

use super::{
    Admit, Protocol, StreamSettings,
    stream::{Context, Variant, serve},
    wire::{Requests, respond},
};
use crate::{
    codec::{EncodeResponse, Response},
    subscription::{delta::Delta, sotw::Sotw},
};

/// The xDS services, to be added to a tonic server or an axum router.
///
/// Every stream is a task of the tracker given to [`XdsServer::new`], and ends when the token is cancelled.
pub struct XdsServer<A> {
    admit: Arc<A>,
    settings: StreamSettings,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl<A> Clone for XdsServer<A> {
    fn clone(&self) -> Self {
        Self {
            admit: self.admit.clone(),
            settings: self.settings,
            shutdown: self.shutdown.clone(),
            tasks: self.tasks.clone(),
        }
    }
}

/// The services: package and service, then the methods of both variants, then the only type.
const SERVICES: [(&str, &str, &str, Option<&str>); 5] = [
    (
        "envoy.service.discovery.v3.AggregatedDiscoveryService",
        "DeltaAggregatedResources",
        "StreamAggregatedResources",
        None,
    ),
    ("envoy.service.cluster.v3.ClusterDiscoveryService", "DeltaClusters", "StreamClusters", Some(type_url::CLUSTER)),
    (
        "envoy.service.endpoint.v3.EndpointDiscoveryService",
        "DeltaEndpoints",
        "StreamEndpoints",
        Some(type_url::ENDPOINT),
    ),
    (
        "envoy.service.listener.v3.ListenerDiscoveryService",
        "DeltaListeners",
        "StreamListeners",
        Some(type_url::LISTENER),
    ),
    ("envoy.service.route.v3.RouteDiscoveryService", "DeltaRoutes", "StreamRoutes", Some(type_url::ROUTE)),
];

/// The variant and the only type that a request path asks for.
fn method(path: &str) -> Option<(Protocol, Option<&'static str>)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let (_, delta, sotw, only) = SERVICES.iter().find(|(name, ..)| *name == service)?;
    match method {
        method if method == *delta => Some((Protocol::Delta, *only)),
        method if method == *sotw => Some((Protocol::Sotw, *only)),
        _ => None,
    }
}

impl<A: Admit> XdsServer<A> {
    /// Serves the streams that `admit` admits, as tasks of `tasks`, until `shutdown`.
    pub fn new(admit: Arc<A>, settings: StreamSettings, shutdown: CancellationToken, tasks: TaskTracker) -> Self {
        Self { admit, settings, shutdown, tasks }
    }

    /// The services as routes of a tonic server.
    pub fn into_routes(self) -> tonic::service::Routes {
        let mut router = tonic::service::Routes::default().into_axum_router();
        for (service, ..) in SERVICES {
            router = router.route_service(&format!("/{service}/{{method}}"), self.clone());
        }
        router.into()
    }

    /// Starts a stream, and answers with what it will send.
    fn open<S>(&self, only: Option<&'static str>, request: http::Request<Body>) -> http::Response<Body>
    where
        S: Variant,
        S::Request: prost::Message + Default,
        Response<S::Reply>: EncodeResponse,
    {
        let (parts, body) = request.into_parts();
        if parts.headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity") {
            return Status::unimplemented("compressed requests are not understood").into_http();
        }
        let context =
            Context { admit: self.admit.clone(), settings: self.settings, shutdown: self.shutdown.clone(), only };
        let requests = Requests::new(body, self.settings.max_request_bytes);
        let (response, outlet) = respond();
        self.tasks.spawn(serve::<S, A>(context, parts.extensions, requests, outlet));
        response
    }
}

impl<A, B> tower::Service<http::Request<B>> for XdsServer<A>
where
    A: Admit,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let request = request.map(Body::new);
        ready(Ok(match method(request.uri().path()) {
            Some((Protocol::Delta, only)) => self.open::<Delta>(only, request),
            Some((Protocol::Sotw, only)) => self.open::<Sotw>(only, request),
            None => Status::unimplemented("no such method").into_http(),
        }))
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_whole() {
        let ads = "/envoy.service.discovery.v3.AggregatedDiscoveryService";
        assert_eq!(method(&format!("{ads}/DeltaAggregatedResources")), Some((Protocol::Delta, None)));
        assert_eq!(method(&format!("{ads}/StreamAggregatedResources")), Some((Protocol::Sotw, None)));
        let lds = "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners";
        assert_eq!(method(lds), Some((Protocol::Delta, Some(type_url::LISTENER))));
        for path in ["", "/", "/x", "/envoy.service.listener.v3.ListenerDiscoveryService/Fetch"] {
            assert_eq!(method(path), None);
        }
    }
}
