//! Static Envoys, imported and translated again.

use chancery_proto::Message as _;

use super::*;
use crate::{
    import::tests::{catalog, documents, pointers, survives, told},
    model::Catalog,
    translate::{self, snapshot},
};

fn options() -> Options {
    Options { fleet: "edge".parse().unwrap(), team: None }
}

fn fleet() -> Value {
    json!({ "kind": "Fleet", "name": "edge", "spec": {} })
}

fn with_fleet(import: &Import) -> Catalog {
    catalog(&[vec![fleet()], import.resources.clone()].concat())
}

#[test]
fn an_edge() {
    let import = import(&documents(include_str!("edge.yaml")), &options());
    insta::assert_snapshot!(told(&import));
    with_fleet(&import);
}

/// What a fleet gets, as the static configuration of a proxy.
fn as_static(catalog: &Catalog) -> Value {
    let fleet = catalog.fleet(&options().fleet).unwrap();
    let listeners = catalog.listeners_of(&fleet.name).map(|name| {
        let listener = catalog.listener(name).unwrap();
        let hosts = catalog.hosts_on(name).map(|host| {
            let claims = catalog.routes_claiming(name, host).map(|route| &**catalog.route(route).unwrap());
            let host =
                translate::route::virtual_host(name, host, claims, &translate::route::References::default(), fleet);
            message::shown(type_url::VIRTUAL_HOST, &host)
        });
        if let Some(carried) = translate::tcp::carried(listener, catalog).filter(|carried| !carried.is_empty()) {
            return message::shown(type_url::LISTENER, &translate::tcp::listener(listener, &carried));
        }
        let mut shown = message::shown(type_url::LISTENER, &translate::listener::listener(listener, fleet));
        let manager = shown.pointer_mut("/filter_chains/0/filters/0/typed_config").unwrap().as_object_mut().unwrap();
        manager.remove("rds");
        manager.insert("route_config".to_owned(), json!({ "virtual_hosts": hosts.collect::<Vec<_>>() }));
        shown
    });
    let clusters = catalog.services_of(&fleet.name).map(|name| {
        let service = catalog.service(name).unwrap();
        let mut shown = message::shown(type_url::CLUSTER, &translate::cluster::cluster(service));
        let fields = shown.as_object_mut().unwrap();
        for dynamic in ["type", "eds_cluster_config", "cluster_type"] {
            fields.remove(dynamic);
        }
        let endpoints = message::shown(type_url::ENDPOINT, &translate::endpoint::load_assignment(service));
        fields.insert("load_assignment".to_owned(), endpoints);
        fields.insert("type".to_owned(), if service.uses_dns() { "STRICT_DNS" } else { "STATIC" }.into());
        shown
    });
    let (listeners, clusters): (Vec<Value>, Vec<Value>) = (listeners.collect(), clusters.collect());
    json!({ "static_resources": { "listeners": listeners, "clusters": clusters } })
}

