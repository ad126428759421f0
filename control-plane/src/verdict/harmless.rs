//! A message as it may be shown to an Envoy on this machine. Pure.
//!
//! `--mode validate` binds no port and sends no request, but it builds all that the message describes (seen with 1.40): files are
//! opened, an access log is even created, the names of a DNS cluster are looked up, gRPC connections of Google's library are
//! opened, and a script is run. A message is written by whoever may edit a fleet; files, network and processor of this machine are
//! not theirs. So files become stand-ins, names to look up become addresses, and a message that cannot be judged without
//! the rest is not shown at all.

use std::{collections::BTreeSet, net::IpAddr};

use bytes::Bytes;
use chancery_proto::{
    Message,
    describe::{Step, replace},
    envoy::cluster::{
        Cluster,
        cluster::{ClusterDiscoveryType, DiscoveryType},
    },
    type_url,
};

/// The stand-ins, in the folder that Envoy is started in: a certificate, also for a CA, and its key.
pub(super) const CERTIFICATE_FILE: &str = "certificate.pem";
pub(super) const KEY_FILE: &str = "key.pem";

/// What is written where a log would be.
const NOWHERE: &str = "/dev/null";

/// What is put in place of a name to look up.
const NO_LOOKUP: &str = "127.0.0.1";

/// Packages and types that run what they are given, or reach into the network by themselves. Neither is a type shown that is not
/// known: it could hold any of them.
const NEVER_SHOWN: [&str; 7] = [
    ".lua.",
    ".wasm.",
    ".golang.",
    ".dynamic_modules.",
    ".aws",
    ".dns_resolver.",
    "envoy.config.core.v3.GrpcService.GoogleGrpc",
];

/// Fields that name a file to write to.
const LOGS: [&str; 4] = [
    "envoy.config.core.v3.HealthCheck.event_log_path",
    "envoy.extensions.access_loggers.file.v3.FileAccessLog.path",
    "envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink.event_log_path",
    "envoy.extensions.transport_sockets.tls.v3.TlsKeyLog.path",
];

/// Other fields that name what is on the proxy's machine.
const ON_THE_PROXY: [&str; 25] = [
    "envoy.config.core.v3.ConfigSource.path",
    "envoy.config.core.v3.DataSource.environment_variable",
    "envoy.config.core.v3.DataSource.filename",
    "envoy.config.core.v3.PathConfigSource.path",
    "envoy.config.core.v3.SocketAddress.network_namespace_filepath",
    "envoy.config.core.v3.WatchedDirectory.path",
    "envoy.config.tap.v3.FilePerTapSink.path_prefix",
    "envoy.config.trace.v3.DynamicOtConfig.library",
    "envoy.config.trace.v3.LightstepConfig.access_token_file",
    "envoy.extensions.filters.http.file_server.v3.FileServerConfig.PathMapping.file_path_prefix",
    "envoy.extensions.filters.http.grpc_json_reverse_transcoder.v3.GrpcJsonReverseTranscoder.descriptor_path",
    "envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder.proto_descriptor",
    "envoy.extensions.geoip_providers.maxmind.v3.MaxMindConfig.anon_db_path",
    "envoy.extensions.geoip_providers.maxmind.v3.MaxMindConfig.asn_db_path",
    "envoy.extensions.geoip_providers.maxmind.v3.MaxMindConfig.city_db_path",
    "envoy.extensions.geoip_providers.maxmind.v3.MaxMindConfig.country_db_path",
    "envoy.extensions.geoip_providers.maxmind.v3.MaxMindConfig.isp_db_path",
    "envoy.extensions.grpc_service.call_credentials.sts_service.v3.StsServiceCredentials.actor_token_path",
    "envoy.extensions.grpc_service.call_credentials.sts_service.v3.StsServiceCredentials.subject_token_path",
    "envoy.extensions.http.cache.file_system_http_cache.v3.FileSystemHttpCacheConfig.cache_path",
    "envoy.extensions.http.cache_v2.file_system_http_cache.v3.FileSystemHttpCacheV2Config.cache_path",
    "envoy.extensions.key_value.file_based.v3.FileBasedKeyValueStoreConfig.filename",
    "envoy.extensions.network.socket_interface.sockmap.v3.Sockmap.bpf_program_path",
    "envoy.extensions.network.socket_interface.sockmap.v3.Sockmap.cgroup_path",
    "envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig.filename",
];

