//! Virtual hosts, which an Envoy takes in only below a RouteConfiguration that it has.

use super::*;

/// A route configuration `web` with two hosts, and one `api` with one.
fn cache() -> Cache {
    let cache = Cache::new();
    let mut update = Update::default();
    for name in ["web", "api"] {
        update.upsert(type_url::ROUTE, Resource::new(type_url::ROUTE, name, b"1"));
    }
    for name in ["web/a", "web/b", "api/a"] {
        update.upsert(type_url::VIRTUAL_HOST, Resource::new(type_url::VIRTUAL_HOST, name, b"1"));
    }
    cache.apply(1, update);
    cache
}

fn request(session: &mut Session<Delta>, cache: &Cache, type_url: &str, request: DeltaDiscoveryRequest) {
    session.on_request(&type_url.into(), request, &cache.snapshot()).unwrap();
}

/// Asks for the virtual hosts as Envoy does: with an empty list.
fn ask_for_hosts(session: &mut Session<Delta>, cache: &Cache) {
    request(session, cache, type_url::VIRTUAL_HOST, DeltaDiscoveryRequest::default());
}

fn ask_for_routes(session: &mut Session<Delta>, cache: &Cache, name: &str) {
    let names = DeltaDiscoveryRequest { resource_names_subscribe: vec![name.into()], ..Default::default() };
    request(session, cache, type_url::ROUTE, names);
}

/// What a turn sends: type and names.
fn sends(session: &mut Session<Delta>, cache: &Cache) -> Vec<String> {
    let turn = session.turn(&cache.snapshot(), Instant::now()).unwrap();
    let line = |(type_url, sent, _): &(TypeUrl, Sent, _)| {
        format!("{} {}", type_url::short_name(type_url), sent.names.join(" "))
    };
    let lines = turn.replies.iter().map(line).collect();
    for reply in &turn.replies {
        answer(session, cache, reply);
    }
    lines
}

#[test]
fn hosts_wait_for_their_own_configuration_and_follow_it() {
    let cache = cache();
    let mut session = session::<Delta>(Instant::now());
    ask_for_hosts(&mut session, &cache);
    assert_eq!(
        sends(&mut session, &cache),
        ["virtualHost "],
        "that there are none yet is said, not that they are gone"
    );
    ask_for_routes(&mut session, &cache, "web");
    assert_eq!(sends(&mut session, &cache), ["route web", "virtualHost web/a web/b"]);
    ask_for_routes(&mut session, &cache, "api");
    assert_eq!(sends(&mut session, &cache), ["route api", "virtualHost api/a"]);
}

#[test]
fn hosts_that_wait_do_not_keep_a_stream_from_being_settled() {
    let cache = cache();
    let mut session = session::<Delta>(Instant::now());
    ask_for_hosts(&mut session, &cache);
    ask_for_routes(&mut session, &cache, "web");
    while !sends(&mut session, &cache).is_empty() {}
    assert_eq!(session.turn(&cache.snapshot(), Instant::now()).unwrap().settled, Some(1));
}

#[test]
fn a_change_of_one_host_sends_that_host_alone() {
    let cache = cache();
    let mut session = session::<Delta>(Instant::now());
    ask_for_routes(&mut session, &cache, "web");
    ask_for_hosts(&mut session, &cache);
    while !sends(&mut session, &cache).is_empty() {}
    let mut update = Update::default();
    update.upsert(type_url::VIRTUAL_HOST, Resource::new(type_url::VIRTUAL_HOST, "web/b", b"2"));
    cache.apply(2, update);
    assert_eq!(sends(&mut session, &cache), ["virtualHost web/b"]);
}

#[test]
fn a_configuration_that_is_asked_for_again_brings_all_its_hosts_again() {
    let cache = cache();
    let mut session = session::<Delta>(Instant::now());
    ask_for_routes(&mut session, &cache, "web");
    ask_for_hosts(&mut session, &cache);
    while !sends(&mut session, &cache).is_empty() {}
    ask_for_routes(&mut session, &cache, "web");
    assert_eq!(sends(&mut session, &cache), ["route web", "virtualHost web/a web/b"]);
}

#[test]
fn a_client_that_reconnects_is_sent_only_the_hosts_that_changed() {
    let cache = cache();
    let versions = |type_url: &str, names: &[&str]| {
        let tables = cache.snapshot();
        let version = |name: &&str| tables.table(type_url).resource(name).unwrap().version().to_string();
        names.iter().map(|name| ((*name).to_owned(), version(name))).collect::<std::collections::HashMap<_, _>>()
    };
    let routes = DeltaDiscoveryRequest {
        resource_names_subscribe: vec!["web".into()],
        initial_resource_versions: versions(type_url::ROUTE, &["web"]),
        ..Default::default()
    };
    let hosts = DeltaDiscoveryRequest {
        initial_resource_versions: versions(type_url::VIRTUAL_HOST, &["web/a", "web/b"]),
        ..Default::default()
    };
    let mut update = Update::default();
    update.upsert(type_url::VIRTUAL_HOST, Resource::new(type_url::VIRTUAL_HOST, "web/b", b"2"));
    update.remove(type_url::VIRTUAL_HOST, "web/a");
    cache.apply(2, update);
    let mut session = session::<Delta>(Instant::now());
    request(&mut session, &cache, type_url::VIRTUAL_HOST, hosts);
    request(&mut session, &cache, type_url::ROUTE, routes);
    for type_url in [type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER] {
        ask(&mut session, &cache, type_url).unwrap();
    }
    let mut sent = Vec::new();
    while let lines @ [_, ..] = &*sends(&mut session, &cache) {
        sent.extend(lines.iter().filter(|line| line.starts_with("route") || line.starts_with("virtualHost")).cloned());
    }
    assert_eq!(sent, ["virtualHost web/a web/b"], "one removed, one changed, the configuration kept");
}
