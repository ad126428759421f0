//! Which fields of a message say something that the sidecar does not look at. Pure.
//!
//! A message is shown as JSON, by its descriptor, so that no field of Envoy's can be forgotten here: what is not listed as
//! honoured is ignored, whatever it is.

use std::collections::BTreeSet;

use chancery_proto::{
    describe::{json, types::Type},
    type_url,
};
use serde_json::Value;

/// What is honoured of a listener that carries TCP. It is the only one whose port is its own.
const OF_TCP_LISTENER: &[&str] = &[
    "name",
    "address.socket_address.address",
    "address.socket_address.port_value",
    "address.socket_address.protocol",
    "filter_chains.filters.name",
    "filter_chains.filters.typed_config.@type",
    "filter_chains.filters.typed_config.cluster",
    "filter_chains.filters.typed_config.weighted_clusters.clusters.name",
    "filter_chains.filters.typed_config.weighted_clusters.clusters.weight",
    "filter_chains.filters.typed_config.idle_timeout",
    "filter_chains.filters.typed_config.max_connect_attempts",
    "default_filter_chain.filters.name",
    "default_filter_chain.filters.typed_config.@type",
    "default_filter_chain.filters.typed_config.cluster",
    "default_filter_chain.filters.typed_config.weighted_clusters.clusters.name",
    "default_filter_chain.filters.typed_config.weighted_clusters.clusters.weight",
    "default_filter_chain.filters.typed_config.idle_timeout",
    "default_filter_chain.filters.typed_config.max_connect_attempts",
];

