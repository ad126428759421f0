//! `Cluster`.

use std::sync::Arc;

use chancery_proto::{
    any,
    envoy::{
        cluster::{
            Cluster, OutlierDetection,
            circuit_breakers::Thresholds,
            cluster::{ClusterDiscoveryType, DiscoveryType},
        },
        core::RoutingPriority,
        http_options::{
            HttpProtocolOptions,
            http_protocol_options::{UpstreamProtocolOptions, explicit_http_config::ProtocolConfig},
        },
    },
    google::protobuf::{Any, UInt32Value},
};

use super::{Problem, Problems, endpoints::endpoints, metadata, tls, tls::TlsSpec, value};
use crate::{
    config::snapshot::{ClusterSettings, EndpointSpec, Protocol},
    policy::outlier,
};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const DNS_CLUSTER: &str = "envoy.cluster.dns";

/// What a cluster says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSpec {
    /// What is spoken with it, and how; without TLS, which secrets may be missing for.
    pub settings: ClusterSettings,
    /// Whether it is spoken to over TLS.
    pub tls: Option<TlsSpec>,
    /// Where its endpoints are.
    pub endpoints: Discovery,
}

/// Where the endpoints of a cluster are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// In the assignment of this name.
    Eds(Arc<str>),
    /// Here.
    Inline(Vec<EndpointSpec>),
}

/// Reads a cluster. `has_identity`: the sidecar has a certificate, without which there is no TLS.
///
/// # Errors
/// Everything that is wrong.
pub fn cluster(cluster: &Cluster, has_identity: bool) -> Result<ClusterSpec, Vec<Problem>> {
    let mut problems = Problems::default();
    let mut settings = ClusterSettings::default();
    if let Some(timeout) = value::duration_at(&mut problems, "connect_timeout", cluster.connect_timeout.as_ref()) {
        settings.connect_timeout = timeout;
    }
    if let Some(options) = cluster.typed_extension_protocol_options.get(HTTP_OPTIONS) {
        http_options(&mut problems, &mut settings, options);
    }
    let thresholds = cluster.circuit_breakers.iter().flat_map(|breakers| &breakers.thresholds).enumerate();
    for (t, thresholds) in thresholds.filter(|(_, one)| one.priority == i32::from(RoutingPriority::Default)) {
        limits(&mut problems, &format!("circuit_breakers.thresholds[{t}]"), &mut settings, thresholds);
    }
    if let Some(detection) = &cluster.outlier_detection {
        outliers(&mut problems, &mut settings, detection);
    }
    let socket = cluster.transport_socket.as_ref();
    let tls = socket.and_then(|socket| tls::upstream(&mut problems, socket, has_identity));
    if !cluster.transport_socket_matches.is_empty() {
        problems.add("transport_socket_matches", "endpoints of one cluster are spoken to in one way");
    }
    let own = cluster.metadata.as_ref().and_then(|metadata| metadata.filter_metadata.get(metadata::KEY));
    if let Some(own) = own {
        metadata::read(&mut problems, &mut settings, own);
    }
    let endpoints = discovery(&mut problems, cluster);
    problems.none_or(ClusterSpec { settings, tls, endpoints })
}

fn discovery(problems: &mut Problems, cluster: &Cluster) -> Discovery {
    match &cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(kind)) if *kind == i32::from(DiscoveryType::Eds) => {
            let said = cluster.eds_cluster_config.as_ref().map(|eds| eds.service_name.as_str());
            return Discovery::Eds(said.filter(|name| !name.is_empty()).unwrap_or(&cluster.name).into());
        }
        Some(ClusterDiscoveryType::Type(kind)) if *kind == i32::from(DiscoveryType::OriginalDst) => {
            problems.add("type", "ORIGINAL_DST needs connections that were redirected here, and they are not");
        }
        Some(ClusterDiscoveryType::ClusterType(custom)) if custom.name != DNS_CLUSTER => {
            problems.add("cluster_type.name", format!("{:?} is not known here", custom.name));
        }
        _ => {}
    }
    let read = endpoints(&cluster.load_assignment.clone().unwrap_or_default());
    Discovery::Inline(read.unwrap_or_else(|found| {
        let inner = found.into_iter().map(|one| Problem { path: format!("load_assignment.{}", one.path), ..one });
        problems.0.extend(inner);
        Vec::new()
    }))
}

