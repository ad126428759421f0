//! Messages as Envoy's documentation writes them: what is honoured, and what is refused.

use std::time::Duration;

use chancery_proto::{
    Message,
    describe::{json, types::Type},
    envoy::{cluster::Cluster, endpoint::ClusterLoadAssignment, listener::Listener, route::RouteConfiguration},
    type_url,
};
use serde_json::{Value, json};

use super::*;
use crate::{
    config::{routes::Action, snapshot::Protocol},
    policy::{
        concurrency::{self, Aimd, Gradient2},
        deadline::RouteTimeout,
        retry::Conditions,
    },
};

#[expect(clippy::needless_pass_by_value, reason = "callers write json!(…) in place")]
pub(super) fn message<M: Message + Default>(url: &str, value: Value) -> M {
    let bytes = json::encode(Type::of_url(url).unwrap(), &value).unwrap();
    M::decode(bytes.as_slice()).unwrap()
}

fn read_cluster(value: Value) -> Result<ClusterSpec, Vec<Problem>> {
    cluster(&message::<Cluster>(type_url::CLUSTER, value), false)
}

/// Routes of one host, with this route.
#[expect(clippy::needless_pass_by_value, reason = "callers write json!(…) in place")]
fn read_route(route: Value) -> Result<crate::config::routes::RouteTable, Vec<Problem>> {
    let value = json!({ "virtual_hosts": [{ "name": "a", "domains": ["*"], "routes": [route] }] });
    routes(&message::<RouteConfiguration>(type_url::ROUTE, value))
}

pub(super) fn paths<T>(read: Result<T, Vec<Problem>>) -> Vec<String> {
    read.err().unwrap_or_default().into_iter().map(|problem| problem.path).collect()
}

#[test]
fn a_cluster_says_how_it_is_spoken_to() {
    let read = read_cluster(json!({
        "name": "shop",
        "type": "EDS",
        "eds_cluster_config": { "service_name": "shop-eds" },
        "connect_timeout": "0.250s",
        "circuit_breakers": { "thresholds": [
            { "max_requests": 10, "max_pending_requests": 5, "max_connections": 3,
              "retry_budget": { "budget_percent": { "value": 30 }, "budget_interval": "5s" } },
            { "priority": "HIGH", "max_requests": 99 },
        ] },
        "outlier_detection": { "consecutive_5xx": 3, "base_ejection_time": "5s", "max_ejection_percent": 40 },
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": { "idle_timeout": "7s" },
            "explicit_http_config": { "http2_protocol_options": {} },
        } },
        "metadata": { "filter_metadata": { "chancery.sidecar": {
            "breaker": { "consecutiveFailures": 4, "openFor": "0.5s", "probeTimeout": "2s" },
            "retryBudget": { "perSecond": 3 },
            "hedge": { "quantile": 0.9, "least": "0.002s" },
            "adaptiveConcurrency": { "algorithm": "aimd", "least": 4, "most": 40 },
        } } },
    }))
    .unwrap();
    assert_eq!(read.endpoints, Discovery::Eds("shop-eds".into()));
    let settings = read.settings;
    assert_eq!((settings.protocol, settings.connect_timeout), (Protocol::Http2, Duration::from_millis(250)));
    assert_eq!((settings.max_requests, settings.max_pending, settings.max_connections), (10, 5, 3));
    assert_eq!(settings.idle_timeout, Duration::from_secs(7));
    let budget = settings.retry_budget;
    assert_eq!((budget.ratio, budget.ttl, budget.least_per_second), (0.3, Duration::from_secs(5), 3));
    let outlier = settings.endpoints.outlier.unwrap();
    assert_eq!((outlier.consecutive_5xx, outlier.base_ejection_time), (3, Duration::from_secs(5)));
    assert_eq!(settings.endpoints.max_ejection_percent, 40);
    let breaker = settings.endpoints.breaker.unwrap();
    assert_eq!((breaker.accrual.consecutive, breaker.backoff.least), (Some(4), Duration::from_millis(500)));
    let hedge = settings.hedge.unwrap();
    assert_eq!((hedge.quantile, hedge.samples, hedge.least), (0.9, 100, Duration::from_millis(2)));
    let aimd = Aimd { least: 4, most: 40, ..Aimd::default() };
    assert_eq!(settings.adaptive_concurrency, Some(concurrency::Settings::Aimd(aimd)));
}

