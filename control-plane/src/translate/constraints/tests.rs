use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use chancery_proto::{
    Message,
    envoy::{
        cluster::Cluster,
        endpoint::ClusterLoadAssignment,
        listener::{Listener, listener::ConnectionBalanceConfig},
        route::{Route, VirtualHost},
    },
};
use serde_json::{Value, json};

use super::*;
use crate::{
    model::{Document, Entry, Resource, parse, route::HostPattern},
    translate::{
        snapshot,
        testing::{entry, fleet, http_listener, name, respond, route, rule, service},
    },
};

/// A fleet with a listener, a service and a route, and these patches.
fn catalog(patches: &[(&str, Value)]) -> Catalog {
    let rules = vec![rule(crate::translate::testing::prefix("/"), respond(200))];
    let resources = [
        Resource::Fleet(Arc::new(fleet("edge"))),
        Resource::Listener(Arc::new(http_listener("web", "edge"))),
        Resource::Service(Arc::new(service("shop"))),
        Resource::Route(Arc::new(route("shop", rules))),
    ];
    let document =
        |kind, name: &Name, spec| Document { kind, name: name.clone(), team: None, labels: BTreeMap::new(), spec };
    let mut entries: Vec<Entry> = resources
        .into_iter()
        .map(|resource| entry(document(resource.kind(), resource.name(), Value::Null), resource))
        .collect();
    for (patch, spec) in patches {
        let mut spec = spec.clone();
        spec["fleet"] = "edge".into();
        let document = document(Kind::EnvoyPatch, &name(patch), spec);
        let mut problems = Problems::default();
        let resource = parse(&document, &mut problems).unwrap_or_else(|| panic!("{:?}", problems.into_vec()));
        entries.push(entry(document, resource));
    }
    Catalog::load(entries).unwrap()
}

fn said(catalog: &Catalog, changes: &BTreeMap<Name, FleetChanges>) -> Vec<String> {
    refused(catalog, changes).iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_translated_is_accepted() {
    let catalog = catalog(&[]);
    assert_eq!(said(&catalog, &snapshot::full(&catalog)), [""; 0]);
}

#[test]
fn what_envoy_would_refuse_is_told_of_what_it_was_made_from() {
    let encoded = |message: &dyn Fn() -> Vec<u8>| Bytes::from(message());
    let unnamed = Route { name: "shop/7".into(), ..Route::default() };
    let host = VirtualHost {
        name: "web/*".into(),
        domains: vec!["*".into()],
        routes: vec![unnamed],
        ..VirtualHost::default()
    };
    let put: BTreeMap<ResourceId, Bytes> = [
        (ResourceId::RateLimiter, encoded(&|| Cluster::default().encode_to_vec())),
        (
            ResourceId::Cluster(name("shop")),
            encoded(&|| Cluster { alt_stat_name: "other".into(), ..Cluster::default() }.encode_to_vec()),
        ),
        (ResourceId::Endpoints(name("shop")), encoded(&|| ClusterLoadAssignment::default().encode_to_vec())),
        (
            ResourceId::Listener(name("web")),
            encoded(&|| {
                Listener {
                    name: "web".into(),
                    connection_balance_config: Some(ConnectionBalanceConfig::default()),
                    ..Listener::default()
                }
                .encode_to_vec()
            }),
        ),
        (ResourceId::VirtualHost(name("web"), HostPattern::Any), encoded(&|| host.encode_to_vec())),
    ]
    .into();
    // Another fleet that is sent the same adds nothing.
    let changes = || FleetChanges { put: put.clone(), ..FleetChanges::default() };
    let found = said(&catalog(&[]), &[(name("edge"), changes()), (name("lab"), changes())].into());
    let length = "value length must be at least 1 characters";
    assert_eq!(
        found,
        [
            format!("Fleet/edge: spec.rateLimiter: makes a cluster chancery.rate-limiter that Envoy would refuse: name: {length}"),
            "Listener/web: spec: makes a listener web that Envoy would refuse: connection_balance_config.balance_type: is required".to_owned(),
            "Route/shop: spec.rules[7]: makes a virtualHost web/* that Envoy would refuse: routes[0].action: is required".to_owned(),
            "Route/shop: spec.rules[7]: makes a virtualHost web/* that Envoy would refuse: routes[0].match: value is required".to_owned(),
            format!("Service/shop: spec: makes a cluster shop that Envoy would refuse: name: {length}"),
            format!("Service/shop: spec.endpoints: makes a endpoint shop that Envoy would refuse: cluster_name: {length}"),
        ]
    );
}

#[test]
fn what_a_patch_breaks_is_told_of_the_patch() {
    let into = |kind: &str, name: &str, path: &str, patch: Value| json!({ "target": { "kind": kind, "name": name }, "path": path, "merge": patch });
    let manager = "filter_chains[0].filters[0].typed_config";
    let catalog = catalog(&[
        ("a", into("Listener", "web", manager, json!({ "stat_prefix": "" }))),
        ("b", into("Listener", "web", "", json!({ "per_connection_buffer_limit_bytes": 1 }))),
        ("c", into("VirtualHost", "web/shop.example.com", "routes[3]", json!({ "name": "x" }))),
        ("d", into("Listener", "web", "", json!({ "no_such_field": 1 }))),
    ]);
    assert_eq!(
        said(&catalog, &snapshot::full(&catalog)),
        [
            format!("EnvoyPatch/a: spec.merge.stat_prefix: makes a listener web that Envoy would refuse: {manager}.stat_prefix: value length must be at least 1 characters"),
            "EnvoyPatch/c: spec.merge: does not fit: routes[3]: does not exist: the list has 1 entries".to_owned(),
            "EnvoyPatch/d: spec.merge.no_such_field: does not fit: no_such_field: is not a field of envoy.config.listener.v3.Listener".to_owned(),
        ]
    );
}

#[test]
fn a_patch_cannot_rename_its_target() {
    let rename = |kind: &str, name: &str, to: Value| json!({ "target": { "kind": kind, "name": name }, "merge": to });
    let catalog = catalog(&[
        ("a", rename("Listener", "web", json!({ "name": "other" }))),
        ("b", rename("VirtualHost", "web/shop.example.com", json!({ "name": "web/*" }))),
    ]);
    assert_eq!(
        said(&catalog, &snapshot::full(&catalog)),
        [
            "EnvoyPatch/a: spec.merge.name: makes a listener web that Envoy would refuse: name: must be \"web\", as the resource is called",
            "EnvoyPatch/b: spec.merge.name: makes a virtualHost web/shop.example.com that Envoy would refuse: name: must be \"web/shop.example.com\", as the resource is called",
        ]
    );
}
