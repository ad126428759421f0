//! Who the sidecar is, and where its control plane is: from the file with which an Envoy of the same fleet would start.
//!
//! `chancery bootstrap` writes it. What is read of it: the node's id and cluster, the cluster that `ads_config` names with
//! its address, and the files of that cluster's TLS context. All else is Envoy's. JSON and YAML are read.

use std::{path::PathBuf, str::FromStr};

use chancery_runtime::tls::ClientTlsFiles;
use http::uri::Authority;
use serde_json::Value;

use super::tls::{Certificate, Own, Pem};

/// What a bootstrap file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// The id of the node; that of the certificate.
    pub id: String,
    /// The cluster of the node, which is the fleet.
    pub cluster: String,
    /// Host or address of the control plane, and port.
    pub server: Authority,
    /// The name that its certificate has to have; the host if none is said.
    pub server_name: Option<String>,
    /// Whom to trust and who we are; `None`: plaintext.
    pub tls: Option<ClientTlsFiles>,
}

/// Why a bootstrap file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBootstrap {
    /// Neither JSON nor YAML.
    #[error("it is neither JSON nor YAML")]
    Syntax(#[source] serde_norway::Error),
    /// Fields that are missing or wrong, all of them.
    #[error("{}", .0.join("; "))]
    Fields(Vec<String>),
}

impl Bootstrap {
    /// Who the sidecar is to others, if it has certificates.
    pub fn own(&self) -> Option<Own> {
        let ClientTlsFiles { ca, identity } = self.tls.clone()?;
        let (chain, key) = identity?;
        let certificate = Certificate { chain: Pem::File(chain), key: Pem::File(key) };
        Some(Own { authorities: Pem::File(ca), certificate })
    }
}

impl FromStr for Bootstrap {
    type Err = InvalidBootstrap;

    fn from_str(text: &str) -> Result<Self, InvalidBootstrap> {
        let file: Value = serde_norway::from_str(text).map_err(InvalidBootstrap::Syntax)?;
        let mut problems = Vec::new();
        let id = required(&mut problems, &file, "/node/id");
        let cluster = required(&mut problems, &file, "/node/cluster");
        let name =
            required(&mut problems, &file, "/dynamic_resources/ads_config/grpc_services/0/envoy_grpc/cluster_name");
        let clusters = file.pointer("/static_resources/clusters").and_then(Value::as_array);
        let control_plane = clusters.into_iter().flatten().find(|one| one["name"] == name.as_str());
        let Some(control_plane) = control_plane else {
            problems.push(format!("static_resources.clusters has no cluster {name:?}"));
            return Err(InvalidBootstrap::Fields(problems));
        };
        let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
        let host = required(&mut problems, control_plane, &format!("{endpoint}/address"));
        let port = control_plane.pointer(&format!("{endpoint}/port_value")).and_then(Value::as_u64);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let server = port.and_then(|port| format!("{host}:{port}").parse().ok());
        if server.is_none() {
            problems.push(format!("cluster {name:?} has no address and port"));
        }
        let socket = control_plane.pointer("/transport_socket/typed_config/common_tls_context");
        let tls = socket.map(|context| ClientTlsFiles {
            ca: required(&mut problems, context, "/validation_context/trusted_ca/filename").into(),
            identity: Some((
                file_of(&mut problems, context, "certificate_chain"),
                file_of(&mut problems, context, "private_key"),
            )),
        });
        let matcher = "/validation_context/match_typed_subject_alt_names/0/matcher/exact";
        let server_name = socket.and_then(|context| context.pointer(matcher)).and_then(Value::as_str);
        match (server, problems.is_empty()) {
            (Some(server), true) => Ok(Self { id, cluster, server, server_name: server_name.map(str::to_owned), tls }),
            _ => Err(InvalidBootstrap::Fields(problems)),
        }
    }
}

fn file_of(problems: &mut Vec<String>, context: &Value, what: &str) -> PathBuf {
    required(problems, context, &format!("/tls_certificates/0/{what}/filename")).into()
}

/// A text that has to be there and not empty.
fn required(problems: &mut Vec<String>, value: &Value, pointer: &str) -> String {
    let found = value.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    if found.is_none() {
        problems.push(format!("{} is missing", pointer.trim_start_matches('/').replace('/', ".")));
    }
    found.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file() -> Value {
        json!({
            "node": { "id": "side", "cluster": "edge" },
            "dynamic_resources": { "ads_config": { "grpc_services": [{ "envoy_grpc": { "cluster_name": "cp" } }] } },
            "static_resources": { "clusters": [{
                "name": "cp",
                "load_assignment": { "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": {
                    "socket_address": { "address": "::1", "port_value": 18000 },
                } } }] }] },
                "transport_socket": { "typed_config": { "common_tls_context": {
                    "tls_certificates": [{
                        "certificate_chain": { "filename": "a.pem" }, "private_key": { "filename": "a.key" },
                    }],
                    "validation_context": {
                        "trusted_ca": { "filename": "ca.pem" },
                        "match_typed_subject_alt_names": [{ "san_type": "DNS", "matcher": { "exact": "cp.local" } }],
                    },
                } } },
            }] },
        })
    }

    #[test]
    fn what_envoy_starts_with_is_enough() {
        let read: Bootstrap = file().to_string().parse().unwrap();
        assert_eq!((read.id.as_str(), read.cluster.as_str()), ("side", "edge"));
        assert_eq!(read.server.as_str(), "[::1]:18000");
        assert_eq!(read.server_name.as_deref(), Some("cp.local"));
        assert_eq!(read.tls.unwrap().identity, Some(("a.pem".into(), "a.key".into())));
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        let mut file = file();
        file["node"] = json!({});
        file["static_resources"]["clusters"][0]["load_assignment"] = json!({});
        let error = file.to_string().parse::<Bootstrap>().unwrap_err().to_string();
        for missing in ["node.id", "node.cluster", "no address"] {
            assert!(error.contains(missing), "{error}");
        }
    }
}