/// What is honoured of each type: what begins like one of these, up to a dot; with an exclamation mark, only that it is there.
const HONOURED: &[(&str, &[&str])] = &[
    (
        type_url::LISTENER,
        &[
            "name",
            "filter_chains.filters.name",
            "filter_chains.filters.typed_config.@type",
            "filter_chains.filters.typed_config.rds.route_config_name",
            "filter_chains.filters.typed_config.route_config",
            "default_filter_chain.filters",
        ],
    ),
    (
        type_url::ROUTE,
        &[
            "name",
            "request_headers_to_add",
            "request_headers_to_remove",
            "response_headers_to_add",
            "response_headers_to_remove",
            // Ports are never looked at, and routes may be there before their clusters.
            "ignore_port_in_host_matching",
            "validate_clusters",
            "virtual_hosts.name",
            "virtual_hosts.domains",
            "virtual_hosts.request_headers_to_add",
            "virtual_hosts.request_headers_to_remove",
            "virtual_hosts.response_headers_to_add",
            "virtual_hosts.response_headers_to_remove",
            "virtual_hosts.retry_policy",
            "virtual_hosts.routes.name",
            "virtual_hosts.routes.match.prefix",
            "virtual_hosts.routes.match.path",
            "virtual_hosts.routes.match.path_separated_prefix",
            "virtual_hosts.routes.match.safe_regex",
            "virtual_hosts.routes.match.case_sensitive",
            "virtual_hosts.routes.match.headers",
            "virtual_hosts.routes.match.query_parameters",
            "virtual_hosts.routes.match.grpc",
            "virtual_hosts.routes.request_headers_to_add",
            "virtual_hosts.routes.request_headers_to_remove",
            "virtual_hosts.routes.response_headers_to_add",
            "virtual_hosts.routes.response_headers_to_remove",
            "virtual_hosts.routes.direct_response",
            "virtual_hosts.routes.redirect",
            "virtual_hosts.routes.route.cluster",
            "virtual_hosts.routes.route.weighted_clusters.clusters.name",
            "virtual_hosts.routes.route.weighted_clusters.clusters.weight",
            "virtual_hosts.routes.route.timeout",
            "virtual_hosts.routes.route.prefix_rewrite",
            "virtual_hosts.routes.route.regex_rewrite",
            "virtual_hosts.routes.route.host_rewrite_literal",
            // WebSockets and the like are always carried.
            "virtual_hosts.routes.route.upgrade_configs",
            "virtual_hosts.routes.route.retry_policy.retry_on",
            "virtual_hosts.routes.route.retry_policy.num_retries",
            "virtual_hosts.routes.route.retry_policy.per_try_timeout",
            "virtual_hosts.routes.route.retry_policy.retry_back_off",
            "virtual_hosts.routes.route.retry_policy.retriable_status_codes",
            // Another host is always preferred.
            "virtual_hosts.routes.route.retry_policy.retry_host_predicate",
        ],
    ),
    (
        type_url::CLUSTER,
        &[
            "name",
            "type",
            "cluster_type",
            "eds_cluster_config",
            "load_assignment",
            "connect_timeout",
            "circuit_breakers.thresholds.priority",
            "circuit_breakers.thresholds.max_connections",
            "circuit_breakers.thresholds.max_pending_requests",
            "circuit_breakers.thresholds.max_requests",
            "circuit_breakers.thresholds.retry_budget.budget_percent",
            "circuit_breakers.thresholds.retry_budget.budget_interval",
            "outlier_detection.consecutive_5xx",
            "outlier_detection.consecutive_gateway_failure",
            "outlier_detection.interval",
            "outlier_detection.base_ejection_time",
            "outlier_detection.max_ejection_time",
            "outlier_detection.max_ejection_time_jitter",
            "outlier_detection.max_ejection_percent",
            "outlier_detection.success_rate_minimum_hosts",
            "outlier_detection.success_rate_request_volume",
            "outlier_detection.success_rate_stdev_factor",
            "outlier_detection.failure_percentage_threshold",
            "outlier_detection.failure_percentage_minimum_hosts",
            "outlier_detection.failure_percentage_request_volume",
            "outlier_detection.enforcing_consecutive_5xx",
            "outlier_detection.enforcing_consecutive_gateway_failure",
            "outlier_detection.enforcing_success_rate",
            "outlier_detection.enforcing_failure_percentage",
            // One may always go.
            "outlier_detection.always_eject_one_host",
            "transport_socket.name",
            "transport_socket.typed_config.@type",
            "transport_socket.typed_config.sni",
            "transport_socket.typed_config.auto_host_sni",
            "transport_socket.typed_config.auto_sni_san_validation",
            "transport_socket.typed_config.common_tls_context.tls_params.tls_minimum_protocol_version",
            "transport_socket.typed_config.common_tls_context.tls_certificates.certificate_chain",
            "transport_socket.typed_config.common_tls_context.tls_certificates.private_key",
            "transport_socket.typed_config.common_tls_context.tls_certificate_sds_secret_configs",
            "transport_socket.typed_config.common_tls_context.validation_context.trusted_ca",
            "transport_socket.typed_config.common_tls_context.validation_context.match_typed_subject_alt_names",
            "transport_socket.typed_config.common_tls_context.validation_context_sds_secret_config",
            "transport_socket.typed_config.common_tls_context.combined_validation_context.default_validation_context.trusted_ca",
            "transport_socket.typed_config.common_tls_context.combined_validation_context.default_validation_context.match_typed_subject_alt_names",
            "transport_socket.typed_config.common_tls_context.combined_validation_context.validation_context_sds_secret_config",
            "metadata.filter_metadata.chancery.sidecar",
            "typed_extension_protocol_options.envoy.extensions.upstreams.http.v3.HttpProtocolOptions.@type",
            "typed_extension_protocol_options.envoy.extensions.upstreams.http.v3.HttpProtocolOptions.common_http_protocol_options.idle_timeout",
            "typed_extension_protocol_options.envoy.extensions.upstreams.http.v3.HttpProtocolOptions.explicit_http_config.http_protocol_options!",
            "typed_extension_protocol_options.envoy.extensions.upstreams.http.v3.HttpProtocolOptions.explicit_http_config.http2_protocol_options!",
        ],
    ),
    (
        type_url::SECRET,
        &[
            "name",
            "tls_certificate.certificate_chain",
            "tls_certificate.private_key",
            "validation_context.trusted_ca",
            "validation_context.match_typed_subject_alt_names",
        ],
    ),
    (
        type_url::ENDPOINT,
        &[
            "cluster_name",
            "endpoints.priority",
            "endpoints.lb_endpoints.health_status",
            "endpoints.lb_endpoints.load_balancing_weight",
            "endpoints.lb_endpoints.endpoint.address.socket_address.address",
            "endpoints.lb_endpoints.endpoint.address.socket_address.port_value",
            "endpoints.lb_endpoints.endpoint.address.socket_address.protocol",
        ],
    ),
];

