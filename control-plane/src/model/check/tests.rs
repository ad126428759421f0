use std::sync::Arc;

use super::*;
use crate::model::{
    Entry, Problem,
    catalog::tests::{
        entry, fleet, fleet_with_limiter, listener, patch, quota, rate_limit, route, service, service_behind,
    },
};

fn key(kind: Kind, name: &str) -> Key {
    Key::new(kind, name.parse().unwrap())
}

fn put(resource: Resource) -> (Key, Option<Entry>) {
    (resource.key(), Some(entry(resource)))
}

fn delete(kind: Kind, name: &str) -> (Key, Option<Entry>) {
    (key(kind, name), None)
}

fn catalog() -> Catalog {
    Catalog::load(
        [
            fleet("edge"),
            fleet("lab"),
            listener("web", "edge", "0.0.0.0", 80),
            service("cart"),
            route("shop", &["edge/web"], &["*", "a.example.com"], &[("/", "cart"), ("/status", "")]),
        ]
        .map(entry),
    )
    .unwrap()
}

fn refused(changes: Vec<(Key, Option<Entry>)>) -> Vec<String> {
    catalog().apply(changes).expect_err("accepted").iter().map(Problem::to_string).collect()
}

#[test]
fn what_is_used_cannot_be_deleted() {
    assert_eq!(refused(vec![delete(Kind::Fleet, "edge")]), ["Fleet/edge: is deleted, but used by Listener/web"]);
    assert_eq!(refused(vec![delete(Kind::Listener, "web")]), ["Listener/web: is deleted, but used by Route/shop"]);
    assert_eq!(refused(vec![delete(Kind::Service, "cart")]), ["Service/cart: is deleted, but used by Route/shop"]);
    let all = [(Kind::Fleet, "edge"), (Kind::Listener, "web"), (Kind::Service, "cart"), (Kind::Route, "shop")];
    assert!(catalog().apply(all.map(|(kind, name)| delete(kind, name)).into()).is_ok());
}

#[test]
fn a_fleet_whose_proxies_are_endpoints_is_there_and_stays() {
    let nowhere = refused(vec![put(service_behind("cart", "shop"))]);
    assert_eq!(nowhere, ["Service/cart: spec.tls.mesh.fleet: Fleet/shop does not exist"]);
    let behind = catalog().apply(vec![put(service_behind("cart", "lab"))]).unwrap();
    let problems = behind.apply(vec![delete(Kind::Fleet, "lab")]).unwrap_err();
    assert_eq!(problems[0].to_string(), "Fleet/lab: is deleted, but used by Service/cart");
    assert!(behind.apply(vec![put(service("cart")), delete(Kind::Fleet, "lab")]).is_ok());
}

#[test]
fn who_uses_it_is_named_up_to_a_number() {
    let routes = (0..8).map(|i| put(route(&format!("r{i}"), &["edge/web"], &[&format!("h{i}")], &[("/", "cart")])));
    let full = catalog().apply(routes.collect()).unwrap();
    let problems = full.apply(vec![delete(Kind::Service, "cart")]).unwrap_err();
    assert_eq!(
        problems[0].reason,
        "is deleted, but used by Route/r0, Route/r1, Route/r2, Route/r3, Route/r4 and 4 more"
    );
}

#[test]
fn references_lead_somewhere() {
    let changes = vec![
        put(listener("tls", "egde", "0.0.0.0", 443)),
        put(route("new", &["edge/wbe", "lab/web"], &["b.example.com"], &[("/", "crat"), ("/x", "cart>cpoy")])),
    ];
    assert_eq!(
        refused(changes),
        [
            "Listener/tls: spec.fleet: Fleet/egde does not exist",
            "Route/new: spec.listeners[0]: Listener/wbe does not exist",
            "Route/new: spec.listeners[1]: Listener/web belongs to fleet edge",
            "Route/new: spec.rules[0].to[0].service: Service/crat does not exist",
            "Route/new: spec.rules[1].mirror.service: Service/cpoy does not exist",
        ]
    );
}

