//! What our check of constraints refuses, a real Envoy refuses for the same reason; and what we translate, both accept.
//!
//! Each case breaks one rule of a bootstrap that is good without it. Our own encoder makes the bytes from JSON,
//! so it is judged too.

use std::path::Path;

use chancery_proto::{
    Message as _,
    describe::{Violation, check, json, types::Type},
    envoy::{bootstrap::Bootstrap, listener::filter::ConfigType},
    google::protobuf::Any,
};
use serde_json::{Value, json};

use crate::{catalog::every_limiter, certificate, envoy::Envoy, everything, fleet};

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
const CLUSTER: &str = "static_resources.clusters[0]";
const ENDPOINT: &str = "static_resources.clusters[0].load_assignment.endpoints[0].lb_endpoints[0]";
const LISTENER: &str = "static_resources.listeners[0]";
const MANAGER: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
const HOST: &str =
    "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0]";
const ROUTE: &str =
    "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.route_config.virtual_hosts[0].routes[0]";
const FILTER: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0]";

/// Where, what is merged there, where in it the violation is, and the reason.
struct Case(&'static str, Value, &'static str, &'static str);

fn cases() -> Vec<Case> {
    let extension = |name: &str, mut fields: Value| {
        fields["@type"] = format!("type.googleapis.com/envoy.{name}").into();
        fields
    };
    let filter = |name: &str, fields: Value| json!({ "name": "a", "typed_config": extension(name, fields) });
    let forward = |fields: Value| json!({ "route": fields });
    let header =
        |key: &str, value: &str| json!({ "request_headers_to_add": [{ "header": { "key": key, "value": value } }] });
    let health_check = |fields: Value| {
        let mut check = json!({ "timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1, "http_health_check": { "path": "/" } });
        for (name, value) in fields.as_object().into_iter().flatten() {
            check[name] = value.clone();
        }
        json!({ "health_checks": [check] })
    };
    let at_least_one = "value length must be at least 1 characters";
    let is_required = "is required";
    let value_is_required = "value is required";
    let undefined = "value must be one of the defined enum values";
    let one_item = "value must contain at least 1 item(s)";
    let loose = r"value does not match regex pattern";
    vec![
        // Texts.
        Case(CLUSTER, json!({ "name": "" }), "name", at_least_one),
        Case(MANAGER, json!({ "stat_prefix": "" }), "stat_prefix", at_least_one),
        Case(ROUTE, header("", "a"), "request_headers_to_add[0].header.key", at_least_one),
        Case(ROUTE, header("a\nb", "a"), "request_headers_to_add[0].header.key", loose),
        Case(ROUTE, header("a", "a\rb"), "request_headers_to_add[0].header.value", loose),
        Case(
            ROUTE,
            header("a", &"a".repeat(16385)),
            "request_headers_to_add[0].header.value",
            "value length must be at most 16384 bytes",
        ),
        Case(ROUTE, json!({ "match": { "path_separated_prefix": "/a/" } }), "match.path_separated_prefix", loose),
        Case(ROUTE, json!({ "match": { "path_separated_prefix": "/a?b" } }), "match.path_separated_prefix", loose),
        Case(
            MANAGER,
            json!({ "scheme_header_transformation": { "scheme_to_overwrite": "ftp" } }),
            "scheme_header_transformation.scheme_to_overwrite",
            "value must be in list",
        ),
        Case(
            FILTER,
            filter(
                "extensions.filters.http.ratelimit.v3.RateLimit",
                json!({ "domain": "a", "request_type": "none", "rate_limit_service": { "transport_api_version": "V3", "grpc_service": { "envoy_grpc": { "cluster_name": "c" } } } }),
            ),
            "typed_config.request_type",
            "value must be in list",
        ),
        // Numbers.
        Case(
            ENDPOINT,
            json!({ "endpoint": { "address": { "socket_address": { "port_value": 70000 } } } }),
            "endpoint.address.socket_address.port_value",
            "value must be less than or equal to 65535",
        ),
        Case(
            ENDPOINT,
            json!({ "load_balancing_weight": 0 }),
            "load_balancing_weight",
            "value must be greater than or equal to 1",
        ),
        Case(
            ROUTE,
            json!({ "direct_response": { "status": 700 } }),
            "direct_response.status",
            "value must be inside range [200, 600)",
        ),
        Case(
            CLUSTER,
            json!({ "outlier_detection": { "enforcing_success_rate": 101 } }),
            "outlier_detection.enforcing_success_rate",
            "value must be less than or equal to 100",
        ),
        Case(
            CLUSTER,
            json!({ "preconnect_policy": { "per_upstream_preconnect_ratio": 0.5 } }),
            "preconnect_policy.per_upstream_preconnect_ratio",
            "value must be inside range [1, 3]",
        ),
        Case(
            CLUSTER,
            json!({ "common_lb_config": { "healthy_panic_threshold": { "value": 100.5 } } }),
            "common_lb_config.healthy_panic_threshold.value",
            "value must be inside range [0, 100]",
        ),
        Case(
            CLUSTER,
            json!({ "ring_hash_lb_config": { "minimum_ring_size": 8388609 } }),
            "ring_hash_lb_config.minimum_ring_size",
            "value must be less than or equal to 8388608",
        ),
        // Durations.
        Case(CLUSTER, json!({ "connect_timeout": "0s" }), "connect_timeout", "value must be greater than 0s"),
        Case(
            CLUSTER,
            json!({ "outlier_detection": { "interval": "0s" } }),
            "outlier_detection.interval",
            "value must be greater than 0s",
        ),
        Case(CLUSTER, health_check(json!({ "timeout": null })), "health_checks[0].timeout", value_is_required),
        Case(
            CLUSTER,
            health_check(json!({ "interval": "0s" })),
            "health_checks[0].interval",
            "value must be greater than 0s",
        ),
        // Enumerations.
        Case(CLUSTER, json!({ "lb_policy": 99 }), "lb_policy", undefined),
        Case(MANAGER, json!({ "codec_type": 9 }), "codec_type", undefined),
        Case(ROUTE, json!({ "redirect": { "response_code": 9 } }), "redirect.response_code", undefined),
        Case(
            CLUSTER,
            health_check(json!({ "http_health_check": { "path": "/", "method": "CONNECT" } })),
            "health_checks[0].http_health_check.method",
            "value must not be in list",
        ),
        // Messages and choices that have to be there.
        Case(
            CLUSTER,
            health_check(json!({ "healthy_threshold": null })),
            "health_checks[0].healthy_threshold",
            value_is_required,
        ),
        Case(ROUTE, json!({ "match": null }), "match", value_is_required),
        Case(ROUTE, json!({ "match": { "prefix": null } }), "match.path_specifier", is_required),
        Case(ROUTE, json!({ "route": null }), "action", is_required),
        Case(ROUTE, forward(json!({ "cluster": null })), "route.cluster_specifier", is_required),
        Case(
            ROUTE,
            forward(json!({ "retry_policy": { "retry_back_off": {} } })),
            "route.retry_policy.retry_back_off.base_interval",
            value_is_required,
        ),
        Case(
            LISTENER,
            json!({ "address": { "socket_address": { "port_value": null } } }),
            "address.socket_address.port_specifier",
            is_required,
        ),
        Case(
            ENDPOINT,
            json!({ "endpoint": { "address": { "socket_address": null } } }),
            "endpoint.address.address",
            is_required,
        ),
        Case(MANAGER, json!({ "rds": null, "route_config": null }), "route_specifier", is_required),
        Case(
            ROUTE,
            json!({ "match": { "runtime_fraction": {} } }),
            "match.runtime_fraction.default_value",
            value_is_required,
        ),
        // Lists and maps.
        Case(HOST, json!({ "domains": [] }), "domains", one_item),
        Case(HOST, json!({ "domains": ["a\nb"] }), "domains[0]", loose),
        Case(
            ROUTE,
            forward(json!({ "weighted_clusters": { "clusters": [] } })),
            "route.weighted_clusters.clusters",
            one_item,
        ),
        Case(
            HOST,
            json!({ "response_headers_to_add": vec![json!({ "header": { "key": "a", "value": "b" } }); 1001] }),
            "response_headers_to_add",
            "value must contain no more than 1000 item(s)",
        ),
        Case(ROUTE, json!({ "request_headers_to_remove": ["a", ""] }), "request_headers_to_remove[1]", at_least_one),
        Case(
            FILTER,
            filter(
                "extensions.filters.http.compressor.v3.Compressor",
                json!({ "compressor_library": { "name": "gzip", "typed_config": extension("extensions.compression.gzip.compressor.v3.Gzip", json!({})) }, "response_direction_config": { "uncompressible_response_codes": [204, 204] } }),
            ),
            "typed_config.response_direction_config.uncompressible_response_codes",
            "repeated value must contain unique items",
        ),
        Case(
            FILTER,
            filter(
                "extensions.filters.http.compressor.v3.Compressor",
                json!({ "compressor_library": { "name": "gzip", "typed_config": extension("extensions.compression.gzip.compressor.v3.Gzip", json!({})) }, "response_direction_config": { "uncompressible_response_codes": [199] } }),
            ),
            "typed_config.response_direction_config.uncompressible_response_codes[0]",
            "value must be inside range [200, 600)",
        ),
        Case(
            CLUSTER,
            json!({ "health_checks": [{ "timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1 }] }),
            "health_checks[0].health_checker",
            is_required,
        ),
        // Booleans, bytes, extensions.
        Case(
            MANAGER,
            json!({ "access_log": [{ "name": "a", "filter": { "response_flag_filter": { "flags": ["NONE"] } }, "typed_config": extension("extensions.access_loggers.stream.v3.StdoutAccessLog", json!({})) }] }),
            "access_log[0].filter.response_flag_filter.flags[0]",
            "value must be in list",
        ),
        Case(
            LISTENER,
            json!({ "listener_filters": [{ "name": "a", "filter_disabled": { "any_match": false }, "typed_config": extension("extensions.filters.listener.tls_inspector.v3.TlsInspector", json!({})) }] }),
            "listener_filters[0].filter_disabled.any_match",
            "value must equal true",
        ),
        Case(
            ROUTE,
            json!({ "typed_per_filter_config": { "a": extension("extensions.filters.http.buffer.v3.BufferPerRoute", json!({ "disabled": false })) } }),
            "typed_per_filter_config[\"a\"].disabled",
            "value must equal true",
        ),
        Case(
            CLUSTER,
            json!({ "cluster_type": { "name": "a", "typed_config": extension("extensions.clusters.aggregate.v3.ClusterConfig", json!({})) } }),
            "cluster_type.typed_config.clusters",
            one_item,
        ),
        Case(
            CLUSTER,
            json!({ "load_balancing_policy": { "policies": [{ "typed_extension_config": { "name": "a" } }] } }),
            "load_balancing_policy.policies[0].typed_extension_config.typed_config",
            value_is_required,
        ),
    ]
}

/// A bootstrap in which nothing is wrong.
fn good() -> Value {
    let address = |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    json!({
        "node": { "id": "a", "cluster": "b" },
        "static_resources": {
            "listeners": [{ "name": "web", "address": address(10000), "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "web",
                    "route_config": { "name": "web", "virtual_hosts": [{
                        "name": "web",
                        "domains": ["*"],
                        "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "c" } }],
                    }] },
                    "http_filters": [
                        { "name": "cors", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors" } },
                        { "name": "router", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } },
                    ],
                },
            }] }] }],
            "clusters": [{ "name": "c", "connect_timeout": "1s", "type": "STATIC", "load_assignment": {
                "cluster_name": "c",
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(80) } }] }],
            } }],
        },
    })
}

