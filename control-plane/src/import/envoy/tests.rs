//! Static Envoys, imported and translated again.

use chancery_proto::Message as _;

use super::*;
use crate::{
    import::tests::{catalog, documents, survives, told},
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
    for (more, lost) in [
        (json!({ "type": "LOGICAL_DNS" }), "load_assignment"),
        (json!({ "load_assignment": { "endpoints": [{ "priority": 1 }] } }), "load_assignment"),
        (
            json!({ "outlier_detection": { "consecutive_gateway_failure": 3 } }),
            "outlier_detection.consecutive_gateway_failure",
        ),
        (
            json!({ "health_checks": [{ "timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1,
            "tcp_health_check": {} }] }),
            "",
        ),
        (json!({ "circuit_breakers": { "thresholds": [{}, { "priority": "HIGH" }] } }), "circuit_breakers"),
        (json!({ "lb_policy": "MAGLEV" }), "lb_policy"),
        (json!({ "connect_timeout": "0.0001s" }), "connect_timeout"),
    ] {
        assert_eq!(cluster(more.clone()), Err(vec![lost.to_owned()]), "{more}");
    }
}

#[test]
fn anything_may_stand_anywhere() {
    survives(&documents(include_str!("edge.yaml")), |documents| import(documents, &options()));
}