#[test]
fn who_is_part_of_the_change_answers_for_its_own_references() {
    let changes = vec![delete(Kind::Service, "cart"), put(route("shop", &["edge/web"], &["*"], &[("/x", "cart")]))];
    assert_eq!(refused(changes), ["Route/shop: spec.rules[0].to[0].service: Service/cart does not exist"]);
}

#[test]
fn limits_are_there_and_so_is_a_limiter() {
    let limited = |limit: &str| put(route("shop", &["edge/web"], &["*"], &[("/", limit)]));
    assert_eq!(
        refused(vec![limited("cart+per-clint"), put(fleet_with_limiter("edge"))]),
        ["Route/shop: spec.rules[0].rateLimits[0]: RateLimit/per-clint does not exist"]
    );
    assert_eq!(
        refused(vec![limited("cart+per-client"), put(rate_limit("per-client"))]),
        ["Route/shop: spec.rules[0].rateLimits: needs a rate limiter, but Fleet/edge names none in spec.rateLimiter"]
    );
    let all = vec![limited("cart+per-client"), put(rate_limit("per-client")), put(fleet_with_limiter("edge"))];
    let limited = catalog().apply(all).unwrap();
    let refused = |change| limited.apply(vec![change]).unwrap_err().iter().map(Problem::to_string).collect::<Vec<_>>();
    assert_eq!(
        refused(delete(Kind::RateLimit, "per-client")),
        ["RateLimit/per-client: is deleted, but used by Route/shop"]
    );
    assert_eq!(
        refused(put(fleet("edge"))),
        ["Fleet/edge: spec.rateLimiter: is missing, but limits are used by Route/shop"]
    );
    assert!(limited.apply(vec![put(fleet("lab"))]).is_ok());
}

#[test]
fn a_rule_has_one_quota() {
    let limited = || put(route("shop", &["edge/web"], &["*"], &[("/", "cart+a+b+c")]));
    let limits = [put(fleet_with_limiter("edge")), put(rate_limit("b"))];
    let both = limits.clone().into_iter().chain([put(quota("a")), put(quota("c")), limited()]).collect();
    assert_eq!(
        refused(both),
        ["Route/shop: spec.rules[0].rateLimits[2]: is a quota, as RateLimit/a is; a proxy counts a request in one"]
    );
    let one = limits.into_iter().chain([put(quota("a")), put(rate_limit("c")), limited()]).collect();
    let problems = catalog().apply(one).unwrap().apply(vec![put(quota("c"))]).unwrap_err();
    assert_eq!(
        problems.iter().map(Problem::to_string).collect::<Vec<_>>(),
        [
            "RateLimit/c: spec.enforcement: is quota, but rules of Route/shop have one already; a proxy counts a request in one"
        ]
    );
}

#[test]
fn a_listener_moves_with_its_routes() {
    let moved = || put(listener("web", "lab", "0.0.0.0", 80));
    assert_eq!(
        refused(vec![moved()]),
        ["Listener/web: spec.fleet: is not the fleet by which it is used by Route/shop"]
    );
    let both = vec![moved(), put(route("shop", &["lab/web"], &["*"], &[("/", "cart")]))];
    let next = catalog().apply(both).unwrap();
    assert!(next.fleet_uses(&"lab".parse().unwrap(), &"cart".parse().unwrap()));
    assert!(!next.fleet_uses(&"edge".parse().unwrap(), &"cart".parse().unwrap()));
}

#[test]
fn two_listeners_cannot_bind_the_same() {
    assert_eq!(
        refused(vec![put(listener("two", "edge", "10.0.0.1", 80))]),
        ["Listener/two: spec.port: 10.0.0.1 port 80 of fleet edge is bound by Listener/web"]
    );
    for (fleet, address, port) in [("edge", "10.0.0.1", 81), ("lab", "0.0.0.0", 80), ("edge", "::", 80)] {
        assert!(catalog().apply(vec![put(listener("two", fleet, address, port))]).is_ok(), "{address}:{port}");
    }
}

