//! Whatever bytes come from outside, whoever sends them: they are read or refused, and nothing panics.
//!
//! Beside what is drawn at random, messages that are well-formed are damaged a little: they get further.

use std::{sync::LazyLock, time::Duration};

use chancery_proto::{
    describe::{json, types::Type},
    type_url,
};
use chancery_xds::client::{Batch, Received};
use http::{HeaderMap, Method};
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::{Value, json};

use crate::{
    config::{
        bootstrap::Bootstrap,
        held::{Held, TYPES},
        routes::Asked,
        snapshot::Snapshot,
    },
    policy::{
        classify::GrpcStatus,
        deadline::{format_grpc_timeout, parse_expected_timeout, parse_grpc_timeout},
        pushback::{MOST, parse_grpc_pushback, parse_retry_after},
    },
};

const BOOTSTRAP: &str = r#"{
  "node": { "id": "shop-1", "cluster": "edge" },
  "dynamic_resources": { "ads_config": { "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds" } }] } },
  "static_resources": { "clusters": [{
    "name": "xds",
    "load_assignment": { "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "socket_address": {
      "address": "127.0.0.1", "port_value": 18000 } } } }] }] },
    "transport_socket": { "typed_config": { "common_tls_context": {
      "tls_certificates": [{ "certificate_chain": { "filename": "a" }, "private_key": { "filename": "b" } }],
      "validation_context": { "trusted_ca": { "filename": "c" } } }, "sni": "xds" } }
  }] }
}"#;

fn encoded(url: &str, value: &Value) -> Vec<u8> {
    json::encode(Type::of_url(url).unwrap(), value).unwrap()
}

/// A certificate.
static AUTHORITY: LazyLock<String> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()
});

/// One message of each type, and two listeners, with about everything in it that is looked at.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let at = |port: u16| json!({ "address": { "socket_address": { "address": "10.0.0.1", "port_value": port } } });
    let cluster = json!({
        "name": "shop", "type": "EDS", "connect_timeout": "0.250s",
        "eds_cluster_config": { "service_name": "shop" },
        "circuit_breakers": { "thresholds": [{ "max_requests": 10, "retry_budget": { "budget_percent": { "value": 30 } } }] },
        "outlier_detection": { "consecutive_5xx": 3, "base_ejection_time": "5s", "max_ejection_percent": 40 },
        "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "common_http_protocol_options": { "idle_timeout": "7s" },
            "explicit_http_config": { "http2_protocol_options": {} },
        } },
        "metadata": { "filter_metadata": { "chancery.sidecar": {
            "breaker": { "consecutiveFailures": 4, "openFor": "0.5s", "probeTimeout": "2s" },
            "retryBudget": { "ttl": "5s", "perSecond": 3 }, "maxOutPercent": 10,
        } } },
    });
    let endpoints = json!({ "cluster_name": "shop", "endpoints": [{ "lb_endpoints": [
        { "endpoint": at(1), "load_balancing_weight": 3 }, { "endpoint": at(2), "health_status": "UNHEALTHY" },
    ] }] });
    let routes = json!({ "name": "web", "virtual_hosts": [{ "name": "a", "domains": ["shop.example.com", "*.org"], "routes": [
        { "match": { "safe_regex": { "regex": "/v[0-9]+/ping" } }, "direct_response": { "status": 200 } },
        { "match": { "path": "/old" }, "redirect": { "path_redirect": "/new", "response_code": "PERMANENT_REDIRECT" } },
        { "match": { "prefix": "/", "headers": [{ "name": "x", "string_match": { "prefix": "y" } }],
                     "query_parameters": [{ "name": "q", "present_match": true }] },
          "route": { "weighted_clusters": { "clusters": [{ "name": "shop", "weight": 9 }, { "name": "b", "weight": 1 }] },
                     "timeout": "2s", "prefix_rewrite": "/a", "retry_policy": {
                         "retry_on": "5xx,reset", "num_retries": 2, "per_try_timeout": "0.5s",
                         "retry_back_off": { "base_interval": "0.025s", "max_interval": "0.25s" } } },
          "request_headers_to_add": [{ "header": { "key": "x-a", "value": "b" } }] },
    ] }] });
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web", "route_config": routes,
    });
    let listener = json!({ "name": "web", "address": at(3)["address"],
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": manager }] }] });
    let proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "db",
        "weighted_clusters": { "clusters": [{ "name": "shop", "weight": 9 }, { "name": "b", "weight": 1 }] },
        "idle_timeout": "60s", "max_connect_attempts": 3,
    });
    let tcp = json!({ "name": "db", "address": at(4)["address"],
        "filter_chains": [{ "filters": [{ "name": "tcp", "typed_config": proxy }] }] });
    let secret = json!({ "name": "shop", "validation_context": { "trusted_ca": { "inline_string": *AUTHORITY } } });
    vec![
        (type_url::SECRET, encoded(type_url::SECRET, &secret)),
        (type_url::CLUSTER, encoded(type_url::CLUSTER, &cluster)),
        (type_url::ENDPOINT, encoded(type_url::ENDPOINT, &endpoints)),
        (type_url::ROUTE, encoded(type_url::ROUTE, &routes)),
        (type_url::LISTENER, encoded(type_url::LISTENER, &listener)),
        (type_url::LISTENER, encoded(type_url::LISTENER, &tcp)),
    ]
}

