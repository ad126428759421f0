//! Bootstraps for the Envoys of tests: one that takes everything from a control plane, one that needs none.

use std::{net::SocketAddr, path::Path};

use anyhow::Result;
pub use chancery_control_plane::bootstrap::{Protocol, XDS_CLUSTER};
use chancery_control_plane::{
    bootstrap::{Bootstrap, DEFAULT_MAX_CONNECTIONS},
    model::service::Zone,
};
use serde_json::{Value, json};

use crate::certificates::Authority;

/// Who a proxy is and whom it asks.
#[derive(Clone, Debug)]
pub struct Proxy<'a> {
    /// The fleet, as `node.cluster`.
    pub fleet: &'a str,
    /// The proxy, as `node.id`.
    pub id: &'a str,
    /// The protocol it speaks.
    pub protocol: Protocol,
    /// Where the control plane serves xDS.
    pub xds: SocketAddr,
    /// Who vouches for it, and for the control plane.
    pub authority: &'a Authority,
}

/// Listeners and clusters come by aggregated xDS over mTLS: the bootstrap that the product generates.
pub fn dynamic(proxy: &Proxy<'_>) -> Result<Value> {
    dynamic_in(proxy, None)
}

/// As [`dynamic`], in this zone.
pub fn dynamic_in(proxy: &Proxy<'_>, zone: Option<Zone>) -> Result<Value> {
    let text = |path: &Path| path.display().to_string();
    let identity = proxy.authority.proxy(proxy.fleet, proxy.id)?;
    let bootstrap = Bootstrap {
        fleet: proxy.fleet.parse()?,
        id: proxy.id.parse()?,
        xds_host: proxy.xds.ip().to_string(),
        xds_port: proxy.xds.port(),
        server_name: None,
        ca_file: text(&proxy.authority.file()),
        certificate_file: text(&identity.certificate),
        private_key_file: text(&identity.key),
        labels: std::collections::BTreeMap::new(),
        zone,
        admin: Some(([127, 0, 0, 1], 0).into()),
        protocol: proxy.protocol,
        max_connections: DEFAULT_MAX_CONNECTIONS,
        secrets_dir: None,
        max_heap_bytes: None,
    };
    Ok(bootstrap.to_json())
}

/// One listener that sends everything to one upstream.
pub fn fixed(listen: SocketAddr, upstream: SocketAddr) -> Value {
    json!({
        "node": { "id": "fixed", "cluster": "fixed" },
        "admin": admin(),
        "static_resources": {
            "listeners": [{
                "name": "web",
                "address": socket(listen),
                "filter_chains": [{ "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "stat_prefix": "web",
                        "route_config": { "virtual_hosts": [{
                            "name": "all",
                            "domains": ["*"],
                            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }],
                        }] },
                        "http_filters": [{
                            "name": "envoy.filters.http.router",
                            "typed_config": {
                                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                            },
                        }],
                    },
                }] }],
            }],
            "clusters": [{
                "name": "upstream",
                "type": "STATIC",
                "connect_timeout": "1s",
                "load_assignment": assignment("upstream", upstream),
            }],
        },
    })
}

/// Has a [`fixed`] proxy pass every request through `filter` first.
///
/// # Panics
/// When `bootstrap` is not of that form.
pub fn with_filter(bootstrap: &mut Value, filter: Value) {
    let manager = &mut bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    manager["http_filters"].as_array_mut().expect("a list of filters").insert(0, filter);
}

/// Adds a cluster of one endpoint that speaks HTTP/2 in the clear to a [`fixed`] proxy.
///
/// # Panics
/// When `bootstrap` is not of that form.
pub fn with_grpc_cluster(bootstrap: &mut Value, name: &str, endpoint: SocketAddr) {
    let protocol = json!({
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {} },
    });
    let cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": assignment(name, endpoint),
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol },
    });
    bootstrap["static_resources"]["clusters"].as_array_mut().expect("a list of clusters").push(cluster);
}

fn admin() -> Value {
    json!({ "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } })
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn assignment(cluster: &str, endpoint: SocketAddr) -> Value {
    let endpoints = json!([{ "lb_endpoints": [{ "endpoint": { "address": socket(endpoint) } }] }]);
    json!({ "cluster_name": cluster, "endpoints": endpoints })
}