#[test]
fn two_routes_cannot_claim_the_same_requests() {
    let other = |hosts: &[&str]| put(route("other", &["edge/web"], hosts, &[("/x", "cart"), ("/status", "cart")]));
    assert_eq!(
        refused(vec![other(&["*"])]),
        ["Route/other: spec.rules[1].match: is the same as that of spec.rules[1] of Route/shop, \
          which also claims * on edge/web"]
    );
    assert_eq!(
        refused(vec![other(&["a.example.com", "*"])]),
        ["Route/other: spec.rules[1].match: is the same as that of spec.rules[1] of Route/shop, \
          which also claims a.example.com on edge/web and 1 more"]
    );
    assert!(catalog().apply(vec![other(&["b.example.com"])]).is_ok());
    // Two that come together are both told.
    let twins = ["one", "two"].map(|name| put(route(name, &["edge/web"], &["c.example.com"], &[("/", "cart")])));
    assert_eq!(refused(twins.into()).len(), 2);
}

#[test]
fn a_resource_is_changed_once() {
    assert_eq!(refused(vec![put(fleet("new")), put(fleet("new"))]), ["Fleet/new: is changed more than once"]);
}

const ADDS_CART: &str =
    r#"{ "resource": { "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "cart" } }"#;
const ADDS_RAW: &str =
    r#"{ "resource": { "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "raw" } }"#;
const ADDS_LISTENER: &str =
    r#"{ "resource": { "@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "raw" } }"#;
const ADDS_HOST: &str = r#"{ "resource": { "@type": "type.googleapis.com/envoy.config.route.v3.VirtualHost",
    "name": "web/b.example.com", "domains": ["b.example.com"] } }"#;
const ADDS_CLAIMED: &str = r#"{ "resource": { "@type": "type.googleapis.com/envoy.config.route.v3.VirtualHost",
    "name": "web/a.example.com", "domains": ["a.example.com"] } }"#;

