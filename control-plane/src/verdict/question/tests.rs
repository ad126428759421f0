use chancery_proto::{Message as _, envoy::bootstrap::Bootstrap};
use serde_json::{Value, json};

use super::*;
use crate::{
    model::{Document, Entry, Problems, parse},
    translate::{
        snapshot::changes,
        testing::{self, name as named},
    },
};

fn entry(kind: Kind, name: &str, spec: Value) -> Entry {
    let document = Document { kind, name: named(name), team: None, labels: BTreeMap::new(), spec };
    let mut problems = Problems::default();
    let resource = parse(&document, &mut problems).unwrap_or_else(|| panic!("{:?}", problems.into_vec()));
    testing::entry(document, resource)
}

/// Two fleets that use one service, and on the first a listener with these hosts, each by a route of its name.
fn basis(hosts: &[&str]) -> Vec<Entry> {
    let listener =
        |fleet: &str, port: u16| json!({ "fleet": fleet, "address": "0.0.0.0", "port": port, "protocol": "http" });
    let mut entries = vec![
        entry(Kind::Fleet, "edge", json!({})),
        entry(Kind::Fleet, "inner", json!({})),
        entry(Kind::Listener, "web", listener("edge", 80)),
        entry(Kind::Listener, "side", listener("inner", 81)),
        service("10.0.0.1"),
        route("side", "inner/side", "side"),
    ];
    entries.extend(hosts.iter().map(|host| route(host, "edge/web", host)));
    entries
}

fn service(address: &str) -> Entry {
    entry(Kind::Service, "shop", json!({ "endpoints": [{ "address": address, "port": 80 }] }))
}

fn route(name: &str, listener: &str, host: &str) -> Entry {
    let rule = json!({ "match": { "path": { "prefix": "/" } }, "to": [{ "service": "shop" }] });
    let hosts = [format!("{host}.example.com")];
    entry(Kind::Route, name, json!({ "listeners": [listener], "hosts": hosts, "rules": [rule] }))
}

fn patch(name: &str, mut spec: Value) -> Entry {
    spec["fleet"] = "edge".into();
    entry(Kind::EnvoyPatch, name, spec)
}

fn merged(name: &str, host: &str) -> Entry {
    let target = json!({ "kind": "VirtualHost", "name": format!("web/{host}.example.com") });
    patch(name, json!({ "target": target, "merge": { "domains": ["other.example.com"] } }))
}

/// What is asked when `edits` are made to `basis`, per fleet.
fn asked(basis: Vec<Entry>, edits: Vec<Entry>) -> BTreeMap<String, Question> {
    let before = Catalog::load(basis).unwrap();
    let keys: Vec<Key> = edits.iter().map(|edit| edit.document.key()).collect();
    let edits = edits.into_iter().map(|edit| (edit.document.key(), Some(edit))).collect();
    let after = before.apply(edits).unwrap();
    let fleets = changes(&before, &after, &keys).into_iter();
    fleets.map(|(name, changes)| (name.to_string(), Question::about(&after, &name, &changes.put, &keys))).collect()
}

fn bootstrap(question: &Question) -> Bootstrap {
    Bootstrap::decode(&*question.whole()).unwrap()
}

/// Type, name, resource and path of each part.
fn parts(question: &Question) -> Vec<String> {
    let of = |part: &Part| {
        format!("{} {} = {} {}", type_url::short_name(part.type_url), part.name, part.resource, part.path)
    };
    question.parts().iter().map(of).collect()
}

#[test]
fn only_what_changed_is_asked_about() {
    let again = entry(
        Kind::Route,
        "a",
        json!({ "listeners": ["edge/web"], "hosts": ["a.example.com"], "rules": [{ "respond": { "status": 204 } }] }),
    );
    let asked = asked(basis(&["a", "b"]), vec![again]);
    assert_eq!(asked.keys().collect::<Vec<_>>(), ["edge"]);
    assert_eq!(parts(&asked["edge"]), ["virtualHost web/a.example.com = Route/a spec"]);
    let shown = format!("{:?}", String::from_utf8_lossy(&asked["edge"].whole()));
    assert!(shown.contains("a.example.com") && !shown.contains("b.example.com"), "{shown}");
}