#[test]
fn what_chancery_tells_envoy_is_imported_as_what_it_was() {
    let resources = documents(include_str!("round_trip.yaml"));
    let before = catalog(&resources);
    let import = import(&[as_static(&before)], &options());
    assert_eq!(import.unmatched, []);
    let kinds: BTreeSet<&str> = import.resources.iter().map(|resource| resource["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), ["Listener", "Route", "Service"]);
    let [before, after] =
        [before, with_fleet(&import)].map(|catalog| snapshot::full(&catalog).remove(&options().fleet).unwrap());
    for (id, bytes) in &before.put {
        let again = after.put.get(id);
        assert!(
            again == Some(bytes),
            "{id:?} is another one:\n{:?}",
            again.map(|again| String::from_utf8_lossy(again))
        );
    }
    assert_eq!(before.put.len(), after.put.len());
}

/// What nothing depends on: how things are called, and how their statistics are.
const CALLED: [&str; 3] = ["name", "stat_prefix", "cluster_name"];

#[test]
fn whatever_is_another_value_is_read_or_listed() {
    let whole = as_static(&catalog(&documents(include_str!("round_trip.yaml"))));
    let plain = import(std::slice::from_ref(&whole), &options());
    let mut silent = Vec::new();
    // Each fourth: enough, in little time.
    for pointer in pointers(&whole, String::new()).into_iter().step_by(4) {
        let field = pointer.rsplit('/').next().unwrap_or_default();
        let mut changed = whole.clone();
        let value = changed.pointer_mut(&pointer).expect("a place");
        match value {
            _ if CALLED.contains(&field) => continue,
            // What is the default is not said.
            Value::Bool(true) => continue,
            Value::Bool(flag) => *flag = true,
            Value::Number(number) => {
                let more = number.as_f64().unwrap_or_default() + 1.0;
                *value = number.as_u64().map_or_else(|| more.into(), |number| (number + 1).into());
            }
            Value::String(text) => text.push('x'),
            Value::Array(_) | Value::Object(_) | Value::Null => continue,
        }
        let import = import(&[changed], &options());
        if import.resources == plain.resources && import.unmatched == plain.unmatched {
            silent.push(pointer);
        }
    }
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn what_is_carried_is_the_same_message() {
    let import = import(&documents(include_str!("edge.yaml")), &options());
    let catalog = with_fleet(&import);
    let source = documents(include_str!("edge.yaml")).remove(0);
    let staff = message::read(type_url::LISTENER, &source["static_resources"]["listeners"][1]).unwrap();
    let made = &snapshot::full(&catalog)[&options().fleet].put;
    let of_type = |id: &&snapshot::ResourceId| id.type_url() == type_url::LISTENER && id.name() == "staff";
    let bytes = &made[made.keys().find(of_type).unwrap()];
    let listener = chancery_proto::envoy::listener::Listener::decode(bytes.clone()).unwrap();
    assert_eq!(message::shown(type_url::LISTENER, &listener), staff);
}

#[test]
fn a_cluster_is_a_service_only_if_nothing_is_lost() {
    let endpoint =
        json!({ "endpoint": { "address": { "socket_address": { "address": "10.0.0.1", "port_value": 80 } } } });
    let cluster = |more: Value| {
        let mut cluster = json!({ "name": "a", "load_assignment": { "endpoints": [{ "lb_endpoints": [endpoint] }] } });
        cluster.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        cluster::service(&message::read(type_url::CLUSTER, &cluster).unwrap())
    };
    assert!(cluster(json!({})).is_ok());
    assert!(cluster(json!({ "outlier_detection": { "consecutive_5xx": 3 } })).is_ok());
    let start = json!({ "slow_start_window": "30s" });
    for (older, wanted) in [
        (json!({ "lb_policy": "RANDOM" }), json!("random")),
        (
            json!({ "lb_policy": "LEAST_REQUEST", "least_request_lb_config": { "slow_start_config": start } }),
            json!({ "policy": "least-request", "slowStart": { "window": "30s" } }),
        ),
        (
            json!({ "round_robin_lb_config": { "slow_start_config": start } }),
            json!({ "policy": "round-robin", "slowStart": { "window": "30s" } }),
        ),
        (json!({ "common_lb_config": { "healthy_panic_threshold": { "value": 0 } } }), json!({ "panicThreshold": 0 })),
    ] {
        assert_eq!(cluster(older.clone()).map(|spec| spec["loadBalancing"].clone()), Ok(wanted), "{older}");
    }
    let older = json!({ "lb_subset_config": {
        "fallback_policy": "ANY_ENDPOINT", "subset_selectors": [{ "keys": ["version"], "fallback_policy": "NO_FALLBACK" }],
    } });
    assert_eq!(cluster(older).map(|spec| spec["subsets"].clone()), Ok(json!([{ "by": ["version"] }])));
    for (more, lost) in [
        (json!({ "type": "LOGICAL_DNS" }), "load_assignment"),
        (json!({ "load_assignment": { "endpoints": [{ "load_balancing_weight": 1 }] } }), "load_assignment"),
        (json!({ "load_assignment": { "endpoints": [{ "locality": { "region": "eu" } }] } }), "load_assignment"),
        (
            json!({ "outlier_detection": { "consecutive_gateway_failure": 3 } }),
            "outlier_detection.consecutive_gateway_failure",
        ),
        (
            json!({ "health_checks": [{ "timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1,
            "tcp_health_check": { "send": { "text": "00" } } }] }),
            "health_checks[0].tcp_health_check.send",
        ),
        (json!({ "circuit_breakers": { "thresholds": [{}, { "priority": "HIGH" }] } }), "circuit_breakers"),
        (json!({ "lb_policy": "MAGLEV" }), "lb_policy"),
        (json!({ "connect_timeout": "0.0001s" }), "connect_timeout"),
    ] {
        assert_eq!(cluster(more.clone()), Err(vec![lost.to_owned()]), "{more}");
    }
}

#[test]
fn what_a_route_tells_filters_is_said_by_its_rule() {
    let mut source = documents(include_str!("edge.yaml")).remove(0);
    let told = json!({
        "envoy.filters.http.cors": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
            "allow_origin_string_match": [{ "exact": "https://a.example.com" }], "allow_methods": "GET,POST", "max_age": "3600",
        },
        "envoy.filters.http.local_ratelimit": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "theirs", "token_bucket": { "max_tokens": 20, "tokens_per_fill": 10, "fill_interval": "1s" },
        },
        "envoy.filters.http.buffer": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
            "buffer": { "max_request_bytes": 1024 },
        },
    });
    let routes =
        "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes";
    source.pointer_mut(routes).unwrap()[3]["typed_per_filter_config"] = told;
    let import = import(&[source], &options());
    with_fleet(&import);
    let route = import.resources.iter().find(|one| one["kind"] == "Route").expect("a route");
    let rule = &route["spec"]["rules"][3];
    let cors = json!({ "origins": ["https://a.example.com"], "methods": ["GET", "POST"], "maxAge": "3600s" });
    assert_eq!(rule["cors"], cors);
    assert_eq!(rule["localRateLimit"], json!({ "requests": 10, "per": "1s", "burst": 20 }));
    assert_eq!(rule["maxRequestBody"], "1024B");
}

