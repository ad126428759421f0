//! The gRPC services: ADS, and one service per type, over one set of caches.
//!
//! Written by hand rather than generated, because responses are encoded by our own codec (`codec.rs`), messages are
//! framed by our own (`wire.rs`), and the services differ only in their path.

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
    Admit, Protocol, RunStream, StreamSettings, start,
    stream::{AllMeters, Context, serve},
    variant::Variant,
    wire::{Requests, respond},
};
use crate::{
    codec::{EncodeResponse, Response},
    subscription::{delta::Delta, sotw::Sotw},
};

/// The xDS services, to be added to a tonic server or an axum router.
///
/// Every stream is tracked by the tracker given to [`XdsServer::new`], and ends when the token is cancelled.
pub struct XdsServer<A> {
    admit: Arc<A>,
    settings: StreamSettings,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    meters: Arc<AllMeters>,
}

impl<A> Clone for XdsServer<A> {
    fn clone(&self) -> Self {
        Self {
            admit: self.admit.clone(),
            settings: self.settings,
            shutdown: self.shutdown.clone(),
            tasks: self.tasks.clone(),
            meters: self.meters.clone(),
        }
    }
}

/// A service, and what of it there is.
struct Service {
    /// Package and name.
    name: &'static str,
    /// The incremental method.
    delta: &'static str,
    /// The state-of-the-world method; virtual hosts have none.
    sotw: Option<&'static str>,
    /// The only type that it serves; `None` on the aggregated one.
    only: Option<&'static str>,
}

const SERVICES: [Service; 10] = [
    Service {
        name: "envoy.service.discovery.v3.AggregatedDiscoveryService",
        delta: "DeltaAggregatedResources",
        sotw: Some("StreamAggregatedResources"),
        only: None,
    },
    Service {
        name: "envoy.service.cluster.v3.ClusterDiscoveryService",
        delta: "DeltaClusters",
        sotw: Some("StreamClusters"),
        only: Some(type_url::CLUSTER),
    },
    Service {
        name: "envoy.service.endpoint.v3.EndpointDiscoveryService",
        delta: "DeltaEndpoints",
        sotw: Some("StreamEndpoints"),
        only: Some(type_url::ENDPOINT),
    },
    Service {
        name: "envoy.service.listener.v3.ListenerDiscoveryService",
        delta: "DeltaListeners",
        sotw: Some("StreamListeners"),
        only: Some(type_url::LISTENER),
    },
    Service {
        name: "envoy.service.route.v3.RouteDiscoveryService",
        delta: "DeltaRoutes",
        sotw: Some("StreamRoutes"),
        only: Some(type_url::ROUTE),
    },
    Service {
        name: "envoy.service.route.v3.ScopedRoutesDiscoveryService",
        delta: "DeltaScopedRoutes",
        sotw: Some("StreamScopedRoutes"),
        only: Some(type_url::SCOPED_ROUTE),
    },
    Service {
        name: "envoy.service.route.v3.VirtualHostDiscoveryService",
        delta: "DeltaVirtualHosts",
        sotw: None,
        only: Some(type_url::VIRTUAL_HOST),
    },
    Service {
        name: "envoy.service.secret.v3.SecretDiscoveryService",
        delta: "DeltaSecrets",
        sotw: Some("StreamSecrets"),
        only: Some(type_url::SECRET),
    },
    Service {
        name: "envoy.service.runtime.v3.RuntimeDiscoveryService",
        delta: "DeltaRuntime",
        sotw: Some("StreamRuntime"),
        only: Some(type_url::RUNTIME),
    },
    Service {
        name: "envoy.service.extension.v3.ExtensionConfigDiscoveryService",
        delta: "DeltaExtensionConfigs",
        sotw: Some("StreamExtensionConfigs"),
        only: Some(type_url::EXTENSION_CONFIG),
    },
];

/// The variant and the only type that a request path asks for.
fn method(path: &str) -> Option<(Protocol, Option<&'static str>)> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let service = SERVICES.iter().find(|known| known.name == service)?;
    match method {
        method if method == service.delta => Some((Protocol::Delta, service.only)),
        method if Some(method) == service.sotw => Some((Protocol::Sotw, service.only)),
        _ => None,
    }
}

impl<A: Admit> XdsServer<A> {
    /// Serves the streams that `admit` admits, as tasks of `tasks`, until `shutdown`.
    pub fn new(admit: Arc<A>, settings: StreamSettings, shutdown: CancellationToken, tasks: TaskTracker) -> Self {
        Self { admit, settings, shutdown, tasks, meters: Arc::default() }
    }

    /// The services as routes of a tonic server.
    pub fn into_routes(self) -> tonic::service::Routes {
        let mut router = tonic::service::Routes::default().into_axum_router();
        for Service { name, .. } in SERVICES {
            router = router.route_service(&format!("/{name}/{{method}}"), self.clone());
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
        let context = Context {
            admit: self.admit.clone(),
            settings: self.settings,
            shutdown: self.shutdown.clone(),
            only,
            meters: self.meters.clone(),
        };
        let requests = Requests::new(body, self.settings.max_request_bytes);
        let (response, outlet) = respond();
        let run = parts.extensions.get::<RunStream>().cloned();
        start(run, &self.tasks, serve::<S, A>(context, parts.extensions, requests, outlet));
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
        let vhds = "/envoy.service.route.v3.VirtualHostDiscoveryService";
        assert_eq!(method(&format!("{vhds}/DeltaVirtualHosts")), Some((Protocol::Delta, Some(type_url::VIRTUAL_HOST))));
        let no_sotw = format!("{vhds}/StreamVirtualHosts");
        for path in ["", "/", "/x", "/envoy.service.listener.v3.ListenerDiscoveryService/Fetch", &no_sotw] {
            assert_eq!(method(path), None);
        }
    }
}
