//! What a proxy starts with: who it is, where its control plane is, and how the two trust each other. Pure.
//!
//! Everything else comes over the stream. The result is JSON, Envoy's own form for this file, so
//! that people can read it and add to it; it holds paths of keys and certificates, never the keys.
//!
//! Envoy reads the files that its bootstrap names once, when it starts. So a certificate that is renewed while the proxy runs is named by
//! a file of its own ([`secret_files`]), which Envoy follows: that is how it proves itself to its control plane. What it shows to limiters
//! and services is still what it had when it started, since these are announced over xDS and cannot name a file of this machine: before
//! that certificate ends, the proxy has to be restarted (hot restart keeps its connections).

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::{Value, json};

pub use chancery_proto::chancery::{CA_SECRET, IDENTITY_SECRET, XDS_CLUSTER};

use crate::model::{Name, re2, service::Zone};

/// The cluster that tells Envoy in which zone it is.
const OWN_ZONE_CLUSTER: &str = "chancery.own-zone";

/// The file that says where the proxy's certificate and key lie.
const IDENTITY_FILE: &str = "identity.sds.json";
/// The file that says where its authorities lie.
const CA_FILE: &str = "ca.sds.json";

/// How many client connections a proxy takes unless it is told otherwise (the number in Envoy's guide for edges).
pub const DEFAULT_MAX_CONNECTIONS: u64 = 50_000;

/// Ten times Envoy's default. The model estimates the size of a pattern and refuses it at that default, so that any
/// Envoy takes it; one that Envoy counts differently must still not cost a whole route configuration.
pub(crate) const REGEX_PROGRAM_SIZE: u32 = 10 * re2::MAX_PROGRAM_SIZE;

/// Which form of xDS the proxy speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Only what changed travels; routes one host at a time.
    #[default]
    Delta,
    /// Everything of a type travels with every change of the type.
    StateOfTheWorld,
}

/// What the bootstrap file of one proxy depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// The fleet; must be the one in the certificate.
    pub fleet: Name,
    /// The proxy's id; must be the one in the certificate.
    pub id: Name,
    /// Host name or IP address of the control plane.
    pub xds_host: String,
    /// Its xDS port.
    pub xds_port: u16,
    /// The name or IP address its certificate must be for; `xds_host` unless it is reached by another name.
    pub server_name: Option<String>,
    /// Path of the CA certificates that the control plane's certificate must lead to (PEM), as the proxy sees it.
    pub ca_file: String,
    /// Path of the proxy's certificate chain (PEM).
    pub certificate_file: String,
    /// Path of the proxy's private key (PEM).
    pub private_key_file: String,
    /// Where the two files lie that name those, if they are renewed while the proxy runs ([`secret_files`]).
    pub secrets_dir: Option<PathBuf>,
    /// What the node says of itself: a rollout can choose its canaries by that.
    pub labels: BTreeMap<String, String>,
    /// In which zone the proxy is, if that is said; services with `zoneAware` prefer endpoints there.
    pub zone: Option<Zone>,
    /// Where Envoy's admin interface listens, if anywhere. Whoever reaches it owns the proxy.
    pub admin: Option<SocketAddr>,
    /// Which form of xDS is spoken.
    pub protocol: Protocol,
    /// Client connections above this number are refused.
    pub max_connections: u64,
    /// The heap at which Envoy gives memory back (at 95 %) and turns requests away (at 98 %).
    pub max_heap_bytes: Option<u64>,
}

impl Bootstrap {
    /// The bootstrap as Envoy reads it.
    pub fn to_json(&self) -> Value {
        let from_ads = json!({ "ads": {}, "resource_api_version": "V3" });
        let mut bootstrap = json!({
            "node": { "id": self.id.as_str(), "cluster": self.fleet.as_str() },
            "dynamic_resources": {
                "ads_config": self.ads_config(),
                "cds_config": from_ads,
                "lds_config": from_ads,
            },
            "cluster_manager": { "load_stats_config": self.load_stats_config() },
            "static_resources": { "clusters": [self.xds_cluster()], "secrets": self.secrets() },
            "layered_runtime": {
                "layers": [
                    {
                        "name": "chancery",
                        "static_layer": { "re2": { "max_program_size": { "error_level": REGEX_PROGRAM_SIZE } } },
                    },
                    { "name": "admin", "admin_layer": {} },
                ],
            },
            "overload_manager": self.overload_manager(),
        });
        if !self.labels.is_empty() {
            bootstrap["node"]["metadata"] = json!({ "labels": self.labels });
        }
        if let Some(zone) = &self.zone {
            let Zone { region, zone } = zone;
            let locality = json!({ "region": region, "zone": zone });
            bootstrap["static_resources"]["clusters"]
                .as_array_mut()
                .into_iter()
                .for_each(|all| all.push(own_zone(&locality)));
            bootstrap["cluster_manager"]["local_cluster_name"] = OWN_ZONE_CLUSTER.into();
            bootstrap["node"]["locality"] = locality;
        }
        if let Some(admin) = self.admin {
            bootstrap["admin"] = json!({
                "address": socket_address(&admin.ip().to_string(), admin.port()),
                // An operator must get in when clients do not.
                "ignore_global_conn_limit": true,
            });
        }
        bootstrap
    }