/// A message that may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Harmless {
    /// The message, with stand-ins.
    pub(super) message: Bytes,
    /// The clusters that it names.
    pub(super) clusters: BTreeSet<String>,
}

impl Harmless {
    /// `message` of the type that `type_url` names; none if it cannot be judged here.
    pub(super) fn of(type_url: &str, message: &[u8]) -> Option<Self> {
        let resolves =
            type_url == type_url::CLUSTER && Cluster::decode(message).is_ok_and(|cluster| resolves(&cluster));
        let mut look = Look { resolves, ..Look::default() };
        let message = replace(type_url, message, &mut |way, text| look.at(way, text)).ok()?;
        let mixed = look.identity_in_files && look.identity_inline;
        (!look.never && !mixed).then(|| Self { message: message.into(), clusters: look.clusters })
    }
}

/// Whether the proxy looks up the names of the cluster's endpoints.
fn resolves(cluster: &Cluster) -> bool {
    match &cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(of)) => {
            [DiscoveryType::StrictDns, DiscoveryType::LogicalDns].into_iter().any(|dns| i32::from(dns) == *of)
        }
        Some(ClusterDiscoveryType::ClusterType(_)) => true,
        None => false,
    }
}

#[derive(Default)]
struct Look {
    resolves: bool,
    never: bool,
    /// Certificates and keys that do not lie in one place cannot be exchanged for ours.
    identity_in_files: bool,
    identity_inline: bool,
    clusters: BTreeSet<String>,
}

impl Look {
    fn at(&mut self, way: &[Step], text: &[u8]) -> Option<Vec<u8>> {
        let hidden = |step: &Step| NEVER_SHOWN.iter().any(|part| step.of.contains(part));
        self.never |= way.iter().any(hidden);
        let (last, before) = way.split_last()?;
        let is = |known: &&str| known.strip_prefix(last.of).and_then(|rest| rest.strip_prefix('.')) == Some(last.field);
        if LOGS.iter().any(&is) {
            return Some(NOWHERE.into());
        }
        if last.of == "envoy.config.core.v3.DataSource"
            && let Some(stand_in) = before.last().and_then(stand_in)
        {
            let in_file = last.field == "filename";
            *(if in_file { &mut self.identity_in_files } else { &mut self.identity_inline }) |= stand_in.is_identity;
            if in_file {
                return Some(stand_in.file.into());
            }
        }
        self.never |= !text.is_empty() && ON_THE_PROXY.iter().any(is);
        if last.of == "envoy.config.core.v3.SocketAddress" && last.field == "address" {
            let in_cache = |step: &Step| step.of.ends_with(".DnsCacheConfig");
            let text = std::str::from_utf8(text).ok()?;
            let is_looked_up = (self.resolves || way.iter().any(in_cache)) && text.parse::<IpAddr>().is_err();
            return is_looked_up.then(|| NO_LOOKUP.into());
        }
        if matches!(last.field, "cluster" | "cluster_name") || last.field.ends_with("_cluster") {
            self.clusters.extend(std::str::from_utf8(text).ok().filter(|name| !name.is_empty()).map(str::to_owned));
        }
        None
    }
}

struct StandIn {
    file: &'static str,
    /// Whether it goes with another one.
    is_identity: bool,
}

/// What is put in place of a file that this field names.
fn stand_in(step: &Step) -> Option<StandIn> {
    let of = step.of.strip_prefix("envoy.extensions.transport_sockets.tls.v3.")?;
    Some(match (of, step.field) {
        ("TlsCertificate", "certificate_chain") => StandIn { file: CERTIFICATE_FILE, is_identity: true },
        ("TlsCertificate", "private_key") => StandIn { file: KEY_FILE, is_identity: true },
        ("CertificateValidationContext", "trusted_ca") => StandIn { file: CERTIFICATE_FILE, is_identity: false },
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
