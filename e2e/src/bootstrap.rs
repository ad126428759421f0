//! Bootstraps for the Envoys of tests: one that takes everything from a control plane, one that needs none.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::certificates::Identity;

/// Name of the cluster that leads to the control plane; Envoy's stats about it are under `cluster.chancery-xds.`.
pub const XDS_CLUSTER: &str = "chancery-xds";

/// Which of the two xDS protocols a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Changes only.
    Delta,
    /// State of the world.
    Sotw,
}

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
    /// Its certificate and key.
    pub identity: &'a Identity,
    /// File of the authority that vouches for the control plane.
    pub trusted: &'a std::path::Path,
}

/// Listeners and clusters come by aggregated xDS over mTLS.
pub fn dynamic(proxy: &Proxy<'_>) -> Value {
    let api_type = match proxy.protocol {
        Protocol::Delta => "DELTA_GRPC",
        Protocol::Sotw => "GRPC",
    };
    let by_ads = json!({ "ads": {}, "resource_api_version": "V3" });
    json!({
        "node": { "id": proxy.id, "cluster": proxy.fleet },
        "admin": admin(),
        "dynamic_resources": {
            "ads_config": {
                "api_type": api_type,
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": XDS_CLUSTER } }],
            },
            "cds_config": by_ads,
            "lds_config": by_ads,
        },
        "static_resources": { "clusters": [{
            "name": XDS_CLUSTER,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": assignment(XDS_CLUSTER, proxy.xds),
            "typed_extension_protocol_options": http2(),
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "sni": "localhost",
                    "common_tls_context": {
                        "tls_certificates": [{
                            "certificate_chain": { "filename": proxy.identity.certificate },
                            "private_key": { "filename": proxy.identity.key },
                        }],
                        "validation_context": { "trusted_ca": { "filename": proxy.trusted } },
                    },
                },
            },
        }] },
    })
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

fn http2() -> Value {
    json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {
            "connection_keepalive": { "interval": "30s", "timeout": "5s" },
        } },
    } })
}