#[test]
fn others_of_a_listener_stand_beside_where_patches_change_hosts() {
    let asked = asked(basis(&["a", "b", "c"]), vec![merged("odd", "a")]);
    let question = &asked["edge"];
    assert_eq!(parts(question), ["virtualHost web/a.example.com = EnvoyPatch/odd spec.merge"]);
    let shown = format!("{:?}", String::from_utf8_lossy(&question.whole()));
    for host in ["other.example.com", "b.example.com", "c.example.com"] {
        assert!(shown.contains(host), "{shown}");
    }
}

#[test]
fn the_same_is_asked_of_every_fleet_in_the_same_bytes() {
    let slow = json!({ "endpoints": [{ "address": "10.0.0.1", "port": 80 }], "connectTimeout": "9s" });
    let asked = asked(basis(&["a"]), vec![entry(Kind::Service, "shop", slow)]);
    assert_eq!(parts(&asked["edge"]), ["cluster shop = Service/shop spec"]);
    assert_eq!(asked["edge"].whole(), asked["inner"].whole());
}

#[test]
fn endpoints_are_asked_about_inline_under_a_name_of_their_own() {
    let asked = asked(basis(&["a"]), vec![service("10.0.0.2")]);
    assert_eq!(parts(&asked["edge"]), ["endpoint shop = Service/shop spec.endpoints"]);
    let resources = bootstrap(&asked["edge"]).static_resources.unwrap();
    let cluster = resources.clusters.iter().find(|cluster| cluster.name == "chancery.endpoints.shop").unwrap();
    assert_eq!(cluster.load_assignment.as_ref().unwrap().cluster_name, "shop");
}

#[test]
fn who_made_a_resource_is_told_from_what_was_changed() {
    // A patch that is there already is not blamed for what a route does.
    let mut before = basis(&["a"]);
    before.push(merged("odd", "a"));
    let again = entry(
        Kind::Route,
        "a",
        json!({ "listeners": ["edge/web"], "hosts": ["a.example.com"], "rules": [{ "respond": { "status": 204 } }] }),
    );
    assert_eq!(parts(&asked(before, vec![again])["edge"]), ["virtualHost web/a.example.com = Route/a spec"]);
    // But it is where what changed cannot be.
    let secret = json!({
        "@type": type_url::SECRET,
        "name": "own",
        "tls_certificate": { "certificate_chain": { "inline_string": "a" }, "private_key": { "inline_string": "b" } },
    });
    let added = asked(basis(&["a"]), vec![patch("own", json!({ "resource": secret }))]);
    assert_eq!(parts(&added["edge"]), ["secret own = EnvoyPatch/own spec.resource"]);
    let resources = bootstrap(&added["edge"]).static_resources.unwrap();
    assert_eq!(resources.listeners[0].name, "chancery.secret.own", "who uses it");
}

#[test]
fn nothing_is_asked_about_what_goes_or_says_nothing_by_itself() {
    let listener = json!({ "fleet": "edge", "address": "0.0.0.0", "port": 90, "protocol": "http" });
    let added = asked(basis(&["a"]), vec![entry(Kind::Listener, "more", listener)]);
    assert_eq!(parts(&added["edge"]), ["listener more = Listener/more spec"]);

    let before = Catalog::load(basis(&["a", "b"])).unwrap();
    let key = Key::new(Kind::Route, named("a"));
    let after = before.apply(vec![(key.clone(), None)]).unwrap();
    for (fleet, changes) in changes(&before, &after, std::slice::from_ref(&key)) {
        assert!(Question::about(&after, &fleet, &changes.put, std::slice::from_ref(&key)).is_empty());
    }
}

#[test]
fn what_is_named_and_not_there_stands_in() {
    let proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "raw",
        "cluster": "of-the-proxies",
    });
    let listener = json!({
        "@type": type_url::LISTENER,
        "name": "raw",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 1 } },
        "filter_chains": [{ "filters": [{ "name": "tcp", "typed_config": proxy }] }],
    });
    let cluster = json!({ "@type": type_url::CLUSTER, "name": "of-the-proxies" });
    let listener = patch("listener", json!({ "resource": listener }));
    let names = |edits: Vec<Entry>| {
        let resources = bootstrap(&asked(basis(&["a"]), edits)["edge"]).static_resources.unwrap();
        resources.clusters.into_iter().map(|cluster| cluster.name).collect::<Vec<_>>()
    };
    assert_eq!(names(vec![listener.clone()]), ["chancery-xds", "of-the-proxies"]);
    let both = vec![listener, patch("cluster", json!({ "resource": cluster }))];
    assert_eq!(names(both), ["of-the-proxies", "chancery-xds"], "each once");
}
