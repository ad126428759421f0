//! Serves one cluster and its endpoints to every client that comes, on 127.0.0.1:18000, without TLS:
//! `cargo run -p chancery-xds --example static_snapshot -- 127.0.0.1:9000`, then point an Envoy's `ads_config` at it.

use std::{error::Error, net::SocketAddr, sync::Arc};

use chancery_proto::{
    Message,
    envoy::{
        cluster::{Cluster, cluster},
        core::{Address, ConfigSource, SocketAddress, address, config_source, socket_address::PortSpecifier},
        endpoint::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier},
    },
    type_url,
};
use chancery_xds::{Admission, Admit, Cache, Hello, Resource, StreamSettings, Update, XdsServer};

/// Everyone gets the same.
struct Everyone(Arc<Cache>);

impl Admit for Everyone {
    fn admit(&self, hello: Hello<'_>) -> Result<Admission, tonic::Status> {
        println!("{} speaks {}", hello.node.id, hello.protocol.as_str());
        let (cache, guard) = (self.0.clone(), Box::new(()));
        Ok(Admission { cache, status: Default::default(), ended: Default::default(), guard })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let upstream: SocketAddr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9000".into()).parse()?;
    let mut snapshot = Update::default();
    for (type_url, body) in [(type_url::CLUSTER, cluster("demo")), (type_url::ENDPOINT, endpoints("demo", upstream))] {
        snapshot.upsert(type_url, Resource::new(type_url, "demo", &body));
    }
    let cache = Arc::new(Cache::new());
    cache.apply(1, snapshot);
    let everyone = Arc::new(Everyone(cache));
    let xds = XdsServer::new(everyone, StreamSettings::default(), Default::default(), Default::default());
    Ok(tonic::transport::Server::builder().add_routes(xds.into_routes()).serve("127.0.0.1:18000".parse()?).await?)
}

fn cluster(name: &str) -> Vec<u8> {
    let ads = config_source::ConfigSourceSpecifier::Ads(Default::default());
    let ads = ConfigSource { config_source_specifier: Some(ads), resource_api_version: 2, ..Default::default() };
    let eds_cluster_config = Some(cluster::EdsClusterConfig { eds_config: Some(ads), ..Default::default() });
    let eds = Some(cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds.into()));
    Cluster { name: name.into(), cluster_discovery_type: eds, eds_cluster_config, ..Default::default() }.encode_to_vec()
}

fn endpoints(cluster_name: &str, at: SocketAddr) -> Vec<u8> {
    let port_specifier = Some(PortSpecifier::PortValue(at.port().into()));
    let socket = SocketAddress { address: at.ip().to_string(), port_specifier, ..Default::default() };
    let address = Some(Address { address: Some(address::Address::SocketAddress(socket)) });
    let host = HostIdentifier::Endpoint(Endpoint { address, ..Default::default() });
    let lb_endpoints = vec![LbEndpoint { host_identifier: Some(host), ..Default::default() }];
    let endpoints = vec![LocalityLbEndpoints { lb_endpoints, ..Default::default() }];
    ClusterLoadAssignment { cluster_name: cluster_name.into(), endpoints, ..Default::default() }.encode_to_vec()
}