/// The fields of `body`, a message of type `type_url`, that are set and not honoured, each once, without indices.
pub fn ignored(type_url: &str, body: &[u8]) -> Vec<String> {
    let honoured = HONOURED.iter().find(|(of, _)| *of == type_url).map_or(&[][..], |(_, fields)| fields);
    but_for(honoured, type_url, body)
}

/// The same of a listener that carries TCP.
pub fn of_tcp_listener(body: &[u8]) -> Vec<String> {
    but_for(OF_TCP_LISTENER, type_url::LISTENER, body)
}

fn but_for(honoured: &[&str], type_url: &str, body: &[u8]) -> Vec<String> {
    let shown = Type::of_url(type_url).and_then(|of| json::decode(of, body).ok());
    let mut set = BTreeSet::new();
    if let Some(shown) = shown {
        leaves(&shown, "", &mut set);
    }
    let is_honoured = |path: &String| {
        honoured.iter().any(|field| match field.strip_suffix('!') {
            Some(exact) => path == exact,
            None => path.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
        })
    };
    set.into_iter().filter(|path| !is_honoured(path)).collect()
}

fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(value, &path, found);
            }
        }
        Value::Array(values) if !values.is_empty() => values.iter().for_each(|value| leaves(value, path, found)),
        _ => _ = found.insert(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use chancery_proto::{
        Message as _, any,
        cel::{CelMatcher, call, field, text},
        envoy::{
            cluster::Cluster,
            core::BindConfig,
            listener::Listener,
            rbac_filter::{Rbac, RbacPerRoute},
            route::{
                FilterConfig, Route, RouteAction, RouteConfiguration, VirtualHost, route::Action,
                route_action::RequestMirrorPolicy,
            },
        },
    };

    use serde_json::json;

    use super::*;

    #[test]
    fn copies_and_faults_are_listed_and_harmless() {
        let fault = CelMatcher::of(call("_<_", [field("request", "time"), call("timestamp", [text("2026")])]));
        let config =
            FilterConfig { config: Some(any::pack_typed(&fault)), is_optional: true, ..FilterConfig::default() };
        let copies = RequestMirrorPolicy { cluster: "next".into(), ..RequestMirrorPolicy::default() };
        let action = RouteAction { request_mirror_policies: vec![copies], ..RouteAction::default() };
        let route = Route {
            name: "shop/0".into(),
            action: Some(Action::Route(action)),
            typed_per_filter_config: [("chancery.fault".to_owned(), any::pack_typed(&config))].into(),
            ..Route::default()
        };
        let host = VirtualHost { routes: vec![route], ..VirtualHost::default() };
        let routes = RouteConfiguration { virtual_hosts: vec![host], ..RouteConfiguration::default() };
        let listed = ignored(type_url::ROUTE, &routes.encode_to_vec());
        let of_fault = "virtual_hosts.routes.typed_per_filter_config.chancery.fault.";
        assert!(listed.iter().any(|path| path.ends_with("call_expr.function")), "{listed:?}");
        let others: Vec<_> = listed.iter().filter(|path| !path.starts_with(of_fault)).collect();
        assert_eq!(others, ["virtual_hosts.routes.route.request_mirror_policies.cluster"]);
    }

    #[test]
    fn who_may_send_requests_is_listed_for_its_application_sends_them() {
        let told = FilterConfig {
            config: Some(any::pack_typed(&RbacPerRoute { rbac: Some(Rbac::default()) })),
            ..FilterConfig::default()
        };
        let route = Route {
            typed_per_filter_config: [("chancery.access.rule".to_owned(), any::pack_typed(&told))].into(),
            ..Route::default()
        };
        let host = VirtualHost { routes: vec![route], ..VirtualHost::default() };
        let routes = RouteConfiguration { virtual_hosts: vec![host], ..RouteConfiguration::default() };
        let listed = ignored(type_url::ROUTE, &routes.encode_to_vec());
        assert!(listed.iter().all(|path| path.contains("typed_per_filter_config.chancery.access.rule")), "{listed:?}");
        assert!(!listed.is_empty());
    }

    #[test]
    fn a_field_that_is_set_and_not_looked_at_is_listed() {
        let mut cluster = Cluster { name: "shop".into(), ..Cluster::default() };
        assert!(ignored(type_url::CLUSTER, &cluster.encode_to_vec()).is_empty());
        cluster.upstream_bind_config = Some(BindConfig { freebind: Some(Default::default()), ..BindConfig::default() });
        assert_eq!(ignored(type_url::CLUSTER, &cluster.encode_to_vec()), ["upstream_bind_config.freebind"]);
    }

    #[test]
    fn what_envoys_tell_of_requests_is_listed_and_harmless() {
        let config = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "rds": { "route_config_name": "web", "config_source": { "ads": {} } },
            "access_log": [{ "name": "stdout", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            } }],
            "tracing": { "random_sampling": { "value": 1.0 } },
        });
        let filter = json!({ "name": "http", "typed_config": config });
        let listener = json!({ "name": "web", "filter_chains": [{ "filters": [filter] }] });
        let body = json::encode(Type::of_url(type_url::LISTENER).unwrap(), &listener).unwrap();
        let listed = ignored(type_url::LISTENER, &body);
        let of = |field: &str| listed.iter().any(|path| path.contains(&format!("typed_config.{field}.")));
        assert!(of("access_log") && of("tracing"), "{listed:?}");
        assert!(crate::config::from_xds::listener(&Listener::decode(&*body).unwrap()).is_ok());
    }

    #[test]
    fn how_envoys_choose_is_listed_and_harmless() {
        let hash = json!({ "header": { "header_name": "x-user" } });
        let config = json!({
            "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.maglev.v3.Maglev",
            "consistent_hashing_lb_config": { "hash_policy": [hash] },
        });
        let policy = json!({ "typed_extension_config": { "name": "maglev", "typed_config": config } });
        let cluster = json!({ "name": "shop", "load_balancing_policy": { "policies": [policy] } });
        let body = json::encode(Type::of_url(type_url::CLUSTER).unwrap(), &cluster).unwrap();
        let listed = ignored(type_url::CLUSTER, &body);
        assert!(listed.iter().all(|path| path.starts_with("load_balancing_policy.policies.")), "{listed:?}");
        assert!(listed.iter().any(|path| path.ends_with("hash_policy.header.header_name")), "{listed:?}");
        assert!(crate::config::from_xds::cluster(&Cluster::decode(&*body).unwrap(), false).is_ok());
    }

    #[test]
    fn where_a_listener_listens_is_looked_at_only_for_tcp() {
        let config = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "db", "weighted_clusters": { "clusters": [{ "name": "db", "weight": 1 }] },
            "idle_timeout": "5s", "max_connect_attempts": 2, "backoff_options": { "base_interval": "1s" },
        });
        let chain = json!({ "filters": [{ "name": "tcp", "typed_config": config }] });
        let address = json!({ "socket_address": { "address": "0.0.0.0", "port_value": 5432 } });
        for (chain, place) in [
            (json!({ "filter_chains": [chain] }), "filter_chains"),
            (json!({ "default_filter_chain": chain }), "default_filter_chain"),
        ] {
            let mut listener = chain;
            listener["name"] = "db".into();
            listener["address"] = address.clone();
            let body = json::encode(Type::of_url(type_url::LISTENER).unwrap(), &listener).unwrap();
            let config = format!("{place}.filters.typed_config");
            let left = [format!("{config}.backoff_options.base_interval"), format!("{config}.stat_prefix")];
            assert_eq!(of_tcp_listener(&body), left);
            assert!(ignored(type_url::LISTENER, &body).contains(&"address.socket_address.port_value".to_owned()));
        }
    }
}