fn http_options(problems: &mut Problems, settings: &mut ClusterSettings, options: &Any) {
    let path = format!("typed_extension_protocol_options[{HTTP_OPTIONS}]");
    let options: HttpProtocolOptions = match any::unpack(options) {
        Ok(options) => options,
        Err(error) => return problems.add(path, error.to_string()),
    };
    let idle = options.common_http_protocol_options.as_ref().and_then(|common| common.idle_timeout.as_ref());
    let idle_path = format!("{path}.common_http_protocol_options.idle_timeout");
    if let Some(idle) = value::duration_at(problems, &idle_path, idle).filter(|idle| !idle.is_zero()) {
        settings.idle_timeout = idle;
    }
    let explicit = match options.upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => explicit.protocol_config,
        Some(UpstreamProtocolOptions::AutoConfig(_)) => {
            return problems.add(format!("{path}.auto_config"), "the protocol has to be said");
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(_)) => {
            return problems.add(format!("{path}.use_downstream_protocol_config"), "the protocol has to be said");
        }
        None => None,
    };
    match explicit {
        Some(ProtocolConfig::Http2ProtocolOptions(_)) => settings.protocol = Protocol::Http2,
        Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
            problems.add(format!("{path}.explicit_http_config.http3_protocol_options"), "HTTP/3 is not spoken");
        }
        Some(ProtocolConfig::HttpProtocolOptions(_)) | None => {}
    }
}

fn limits(problems: &mut Problems, path: &str, settings: &mut ClusterSettings, thresholds: &Thresholds) {
    let set = |to: &mut u32, from: &Option<UInt32Value>| {
        if let Some(value) = from {
            *to = value.value;
        }
    };
    set(&mut settings.max_connections, &thresholds.max_connections);
    set(&mut settings.max_requests, &thresholds.max_requests);
    set(&mut settings.max_pending, &thresholds.max_pending_requests);
    let Some(budget) = &thresholds.retry_budget else { return };
    let interval_path = format!("{path}.retry_budget.budget_interval");
    let interval = value::duration_at(problems, &interval_path, budget.budget_interval.as_ref());
    // Zero is the default of Envoy, which then counts what is under way.
    if let Some(interval) = interval.filter(|interval| !interval.is_zero()) {
        settings.retry_budget.ttl = interval;
    }
    if let Some(percent) = &budget.budget_percent {
        if percent.value.is_finite() && (0.0..=100.0).contains(&percent.value) {
            settings.retry_budget.ratio = percent.value / 100.0;
        } else {
            problems.add(format!("{path}.retry_budget.budget_percent"), "is no percentage");
        }
    }
}

fn outliers(problems: &mut Problems, settings: &mut ClusterSettings, detection: &OutlierDetection) {
    let mut outlier = outlier::Settings::default();
    let numbers: [(&mut u32, &Option<UInt32Value>); 12] = [
        (&mut outlier.consecutive_5xx, &detection.consecutive_5xx),
        (&mut outlier.consecutive_gateway_failure, &detection.consecutive_gateway_failure),
        (&mut outlier.success_rate_minimum_hosts, &detection.success_rate_minimum_hosts),
        (&mut outlier.success_rate_request_volume, &detection.success_rate_request_volume),
        (&mut outlier.success_rate_stdev_factor, &detection.success_rate_stdev_factor),
        (&mut outlier.failure_percentage_threshold, &detection.failure_percentage_threshold),
        (&mut outlier.failure_percentage_minimum_hosts, &detection.failure_percentage_minimum_hosts),
        (&mut outlier.failure_percentage_request_volume, &detection.failure_percentage_request_volume),
        (&mut outlier.enforcing_consecutive_5xx, &detection.enforcing_consecutive_5xx),
        (&mut outlier.enforcing_consecutive_gateway_failure, &detection.enforcing_consecutive_gateway_failure),
        (&mut outlier.enforcing_success_rate, &detection.enforcing_success_rate),
        (&mut outlier.enforcing_failure_percentage, &detection.enforcing_failure_percentage),
    ];
    for (to, from) in numbers {
        if let Some(value) = from {
            *to = value.value;
        }
    }
    let times = [
        ("interval", &mut outlier.interval, &detection.interval),
        ("base_ejection_time", &mut outlier.base_ejection_time, &detection.base_ejection_time),
        ("max_ejection_time", &mut outlier.max_ejection_time, &detection.max_ejection_time),
        ("max_ejection_time_jitter", &mut outlier.max_ejection_time_jitter, &detection.max_ejection_time_jitter),
    ];
    for (name, to, from) in times {
        if let Some(time) = value::duration_at(problems, &format!("outlier_detection.{name}"), from.as_ref()) {
            *to = time;
        }
    }
    settings.endpoints.outlier = Some(outlier);
    if let Some(percent) = &detection.max_ejection_percent {
        settings.endpoints.max_ejection_percent = percent.value;
    }
}