    /// Who the proxy is and whom it trusts, for others than the cluster of the control plane: limiters and services are
    /// announced over xDS, by a control plane that knows no paths on this machine.
    fn secrets(&self) -> Value {
        json!([
            { "name": IDENTITY_SECRET, "tls_certificate": self.identity() },
            { "name": CA_SECRET, "validation_context": { "trusted_ca": { "filename": self.ca_file } } },
        ])
    }

    fn identity(&self) -> Value {
        identity(&self.certificate_file, &self.private_key_file)
    }

    fn ads_config(&self) -> Value {
        json!({
            "api_type": match self.protocol {
                Protocol::Delta => "DELTA_GRPC",
                Protocol::StateOfTheWorld => "GRPC",
            },
            "transport_api_version": "V3",
            "set_node_on_first_message_only": true,
            "grpc_services": [{
                "envoy_grpc": {
                    "cluster_name": XDS_CLUSTER,
                    // Jittered between zero and a bound that doubles; the default upper bound of 30 s
                    // would leave a proxy behind for longer than a restart of the control plane takes.
                    "retry_policy": { "retry_back_off": { "base_interval": "0.5s", "max_interval": "10s" } },
                },
            }],
        })
    }

    /// Where the proxy reports the load of its services; how often, it is told there.
    fn load_stats_config(&self) -> Value {
        json!({
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{ "envoy_grpc": { "cluster_name": XDS_CLUSTER } }],
        })
    }

    fn xds_cluster(&self) -> Value {
        json!({
            "name": XDS_CLUSTER,
            "type": if self.xds_host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" },
            // Envoy's default prefers IPv6, which many networks hand out and do not route.
            "dns_lookup_family": "V4_PREFERRED",
            "connect_timeout": "5s",
            "load_assignment": {
                "cluster_name": XDS_CLUSTER,
                "endpoints": [{
                    "lb_endpoints": [{
                        "endpoint": { "address": socket_address(&self.xds_host, self.xds_port) },
                    }],
                }],
            },
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {
                        "http2_protocol_options": {
                            // The stream may be silent for days; without pings nobody notices that it is dead.
                            "connection_keepalive": { "interval": "30s", "timeout": "10s" },
                        },
                    },
                },
            },
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": self.tls_context(),
            },
        })
    }

    fn tls_context(&self) -> Value {
        let server = self.server_name.as_deref().unwrap_or(&self.xds_host);
        let is_address = server.parse::<IpAddr>().is_ok();
        let mut context = json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "tls_params": { "tls_minimum_protocol_version": "TLSv1_2" },
                "alpn_protocols": ["h2"],
            },
        });
        // Without this, Envoy would take any certificate of that CA, that of another proxy included.
        let names = json!([{
            "san_type": if is_address { "IP_ADDRESS" } else { "DNS" },
            "matcher": { "exact": server },
        }]);
        let common = &mut context["common_tls_context"];
        match &self.secrets_dir {
            None => {
                common["tls_certificates"] = json!([self.identity()]);
                common["validation_context"] =
                    json!({ "trusted_ca": { "filename": self.ca_file }, "match_typed_subject_alt_names": names });
            }
            Some(dir) => {
                let from = |file: &str, name: &str| {
                    let source =
                        json!({ "path_config_source": { "path": dir.join(file) }, "resource_api_version": "V3" });
                    json!({ "name": name, "sds_config": source })
                };
                common["tls_certificate_sds_secret_configs"] = json!([from(IDENTITY_FILE, IDENTITY_SECRET)]);
                common["combined_validation_context"] = json!({
                    "default_validation_context": { "match_typed_subject_alt_names": names },
                    "validation_context_sds_secret_config": from(CA_FILE, CA_SECRET),
                });
            }
        }
        if !is_address {
            context["sni"] = json!(server);
        }
        context
    }

    fn overload_manager(&self) -> Value {
        let mut monitors = vec![json!({
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": self.max_connections,
            },
        })];
        let mut actions = Vec::new();
        if let Some(bytes) = self.max_heap_bytes {
            let heap = "envoy.resource_monitors.fixed_heap";
            monitors.push(json!({
                "name": heap,
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": bytes,
                },
            }));
            let above = |action: &str, share: f64| {
                json!({
                    "name": format!("envoy.overload_actions.{action}"),
                    "triggers": [{ "name": heap, "threshold": { "value": share } }],
                })
            };
            actions = vec![above("shrink_heap", 0.95), above("stop_accepting_requests", 0.98)];
        }
        json!({ "refresh_interval": "0.25s", "resource_monitors": monitors, "actions": actions })
    }
}