fn merges(kind: &str, name: &str) -> String {
    format!(r#"{{ "target": {{ "kind": "{kind}", "name": "{name}" }}, "merge": {{}} }}"#)
}

#[test]
fn what_patches_refer_to_is_there_and_in_their_fleet() {
    assert_eq!(
        refused(vec![
            put(patch("a", "egde", ADDS_RAW)),
            put(patch("b", "edge", &merges("Cluster", "crat"))),
            put(patch("c", "lab", &merges("Listener", "web"))),
            put(patch("d", "edge", &merges("VirtualHost", "wbe/*"))),
            put(patch("e", "lab", ADDS_HOST)),
        ]),
        [
            "EnvoyPatch/a: spec.fleet: Fleet/egde does not exist",
            "EnvoyPatch/b: spec.target.name: Service/crat does not exist",
            "EnvoyPatch/c: spec.target.name: Listener/web belongs to fleet edge",
            "EnvoyPatch/d: spec.target.name: Listener/wbe does not exist",
            "EnvoyPatch/e: spec.resource.name: Listener/web belongs to fleet edge",
        ]
    );
    let fine =
        [merges("Cluster", "chancery.rate-limiter"), merges("Endpoints", "cart"), merges("VirtualHost", "web/x")];
    let fine = fine.iter().zip(["a", "b", "c"]).map(|(spec, name)| put(patch(name, "edge", spec)));
    assert!(catalog().apply(fine.collect()).is_ok());
}

#[test]
fn what_patches_refer_to_cannot_be_deleted_or_moved() {
    let patches = [
        ("a", "lab", ADDS_RAW.to_owned()),
        ("b", "edge", merges("Cluster", "spare")),
        ("c", "edge", merges("Listener", "spare")),
    ];
    let mut changes: Vec<_> = patches.iter().map(|(name, fleet, spec)| put(patch(name, fleet, spec))).collect();
    changes.extend([put(service("spare")), put(listener("spare", "edge", "0.0.0.0", 81))]);
    let full = catalog().apply(changes).unwrap();
    let refused = |change| full.apply(vec![change]).unwrap_err()[0].to_string();
    assert_eq!(refused(delete(Kind::Fleet, "lab")), "Fleet/lab: is deleted, but used by EnvoyPatch/a");
    assert_eq!(refused(delete(Kind::Service, "spare")), "Service/spare: is deleted, but used by EnvoyPatch/b");
    assert_eq!(refused(delete(Kind::Listener, "spare")), "Listener/spare: is deleted, but used by EnvoyPatch/c");
    assert_eq!(
        refused(put(listener("spare", "lab", "0.0.0.0", 81))),
        "Listener/spare: spec.fleet: is not the fleet by which it is used by EnvoyPatch/c"
    );
    assert!(full.apply(vec![delete(Kind::Service, "spare"), delete(Kind::EnvoyPatch, "b")]).is_ok());
}

#[test]
fn a_patched_listener_speaks_no_http3_around_the_patch() {
    let speaking = || {
        let Resource::Listener(mut web) = listener("spare", "edge", "0.0.0.0", 81) else { panic!("a listener") };
        Arc::make_mut(&mut web).http3 = true;
        Resource::Listener(web)
    };
    let patched = || put(patch("c", "edge", &merges("Listener", "spare")));
    let why = "which is a listener of its own to Envoy: what came over it would go around the patch";
    let with_http3 = catalog().apply(vec![put(speaking())]).unwrap();
    let refused = |catalog: &Catalog, change| catalog.apply(vec![change]).unwrap_err()[0].to_string();
    assert_eq!(
        refused(&with_http3, patched()),
        format!("EnvoyPatch/c: spec.target.name: Listener/spare has http3, {why}")
    );
    let with_patch = catalog().apply(vec![put(listener("spare", "edge", "0.0.0.0", 81)), patched()]).unwrap();
    assert_eq!(
        refused(&with_patch, put(speaking())),
        format!("Listener/spare: spec.http3: is patched by EnvoyPatch/c, {why}")
    );
}

#[test]
fn nothing_is_made_twice() {
    assert_eq!(
        refused(vec![
            put(patch("a", "edge", ADDS_CART)),
            put(patch("b", "edge", ADDS_RAW)),
            put(patch("c", "edge", ADDS_RAW)),
            put(patch("d", "edge", ADDS_CLAIMED)),
        ]),
        [
            "EnvoyPatch/a: spec.resource.name: cluster cart is made by Service/cart",
            "EnvoyPatch/b: spec.resource.name: cluster raw is made by EnvoyPatch/c",
            "EnvoyPatch/c: spec.resource.name: cluster raw is made by EnvoyPatch/b",
            "EnvoyPatch/d: spec.resource.name: virtual host web/a.example.com is made by Route/shop",
        ]
    );
    let fine =
        [("a", "edge", ADDS_RAW), ("b", "lab", ADDS_RAW), ("c", "edge", ADDS_LISTENER), ("d", "edge", ADDS_HOST)];
    let fine = fine.map(|(name, fleet, spec)| put(patch(name, fleet, spec)));
    let full = catalog().apply(fine.into()).unwrap();
    let refused = |change| full.apply(vec![change]).unwrap_err().iter().map(Problem::to_string).collect::<Vec<_>>();
    assert_eq!(refused(put(service("raw"))), ["Service/raw: name: cluster raw is added by EnvoyPatch/a, EnvoyPatch/b"]);
    assert_eq!(
        refused(put(listener("raw", "edge", "0.0.0.0", 82))),
        ["Listener/raw: name: listener raw is added by EnvoyPatch/c"]
    );
    assert_eq!(
        refused(put(route("more", &["edge/web"], &["c.example.com", "b.example.com"], &[("/", "cart")]))),
        ["Route/more: spec.hosts[1]: virtual host web/b.example.com is added by EnvoyPatch/d"]
    );
}
