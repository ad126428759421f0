//! The separate services: one type each.

use crate::support::{Served, node, soon};
use chancery_proto::{
    envoy::{
        cds::cluster_discovery_service_client::ClusterDiscoveryServiceClient,
        discovery::{DeltaDiscoveryRequest, DiscoveryRequest},
        ecds::extension_config_discovery_service_client::ExtensionConfigDiscoveryServiceClient,
        eds::endpoint_discovery_service_client::EndpointDiscoveryServiceClient,
        lds::listener_discovery_service_client::ListenerDiscoveryServiceClient,
        rds::{
            route_discovery_service_client::RouteDiscoveryServiceClient,
            scoped_routes_discovery_service_client::ScopedRoutesDiscoveryServiceClient,
            virtual_host_discovery_service_client::VirtualHostDiscoveryServiceClient,
        },
        runtime::runtime_discovery_service_client::RuntimeDiscoveryServiceClient,
        sds::secret_discovery_service_client::SecretDiscoveryServiceClient,
    },
    type_url::{CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE, RUNTIME, SCOPED_ROUTE, SECRET, VIRTUAL_HOST},
};
use tokio_stream::StreamExt;
use tonic::{Code, Status};

/// A request stream of one request that stays open.
fn only<Q: Send + 'static>(request: Q) -> impl tokio_stream::Stream<Item = Q> + Send + 'static {
    tokio_stream::once(request).chain(tokio_stream::pending())
}

fn delta(type_url: &str) -> DeltaDiscoveryRequest {
    let resource_names_subscribe = vec!["x".to_owned()];
    DeltaDiscoveryRequest { node: node(), type_url: type_url.into(), resource_names_subscribe, ..Default::default() }
}

fn sotw(type_url: &str) -> DiscoveryRequest {
    let resource_names = vec!["x".to_owned()];
    DiscoveryRequest { node: node(), type_url: type_url.into(), resource_names, ..Default::default() }
}

/// Type and names of the first response, or how it was refused.
type First = Result<(String, usize), Status>;

macro_rules! first {
    ($client:ident, $served:expr, $method:ident, $request:expr) => {{
        let mut client = $client::new($served.channel().await);
        let mut responses = soon(client.$method(only($request))).await.unwrap().into_inner();
        let first: First = soon(responses.message()).await.map(|response| {
            let response = response.expect("a response");
            (response.type_url, response.resources.len())
        });
        first
    }};
}

#[tokio::test]
async fn each_serves_its_type_in_both_variants() {
    let served = Served::by_default().await;
    let all = [CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE, SECRET, RUNTIME, EXTENSION_CONFIG];
    for type_url in all.into_iter().chain([VIRTUAL_HOST]) {
        served.set(type_url, "x", type_url);
    }
    let firsts = [
        first!(ClusterDiscoveryServiceClient, served, delta_clusters, delta("")),
        first!(ClusterDiscoveryServiceClient, served, stream_clusters, sotw("")),
        first!(EndpointDiscoveryServiceClient, served, delta_endpoints, delta("")),
        first!(EndpointDiscoveryServiceClient, served, stream_endpoints, sotw("")),
        first!(ListenerDiscoveryServiceClient, served, delta_listeners, delta(LISTENER)),
        first!(ListenerDiscoveryServiceClient, served, stream_listeners, sotw(LISTENER)),
        first!(RouteDiscoveryServiceClient, served, delta_routes, delta("")),
        first!(RouteDiscoveryServiceClient, served, stream_routes, sotw("")),
        first!(ScopedRoutesDiscoveryServiceClient, served, delta_scoped_routes, delta("")),
        first!(ScopedRoutesDiscoveryServiceClient, served, stream_scoped_routes, sotw("")),
        first!(SecretDiscoveryServiceClient, served, delta_secrets, delta("")),
        first!(SecretDiscoveryServiceClient, served, stream_secrets, sotw("")),
        first!(RuntimeDiscoveryServiceClient, served, delta_runtime, delta("")),
        first!(RuntimeDiscoveryServiceClient, served, stream_runtime, sotw("")),
        first!(ExtensionConfigDiscoveryServiceClient, served, delta_extension_configs, delta("")),
        first!(ExtensionConfigDiscoveryServiceClient, served, stream_extension_configs, sotw("")),
        // Virtual hosts are incremental only.
        first!(VirtualHostDiscoveryServiceClient, served, delta_virtual_hosts, delta("")),
    ];
    let types: Vec<_> = firsts.into_iter().map(|first| first.unwrap()).collect();
    let expected = all.iter().flat_map(|type_url| [*type_url; 2]).chain([VIRTUAL_HOST]);
    assert_eq!(types, expected.map(|type_url| (type_url.to_owned(), 1)).collect::<Vec<_>>());
}

#[tokio::test]
async fn each_refuses_other_types() {
    let served = Served::by_default().await;
    let refused = first!(ClusterDiscoveryServiceClient, served, delta_clusters, delta(LISTENER)).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = first!(RouteDiscoveryServiceClient, served, stream_routes, sotw(CLUSTER)).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_not_served_is_unimplemented() {
    let served = Served::by_default().await;
    let mut client = ClusterDiscoveryServiceClient::new(served.channel().await);
    let refused = soon(client.fetch_clusters(sotw(CLUSTER))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}

#[tokio::test]
async fn on_a_stream_of_one_type_nothing_waits_for_others() {
    let served = Served::by_default().await;
    let mut request = delta(CLUSTER);
    request.resource_names_subscribe = vec!["*".into()];
    request.initial_resource_versions = [("gone".to_owned(), "1".to_owned())].into();
    let mut client = ClusterDiscoveryServiceClient::new(served.channel().await);
    let mut responses = soon(client.delta_clusters(only(request))).await.unwrap().into_inner();
    let started = std::time::Instant::now();
    let first = soon(responses.message()).await.unwrap().unwrap();
    assert_eq!(first.removed_resources, ["gone"]);
    assert!(started.elapsed() < chancery_xds::StreamSettings::default().order_timeout);
}