/// The names and contents of two files by which an Envoy finds the files of its identity, and follows them: whenever one of those is
/// replaced by another (moved into its place), it is read again.
pub fn secret_files(certificate: &Path, private_key: &Path, ca: &Path) -> [(&'static str, Value); 2] {
    let secret = |name: &str, what: &str, content: Value| {
        let secret = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
        json!({ "resources": [{ "@type": secret, "name": name, what: content }] })
    };
    let authorities = json!({ "trusted_ca": { "filename": ca } });
    [
        (IDENTITY_FILE, secret(IDENTITY_SECRET, "tls_certificate", identity(certificate, private_key))),
        (CA_FILE, secret(CA_SECRET, "validation_context", authorities)),
    ]
}

fn identity(certificate: impl Serialize, private_key: impl Serialize) -> Value {
    json!({ "certificate_chain": { "filename": certificate }, "private_key": { "filename": private_key } })
}

/// Envoy prefers its own zone only beside a cluster that says where its like are. That there is one of them, here, is enough for it;
/// nothing is ever sent to it.
fn own_zone(locality: &Value) -> Value {
    json!({
        "name": OWN_ZONE_CLUSTER,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": OWN_ZONE_CLUSTER,
            "endpoints": [{
                "locality": locality,
                "lb_endpoints": [{ "endpoint": { "address": socket_address("127.0.0.1", 1) } }],
            }],
        },
    })
}

fn socket_address(host: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": host, "port_value": port } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrap() -> Bootstrap {
        Bootstrap {
            fleet: "edge".parse().expect("a name"),
            id: "edge-1".parse().expect("a name"),
            xds_host: "chancery.example.com".into(),
            xds_port: 18000,
            server_name: None,
            ca_file: "/etc/chancery/ca.pem".into(),
            certificate_file: "/etc/chancery/proxy.pem".into(),
            private_key_file: "/etc/chancery/proxy.key".into(),
            secrets_dir: None,
            labels: BTreeMap::new(),
            zone: None,
            admin: Some("127.0.0.1:9901".parse().expect("an address")),
            protocol: Protocol::Delta,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_heap_bytes: Some(2 << 30),
        }
    }

    #[test]
    fn a_certificate_that_is_renewed_is_named_by_a_file_that_is_followed() {
        let renewed = Bootstrap { secrets_dir: Some("/etc/chancery".into()), ..bootstrap() }.to_json();
        let clusters = &renewed["static_resources"]["clusters"];
        let context = &clusters[0]["transport_socket"]["typed_config"]["common_tls_context"];
        let files = secret_files(
            Path::new("/etc/chancery/tls.crt"),
            Path::new("/etc/chancery/tls.key"),
            Path::new("/etc/chancery/ca.crt"),
        );
        insta::assert_json_snapshot!(json!({ "context": context, "files": files }));
    }

    #[test]
    fn a_proxy_that_finds_its_control_plane_by_name() {
        insta::assert_json_snapshot!(bootstrap().to_json());
    }

    #[test]
    fn an_address_is_neither_resolved_nor_sent_as_server_name() {
        let by_address = Bootstrap { xds_host: "127.0.0.1".into(), ..bootstrap() };
        let cluster = by_address.xds_cluster();
        assert_eq!(cluster["type"], "STATIC");
        let context = by_address.tls_context();
        assert_eq!(context["sni"], Value::Null);
        let sans = &context["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"];
        assert_eq!(*sans, json!([{ "san_type": "IP_ADDRESS", "matcher": { "exact": "127.0.0.1" } }]));
    }

    #[test]
    fn a_zone_is_told_to_envoy_and_to_the_control_plane() {
        let zone = Some(Zone { region: "eu-1".into(), zone: "a".into() });
        let there = Bootstrap { zone, ..bootstrap() }.to_json();
        let here = json!({ "region": "eu-1", "zone": "a" });
        let own = &there["static_resources"]["clusters"][1];
        assert_eq!((&there["node"]["locality"], &own["load_assignment"]["endpoints"][0]["locality"]), (&here, &here));
        assert_eq!(there["cluster_manager"]["local_cluster_name"], own["name"]);
        assert_eq!(bootstrap().to_json()["cluster_manager"]["local_cluster_name"], Value::Null);
    }

    #[test]
    fn the_server_name_may_differ_from_the_address() {
        let tunnelled =
            Bootstrap { xds_host: "127.0.0.1".into(), server_name: Some("chancery.example.com".into()), ..bootstrap() };
        assert_eq!(tunnelled.tls_context()["sni"], "chancery.example.com");
    }

    #[test]
    fn without_admin_and_heap_limit_neither_is_there() {
        let plain = Bootstrap { admin: None, max_heap_bytes: None, ..bootstrap() }.to_json();
        assert_eq!(plain["admin"], Value::Null);
        assert_eq!(plain["overload_manager"]["actions"], json!([]));
    }
}