/// A change of some bytes.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
    CutOff(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    // Small numbers are tags and lengths, 0x80 and above the beginning of large ones.
    let byte = prop_oneof![any::<u8>(), 0..32_u8, Just(0xff)];
    prop_oneof![
        4 => (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        2 => (any::<Index>(), vec(byte, 1..12)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (any::<Index>(), 1..12_usize).prop_map(|(at, length)| Damage::Remove(at, length)),
        1 => (any::<Index>(), 1..40_usize).prop_map(|(at, length)| Damage::Repeat(at, length)),
        1 => any::<Index>().prop_map(Damage::CutOff),
    ]
}

fn damaged(bytes: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for damage in damages {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        let end = |at: usize, more: usize| (at + more).min(length);
        match damage {
            Damage::Set(at, byte) => bytes[at.index(length)] = *byte,
            Damage::Insert(at, more) => _ = bytes.splice(at.index(length)..at.index(length), more.clone()),
            Damage::Remove(at, more) => _ = bytes.drain(at.index(length)..end(at.index(length), *more)),
            Damage::Repeat(at, more) => {
                let piece = bytes[at.index(length)..end(at.index(length), *more)].to_vec();
                _ = bytes.splice(at.index(length)..at.index(length), piece);
            }
            Damage::CutOff(at) => bytes.truncate(at.index(length)),
        }
    }
    bytes
}

/// What is in force is used as requests and connections use it.
fn ask(snapshot: &Snapshot) {
    for proxy in snapshot.tcp.values() {
        for chance in [0.0, 0.5, 0.999_999] {
            proxy.cluster(chance);
        }
        assert!(proxy.connect_attempts > 0);
    }
    let headers: HeaderMap =
        [("x", "yes")].into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    for routes in snapshot.listeners.values().flatten() {
        for host in ["shop.example.com", "a.org:80", "", "[::1]:8", "*"] {
            let Some(host) = routes.host(host) else { continue };
            for path in ["/", "/old", "/v7/ping", "/a//b/..", "*", ""] {
                let asked = Asked { method: &Method::POST, path, query: Some("q=1&=&&%"), headers: &headers };
                let Some(route) = host.route(asked) else { continue };
                if let crate::config::routes::Action::Forward(forward) = &route.action {
                    for chance in [0.0, 0.5, 0.999_999] {
                        forward.cluster(chance);
                    }
                    route.rewritten(&forward.rewrite, path);
                }
            }
        }
    }
}

/// Takes these resources; what is refused is refused with a reason, and what is taken can be used, saved and restored.
fn take(resources: &[(&str, Vec<u8>)]) {
    let mut held = Held::new(true);
    for (url, body) in resources {
        let received = Received { name: "shop".into(), version: "1".to_owned(), body: body.clone().into() };
        let batch = Batch { type_url: (*url).into(), upserts: vec![received], removed: Vec::new() };
        if let Err(refused) = held.take(&batch) {
            assert!(refused.iter().all(|one| !one.reason.is_empty()), "refused without a reason");
        }
    }
    ask(&held.snapshot());
    let restored = Held::restore(&held.save(), true).expect("what was taken can be restored");
    assert_eq!(restored.versions(), held.versions());
}

#[test]
fn what_is_well_formed_is_taken() {
    let mut held = Held::new(true);
    for (url, body) in messages() {
        let received = Received { name: "shop".into(), version: "1".to_owned(), body: body.into() };
        let batch = Batch { type_url: url.into(), upserts: vec![received], removed: Vec::new() };
        held.take(&batch).unwrap();
    }
    assert_eq!(held.versions().len(), TYPES.len());
    // All have the same name, so that the last listener is the one in force.
    let snapshot = held.snapshot();
    assert_eq!((snapshot.listeners.len(), snapshot.tcp.len()), (0, 1));
    BOOTSTRAP.parse::<Bootstrap>().unwrap();
}

proptest! {
    #[test]
    fn values_of_headers(value in prop_oneof![vec(any::<u8>(), 0..40), "[0-9]{0,25}[HMSmun, :GT]{0,3}".prop_map(String::into_bytes)], now in any::<u64>()) {
        if let Some(timeout) = parse_grpc_timeout(&value) {
            let passed_on = format_grpc_timeout(timeout);
            let again = parse_grpc_timeout(passed_on.as_bytes());
            prop_assert!(again.is_some_and(|again| again <= timeout), "{timeout:?} became {passed_on}");
        }
        let _ = parse_expected_timeout(&value);
        for pushback in [parse_retry_after(&value, Duration::from_secs(now)), parse_grpc_pushback(&value)] {
            prop_assert!(pushback.after().is_none_or(|wait| wait <= MOST));
        }
        prop_assert!(GrpcStatus::parse(&value).code() <= 16);
    }

    #[test]
    fn messages_at_random(url in prop::sample::select(&TYPES[..]), body in vec(any::<u8>(), 0..200)) {
        take(&[(url, body)]);
    }

    #[test]
    fn messages_that_are_damaged(damages in vec(vec(damage(), 0..4), 6)) {
        let resources: Vec<_> =
            messages().iter().zip(&damages).map(|((url, body), damages)| (*url, damaged(body, damages))).collect();
        take(&resources);
    }

    #[test]
    fn a_saved_configuration_that_is_damaged(damages in vec(damage(), 1..6)) {
        let mut held = Held::new(true);
        for (url, body) in messages() {
            let received = Received { name: "shop".into(), version: "1".to_owned(), body: body.into() };
            held.take(&Batch { type_url: url.into(), upserts: vec![received], removed: Vec::new() }).unwrap();
        }
        if let Ok(restored) = Held::restore(&damaged(&held.save(), &damages), true) {
            ask(&restored.snapshot());
        }
    }

    #[test]
    fn a_bootstrap_file_that_is_damaged(damages in vec(damage(), 0..6)) {
        let text = String::from_utf8_lossy(&damaged(BOOTSTRAP.as_bytes(), &damages)).into_owned();
        match text.parse::<Bootstrap>() {
            Ok(bootstrap) => prop_assert!(bootstrap.server.port_u16().is_some()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