/// A listener that carries connections, by these chains to the cluster `a`.
fn carrying(chains: &Value) -> Import {
    let endpoint =
        json!({ "endpoint": { "address": { "socket_address": { "address": "10.0.0.1", "port_value": 80 } } } });
    let assignment = json!({ "cluster_name": "a", "endpoints": [{ "lb_endpoints": [endpoint] }] });
    let cluster = json!({ "name": "a", "load_assignment": assignment });
    let address = json!({ "socket_address": { "address": "0.0.0.0", "port_value": 443 } });
    let listener = json!({ "name": "sni", "address": address, "filter_chains": chains });
    import(&[json!({ "static_resources": { "listeners": [listener], "clusters": [cluster] } })], &options())
}

fn chain(matched: &Value) -> Value {
    let proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "db", "cluster": "a", "max_connect_attempts": 3, "idle_timeout": "60s",
    });
    json!({ "filter_chain_match": matched, "filters": [{ "name": "tcp", "typed_config": proxy }] })
}

#[test]
fn chains_that_carry_connections_are_routes_by_name() {
    let names = json!({ "server_names": ["A.example.com", "*.example.org"] });
    let import = carrying(&json!([chain(&names), chain(&json!({ "transport_protocol": "tls" }))]));
    assert_eq!(import.unmatched, []);
    with_fleet(&import);
    let of =
        |kind: &str| import.resources.iter().filter(|one| one["kind"] == kind).collect::<Vec<_>>()[0]["spec"].clone();
    assert_eq!(of("Listener")["protocol"], "tls-passthrough");
    let tcp = json!({ "to": [{ "service": "a" }], "idleTimeout": "60s", "connectAttempts": 3 });
    assert_eq!((&of("Route")["tcp"], &of("Route")["hosts"]), (&tcp, &json!(["a.example.com", "*.example.org", "*"])));

    let plain = carrying(&json!([chain(&Value::Null)]));
    assert_eq!(plain.unmatched, []);
    assert_eq!(plain.resources.iter().find(|one| one["kind"] == "Listener").unwrap()["spec"]["protocol"], "tcp");

    // Whoever speaks something else than TLS would be carried too, or by another port.
    for (matched, lost) in [
        (
            json!([chain(&names), chain(&Value::Null)]),
            "static_resources.listeners[0].filter_chains[2].filter_chain_match",
        ),
        (
            json!([chain(&json!({ "server_names": ["a.b"], "destination_port": 1 }))]),
            "static_resources.listeners[0].filter_chains[0].filter_chain_match.destination_port",
        ),
    ] {
        let import = carrying(&matched);
        let paths: Vec<&str> = import.unmatched.iter().map(|found| found.path.as_str()).collect();
        assert_eq!(paths, [lost]);
        assert!(import.resources.iter().any(|one| one["kind"] == "EnvoyPatch"), "it is carried as it is");
    }
}

#[test]
fn anything_may_stand_anywhere() {
    survives(&documents(include_str!("edge.yaml")), |documents| import(documents, &options()));
}
