//! What proxies see of changes, by example.

use std::sync::Arc;

use super::*;
use crate::{
    model::{
        Document, Entry, Key, Resource,
        listener::Listener,
        route::{Action, HostPattern},
    },
    translate::testing::{
        entry, fleet, http_listener, ip, name, prefix, respond, route as route_of, rule, service, to,
    },
};

fn entries(resources: &[Resource]) -> Vec<(Key, Option<Entry>)> {
    let entry = |resource: &Resource| {
        let (kind, name) = (resource.kind(), resource.name().clone());
        let document = Document { kind, name, team: None, labels: BTreeMap::new(), spec: serde_json::Value::Null };
        (resource.key(), Some(entry(document, resource.clone())))
    };
    resources.iter().map(entry).collect()
}

fn listener(listener: Listener) -> Resource {
    Resource::Listener(Arc::new(listener))
}

fn shop(host: &str, action: Action) -> Resource {
    let mut route = route_of("shop", vec![rule(prefix("/"), action)]);
    route.hosts = vec![HostPattern::Exact(host.into())];
    Resource::Route(Arc::new(route))
}

/// A fleet `edge` with a listener `web`, and the service `shop` behind a route.
fn start(web: Listener) -> Catalog {
    let resources = [
        Resource::Fleet(Arc::new(fleet("edge"))),
        listener(web),
        Resource::Service(Arc::new(service("shop"))),
        shop("shop.example.com", Action::Forward(to("shop"))),
    ];
    Catalog::empty().apply(entries(&resources)).unwrap()
}

/// What becomes of each resource, and why listeners drain, when `changed` is put and `gone` is deleted.
fn seen(before: &Catalog, changed: &[Resource], gone: &[Resource]) -> (Vec<String>, BTreeMap<String, Drain>) {
    let mut changes = entries(changed);
    changes.extend(gone.iter().map(|resource| (resource.key(), None)));
    let keys: Vec<Key> = changes.iter().map(|(key, _)| key.clone()).collect();
    let after = before.apply(changes).unwrap();
    let fleets = snapshot::changes(before, &after, &keys);
    let Effect { resources, drains } =
        fleets.get(&name("edge")).map(|changes| effect(before, &after, &name("edge"), changes)).unwrap_or_default();
    let told = resources.iter().map(|((url, name), change)| format!("{change:?} {} {name}", type_url::short_name(url)));
    (told.collect(), drains)
}

#[test]
fn a_route_that_changes_is_a_host_that_changes_and_nothing_drains() {
    let before = start(http_listener("web", "edge"));
    let (resources, drains) = seen(&before, &[shop("shop.example.com", respond(200))], &[]);
    let expected = ["Removed cluster shop", "Removed endpoint shop", "Changed virtualHost web/shop.example.com"];
    assert_eq!((resources, drains), (expected.map(str::to_owned).to_vec(), BTreeMap::new()));
    let moved = seen(&before, &[shop("new.example.com", Action::Forward(to("shop")))], &[]);
    let expected = ["Added virtualHost web/new.example.com", "Removed virtualHost web/shop.example.com"];
    assert_eq!(moved, (expected.map(str::to_owned).to_vec(), BTreeMap::new()));
    let mut larger = service("shop");
    larger.endpoints.push(ip("10.0.0.9", 1));
    assert_eq!(seen(&before, &[Resource::Service(Arc::new(larger))], &[]).0, ["Changed endpoint shop"]);
    assert_eq!(seen(&before, &[shop("shop.example.com", Action::Forward(to("shop")))], &[]).0, [""; 0]);
}

#[test]
fn routes_that_travel_whole_are_one_resource() {
    let web = Listener { route_delivery: RouteDelivery::Whole, ..http_listener("web", "edge") };
    let before = start(web.clone());
    let (resources, drains) = seen(&before, &[shop("new.example.com", Action::Forward(to("shop")))], &[]);
    assert_eq!((resources, drains), (vec!["Changed route chancery.whole.web".to_owned()], BTreeMap::new()));
    let all = [listener(web), shop("shop.example.com", respond(200))];
    let (resources, _) = seen(&before, &[], &all);
    assert!(resources.contains(&"Removed route chancery.whole.web".to_owned()), "{resources:?}");
    assert!(!resources.iter().any(|told| told.contains("virtualHost")), "{resources:?}");
}