fn of() -> &'static Type {
    Type::named(BOOTSTRAP).expect("the type is there")
}

/// What both say of `bootstrap`.
fn judge(envoy: &Envoy, directory: &Path, bootstrap: &Value) -> (Vec<Violation>, Result<(), String>) {
    let bytes = json::encode(of(), bootstrap).unwrap_or_else(|found| panic!("{found:#?}"));
    let message = Bootstrap::decode(bytes.as_slice()).expect("a bootstrap");
    let file = directory.join("bootstrap.pb");
    std::fs::write(&file, message.encode_to_vec()).expect("a written bootstrap");
    (check(BOOTSTRAP, &bytes), envoy.validate(&file))
}

#[test]
fn what_breaks_a_rule_is_refused_by_both_for_the_same_reason() {
    let Some(envoy) = Envoy::find() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (found, said) = judge(&envoy, directory.path(), &good());
    assert_eq!((found, said), (vec![], Ok(())));

    let cases = cases();
    assert!(cases.len() > 40, "only {}", cases.len());
    let mut wrong = Vec::new();
    for Case(at, patch, path, reason) in cases {
        let mut bootstrap = good();
        json::merge(of(), &mut bootstrap, &at.parse().expect("a path"), &patch)
            .unwrap_or_else(|found| panic!("{patch}: {found:#?}"));
        let (found, said) = judge(&envoy, directory.path(), &bootstrap);
        let path = format!("{at}.{path}");
        if !found.iter().any(|found| found.path == path && found.reason.starts_with(reason)) {
            wrong.push(format!("we do not say {path}: {reason}, but {found:?}"));
        }
        match said {
            Ok(()) => wrong.push(format!("Envoy accepts {path}: {reason}")),
            Err(said) if said.contains(reason) => {}
            Err(said) => wrong.push(format!("Envoy does not say {path}: {reason}, but {said}")),
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_is_disallowed_and_what_is_unknown_is_refused_by_both() {
    let Some(envoy) = Envoy::find() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let key = json!({ "descriptor_key": "a", "metadata_key": { "key": "a", "path": [{ "key": "b" }] } });
    let disallowed = json!({ "route": { "rate_limits": [{ "actions": [{ "dynamic_metadata": key }] }] } });
    let mut bootstrap = good();
    let route = ROUTE.parse().expect("a path");
    json::merge(of(), &mut bootstrap, &route, &disallowed).expect("the field is known");
    let (found, said) = judge(&envoy, directory.path(), &bootstrap);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].path, format!("{ROUTE}.route.rate_limits[0].actions[0].dynamic_metadata"));
    assert!(said.is_err_and(|said| said.contains("dynamic_metadata")));

    let bytes = json::encode(of(), &good()).expect("a bootstrap");
    let mut message = Bootstrap::decode(bytes.as_slice()).expect("a bootstrap");
    let listeners = message.static_resources.as_mut().map(|resources| &mut resources.listeners);
    let filter = &mut listeners.expect("listeners")[0].filter_chains[0].filters[0];
    let unknown = Any { type_url: "type.googleapis.com/envoy.Nothing".into(), value: Vec::new() };
    filter.config_type = Some(ConfigType::TypedConfig(unknown));
    let found = check(BOOTSTRAP, &message.encode_to_vec());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].path, MANAGER);
    assert!(envoy.refusal(directory.path(), &message).contains("envoy.Nothing"));
}

#[test]
fn what_is_translated_breaks_no_rule() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tls = certificate(directory.path());
    for limiter in every_limiter() {
        let fleet = chancery_control_plane::model::fleet::Fleet { rate_limiter: Some(limiter), ..fleet() };
        let bytes = everything(&fleet, &tls).encode_to_vec();
        assert_eq!(check(BOOTSTRAP, &bytes), []);
        // What is shown as JSON and read again is the same configuration. Fields that were not in the order of their
        // numbers are so then; that nothing is lost, the length tells.
        let shown = json::decode(of(), &bytes).expect("a message");
        let again = json::encode(of(), &shown).expect("the same message");
        assert_eq!(again.len(), bytes.len());
        assert_eq!(json::decode(of(), &again), Ok(shown));
    }
}