#[test]
fn metadata_have_the_last_word_and_need_not_say_everything() {
    let read = read_cluster(json!({
        "name": "shop",
        "type": "EDS",
        "circuit_breakers": { "thresholds": [{ "retry_budget": { "budget_interval": "0s" } }] },
        "metadata": { "filter_metadata": { "chancery.sidecar": {
            "retryBudget": { "ttl": "7s", "ratio": 0.5 },
            "adaptiveConcurrency": {},
        } } },
    }));
    let settings = read.unwrap().settings;
    assert_eq!((settings.retry_budget.ttl, settings.retry_budget.ratio), (Duration::from_secs(7), 0.5));
    let usual = concurrency::Settings::Gradient2(Gradient2::default());
    assert_eq!(settings.adaptive_concurrency, Some(usual));
    let silent = read_cluster(json!({ "name": "shop", "type": "EDS" })).unwrap().settings;
    assert_eq!((silent.adaptive_concurrency, silent.retry_budget.ttl), (None, Duration::from_secs(10)));
}

#[test]
fn everything_wrong_with_a_cluster_is_told_at_once() {
    let read = read_cluster(json!({
        "name": "shop",
        "type": "ORIGINAL_DST",
        "transport_socket": { "name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        } },
        "metadata": { "filter_metadata": { "chancery.sidecar": {
            "breaker": { "openFor": "soon" }, "hedge": { "quantile": 1 }, "retryBudget": 7, "unknown": 1,
            "adaptiveConcurrency": { "algorithm": "vegas", "most": 10 },
        } } },
    }));
    let own = "metadata.filter_metadata[chancery.sidecar]";
    let wanted = [
        "transport_socket".to_owned(),
        format!("{own}.adaptiveConcurrency.algorithm"),
        format!("{own}.adaptiveConcurrency.most"),
        format!("{own}.breaker.openFor"),
        format!("{own}.hedge.quantile"),
        format!("{own}.retryBudget"),
        format!("{own}.unknown"),
        "type".to_owned(),
    ];
    assert_eq!(paths(read), wanted);
}

#[test]
fn endpoints_are_those_of_the_first_priority() {
    let at = |port: u16| json!({ "address": { "socket_address": { "address": "10.0.0.1", "port_value": port } } });
    let assignment = json!({ "cluster_name": "shop", "endpoints": [
        { "priority": 1, "lb_endpoints": [{ "endpoint": at(9) }] },
        { "lb_endpoints": [
            { "endpoint": at(1), "load_balancing_weight": 3 },
            { "endpoint": at(2), "health_status": "UNHEALTHY" },
            { "endpoint": at(3), "health_status": "DRAINING" },
            { "endpoint": at(1), "load_balancing_weight": 2 },
        ] },
    ] });
    let read = endpoints(&message::<ClusterLoadAssignment>(type_url::ENDPOINT, assignment)).unwrap();
    let read: Vec<_> = read.iter().map(|one| (one.at.to_string(), one.weight, one.healthy)).collect();
    assert_eq!(read, [("10.0.0.1:1".to_owned(), 5, true), ("10.0.0.1:2".to_owned(), 1, false)]);
}

#[test]
fn a_route_says_where_and_how_often() {
    let table = read_route(json!({
        "match": { "prefix": "/api" },
        "route": {
            "weighted_clusters": { "clusters": [{ "name": "a", "weight": 1 }, { "name": "b", "weight": 3 }] },
            "timeout": "2s",
            "regex_rewrite": { "pattern": { "regex": "^/api/(.*)" }, "substitution": "/\\1$" },
            "retry_policy": { "retry_on": "5xx,unavailable", "num_retries": 2, "per_try_timeout": "0.5s" },
        },
    }))
    .unwrap();
    let host = table.host("any").unwrap();
    let Action::Forward(forward) = &host.routes[0].action else { panic!("it forwards") };
    assert_eq!(forward.timeout, Some(RouteTimeout::new(Duration::from_secs(2))));
    let retry = forward.retry.as_ref().unwrap();
    assert_eq!((retry.retries, retry.per_try), (2, Some(Duration::from_millis(500))));
    assert_eq!(retry.on, Conditions::SERVER_ERROR.with(Conditions::UNAVAILABLE));
    assert_eq!(host.routes[0].rewritten(&forward.rewrite, "/api/x"), "/x$");
}

#[test]
fn a_route_for_tunnels_is_passed_over_and_listed() {
    let tunnel = json!({ "match": { "connect_matcher": {} }, "route": { "cluster": "db" } });
    let plain = json!({ "match": { "prefix": "/" }, "route": { "cluster": "shop" } });
    let host = json!({ "name": "a", "domains": ["*"], "routes": [tunnel, plain] });
    let configuration: RouteConfiguration = message(type_url::ROUTE, json!({ "virtual_hosts": [host] }));
    assert!(routes(&configuration).is_ok());
    let listed = crate::config::ignored::ignored(type_url::ROUTE, &configuration.encode_to_vec());
    assert_eq!(listed, ["virtual_hosts.routes.match.connect_matcher"]);
}

#[test]
fn a_route_that_cannot_be_taken_is_refused_by_its_field() {
    let to = json!({ "cluster": "a" });
    let at = "virtual_hosts[0].routes[0]";
    for (route, path) in [
        (json!({ "match": { "prefix": "/", "cookies": [{ "name": "c" }] }, "route": to }), "match.cookies"),
        (json!({ "match": { "safe_regex": { "regex": "(" } }, "route": to }), "match.safe_regex.regex"),
        (
            json!({ "match": { "path_match_policy": { "name": "template", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
                "path_template": "/users/{v1}",
            } } }, "route": to }),
            "match.path_match_policy",
        ),
        (
            json!({ "match": { "prefix": "/" }, "route": { "cluster": "a", "path_rewrite_policy": {
                "name": "template", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig",
                    "path_template_rewrite": "/{v1}",
                },
            } } }),
            "route.path_rewrite_policy",
        ),
        (json!({ "match": { "prefix": "/" }, "route": { "cluster_header": "x" } }), "route"),
        (
            json!({ "match": { "prefix": "/" }, "route": { "cluster": "a", "retry_policy": { "retry_on": "moon" } } }),
            "route.retry_policy.retry_on",
        ),
        (
            json!({ "match": { "prefix": "/" }, "route": to,
                "request_headers_to_add": [{ "header": { "key": "x", "value": "%REQ(y)%" } }] }),
            "request_headers_to_add[0].header.value",
        ),
    ] {
        assert_eq!(paths(read_route(route)), [format!("{at}.{path}")]);
    }
}

#[test]
fn a_listener_leads_to_its_routes() {
    let filter = |config: Value| {
        let value =
            json!({ "name": "web", "filter_chains": [{ "filters": [{ "name": "f", "typed_config": config }] }] });
        listener(&message::<Listener>(type_url::LISTENER, value))
    };
    let http = filter(json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web", "rds": { "route_config_name": "web", "config_source": { "ads": {} } },
    }));
    assert!(matches!(http.unwrap(), Served::Http(Routes::Rds(name)) if &*name == "web"));
    let redis = filter(json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
        "stat_prefix": "cache", "settings": { "op_timeout": "1s" },
    }));
    assert_eq!(paths(redis), ["filter_chains[0].filters[0].typed_config"]);
}