#[test]
fn a_listener_drains_as_far_as_it_is_another_one() {
    let web = http_listener("web", "edge");
    let before = start(web.clone());
    let drained = |web: Listener| seen(&before, &[listener(web)], &[]).1.remove("web");
    assert_eq!(drained(Listener { port: 10001, ..web.clone() }), Some(Drain::Moved));
    // Its routes are called otherwise: that stands in its one filter chain.
    let whole = Listener { route_delivery: RouteDelivery::Whole, ..web.clone() };
    assert_eq!(drained(whole), Some(Drain::FilterChains(vec!["web".to_owned()])));
    assert_eq!(drained(web.clone()), None);
    let gone = [listener(web), shop("shop.example.com", respond(200))];
    assert_eq!(seen(&before, &[], &gone).1.remove("web"), Some(Drain::Removed));
    let trusting = crate::model::fleet::Fleet { trusted_hops: 1, ..fleet("edge") };
    let (resources, drains) = seen(&before, &[Resource::Fleet(Arc::new(trusting))], &[]);
    assert_eq!(resources, ["Changed listener web"]);
    assert_eq!(drains["web"], Drain::FilterChains(vec!["web".to_owned()]));
    let new = Listener { port: 10002, ..http_listener("new", "edge") };
    assert_eq!(seen(&before, &[listener(new)], &[]).1, BTreeMap::new());
}

#[test]
fn only_chains_that_are_not_there_any_more_drain() {
    let chain = |name: &str, idle: i64| FilterChain {
        name: name.to_owned(),
        transport_socket_connect_timeout: Some(crate::translate::value::duration(std::time::Duration::from_secs(
            idle as u64,
        ))),
        ..FilterChain::default()
    };
    let of = |chains: Vec<FilterChain>| EnvoyListener { filter_chains: chains, ..EnvoyListener::default() };
    let (a, b, other_b, c) = (chain("a", 1), chain("b", 1), chain("b", 2), chain("", 3));
    let between =
        |old: &EnvoyListener, new: &EnvoyListener| drain(&old.encode_to_vec().into(), &new.encode_to_vec().into());
    let old = of(vec![a.clone(), b.clone()]);
    assert_eq!(between(&old, &of(vec![a.clone(), b.clone(), c.clone()])), None, "one more");
    assert_eq!(between(&old, &of(vec![b, a.clone()])), None, "in another order");
    let chains = |names: &[&str]| Some(Drain::FilterChains(names.iter().map(|&name| name.to_owned()).collect()));
    assert_eq!(between(&old, &of(vec![a.clone(), other_b])), chains(&["b"]));
    assert_eq!(between(&of(vec![a.clone(), c.clone()]), &of(vec![a])), chains(&["filter_chains[1]"]));
    let with_default = EnvoyListener { default_filter_chain: Some(c), ..old.clone() };
    assert_eq!(between(&with_default, &old), chains(&["(default)"]));
    assert_eq!(between(&old, &of(vec![])), Some(Drain::Replaced));
    assert_eq!(
        between(&old, &EnvoyListener { freebind: Some(Default::default()), ..old.clone() }),
        Some(Drain::Replaced)
    );
    let mut proxied = old.clone();
    #[expect(deprecated, reason = "Envoy still asks for it")]
    {
        proxied.filter_chains[0].use_proxy_proto = Some(crate::translate::value::flag(true));
    }
    assert_eq!(between(&old, &proxied), Some(Drain::Replaced));
    assert_eq!(drain(&Bytes::from_static(b"\xff"), &Bytes::new()), Some(Drain::Replaced));
}
