//! Routes about connections are served where connections are carried, routes about requests where those are read; and of what names a
//! connection, each has one route.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Catalog, Key, Kind, Problems, list};
use crate::model::{
    listener::{Listener, ListenerProtocol},
    route::{HostPattern, Route},
};

pub(super) fn put_route(next: &Catalog, route: &Route, problems: &mut Problems) {
    for (index, place) in route.listeners.iter().enumerate() {
        let Some(listener) = next.listener(&place.listener) else { continue };
        if let Some(reason) = misplaced(listener, route) {
            problems.at("listeners").index(index).report(reason);
        } else if !listener.protocol.is_http() {
            claims(next, listener, route, &mut problems.at("hosts"));
        }
    }
}

/// Routes that are part of the change report it themselves.
pub(super) fn put_listener(next: &Catalog, changed: &BTreeSet<Key>, listener: &Listener, problems: &mut Problems) {
    let unfit = |route: &Route| {
        let hosts = || route.hosts.iter().any(|host| nameless(listener, host).is_some());
        misplaced(listener, route).is_some() || hosts()
    };
    let routes = next.routes_on(&listener.name).filter_map(|name| next.route(name)).filter(|route| unfit(route));
    let routes = routes.map(|route| Key::new(Kind::Route, route.name.clone()));
    let routes: Vec<Key> = routes.filter(|key| !changed.contains(key)).collect();
    if !routes.is_empty() {
        problems.at("protocol").report(format!("does not go with what is said by {}", list(&routes)));
    }
}

/// Why no such route can be on the listener.
fn misplaced(listener: &Listener, route: &Route) -> Option<String> {
    let name = &listener.name;
    match (listener.protocol.is_http(), &route.tcp) {
        (true, None) | (false, Some(_)) => None,
        (true, Some(_)) => Some(format!("Listener/{name} reads requests, for which a route has rules and not tcp")),
        (false, None) => {
            Some(format!("Listener/{name} carries connections as they are, for which a route has tcp and not rules"))
        }
    }
}

fn claims(next: &Catalog, listener: &Listener, route: &Route, problems: &mut Problems) {
    for (index, host) in route.hosts.iter().enumerate() {
        let mut problems = problems.index(index);
        if let Some(reason) = nameless(listener, host) {
            problems.report(reason);
        }
        let others = next.routes_claiming(&listener.name, host).filter(|name| **name != route.name);
        let others: Vec<Key> = others.map(|name| Key::new(Kind::Route, name.clone())).collect();
        if !others.is_empty() {
            let (fleet, name) = (&listener.fleet, &listener.name);
            problems.report(format!("is {host}, which on {fleet}/{name} is claimed by {} already", list(&others)));
        }
    }
}

/// Why no connection to the listener is for `host`.
fn nameless(listener: &Listener, host: &HostPattern) -> Option<String> {
    let name = &listener.name;
    match (&listener.protocol, host) {
        (ListenerProtocol::Http | ListenerProtocol::Https(_), _) | (_, HostPattern::Any) => None,
        (ListenerProtocol::Tcp, _) => {
            Some(format!("is {host}, but connections to Listener/{name} name no host; * is for all of them"))
        }
        (ListenerProtocol::TlsPassthrough, HostPattern::Exact(text)) if is_address(text) => {
            Some(format!("is {host}, but in a TLS handshake no address is asked for, only names"))
        }
        (ListenerProtocol::TlsPassthrough, _) => None,
    }
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{
        Problem, Resource,
        catalog::tests::{entry, fleet, listener, route, service},
        route::Target,
        tcp::Tcp,
    };

    fn speaking(name: &str, port: u16, protocol: ListenerProtocol) -> Resource {
        let Resource::Listener(mut listener) = listener(name, "edge", "0.0.0.0", port) else { panic!("a listener") };
        Arc::make_mut(&mut listener).protocol = protocol;
        Resource::Listener(listener)
    }

    fn carrying(name: &str, place: &str, hosts: &[&str]) -> Resource {
        let Resource::Route(mut route) = route(name, &[place], hosts, &[]) else { panic!("a route") };
        let to = vec![Target { service: "db".parse().unwrap(), subset: Default::default(), weight: 1 }];
        Arc::make_mut(&mut route).tcp = Some(Tcp { to, access: None, idle_timeout: None, connect_attempts: 1 });
        Resource::Route(route)
    }

    fn catalog() -> Catalog {
        let listeners = [
            speaking("web", 80, ListenerProtocol::Http),
            speaking("db", 5432, ListenerProtocol::Tcp),
            speaking("sni", 443, ListenerProtocol::TlsPassthrough),
        ];
        let others = [fleet("edge"), service("db"), carrying("db", "edge/db", &["*"])];
        let names = [carrying("a", "edge/sni", &["a.example.com", "*.example.com"]), carrying("b", "edge/sni", &["*"])];
        Catalog::load(listeners.into_iter().chain(others).chain(names).map(entry)).unwrap()
    }

    fn put(resource: Resource) -> Vec<(Key, Option<crate::model::Entry>)> {
        vec![(resource.key(), Some(entry(resource)))]
    }

    fn refused(resource: Resource) -> Vec<String> {
        catalog().apply(put(resource)).expect_err("accepted").iter().map(Problem::to_string).collect()
    }

    #[test]
    fn routes_are_served_where_what_they_are_about_is_read() {
        assert_eq!(
            refused(carrying("c", "edge/web", &["c.example.com"])),
            ["Route/c: spec.listeners[0]: Listener/web reads requests, for which a route has rules and not tcp"]
        );
        assert_eq!(
            refused(route("c", &["edge/sni"], &["c.example.com"], &[("/", "db")])),
            [
                "Route/c: spec.listeners[0]: Listener/sni carries connections as they are, for which a route has tcp and not rules"
            ]
        );
        assert_eq!(
            refused(speaking("sni", 443, ListenerProtocol::Http)),
            ["Listener/sni: spec.protocol: does not go with what is said by Route/a, Route/b"]
        );
        assert_eq!(
            refused(speaking("sni", 443, ListenerProtocol::Tcp)),
            ["Listener/sni: spec.protocol: does not go with what is said by Route/a"]
        );
    }

    #[test]
    fn what_names_a_connection_has_one_route() {
        assert!(catalog().apply(put(carrying("c", "edge/sni", &["c.example.com", "*.a.example.com"]))).is_ok());
        assert_eq!(
            refused(carrying("c", "edge/sni", &["c.example.com", "a.example.com", "*"])),
            [
                "Route/c: spec.hosts[1]: is a.example.com, which on edge/sni is claimed by Route/a already",
                "Route/c: spec.hosts[2]: is *, which on edge/sni is claimed by Route/b already"
            ]
        );
        assert_eq!(
            refused(carrying("c", "edge/db", &["*"])),
            ["Route/c: spec.hosts[0]: is *, which on edge/db is claimed by Route/db already"]
        );
    }

    #[test]
    fn a_host_is_one_that_connections_can_name() {
        assert_eq!(
            refused(carrying("db", "edge/db", &["db.example.com"])),
            [
                "Route/db: spec.hosts[0]: is db.example.com, but connections to Listener/db name no host; * is for all of them"
            ]
        );
        let no_address = |host: &str| {
            format!("Route/c: spec.hosts[0]: is {host}, but in a TLS handshake no address is asked for, only names")
        };
        for host in ["10.0.0.1", "[::1]"] {
            assert_eq!(refused(carrying("c", "edge/sni", &[host])), [no_address(host)]);
        }
    }

    #[test]
    fn what_carries_to_a_service_keeps_it() {
        let gone = (Key::new(Kind::Service, "db".parse().unwrap()), None);
        let problems = catalog().apply(vec![gone]).expect_err("accepted");
        assert_eq!(problems[0].to_string(), "Service/db: is deleted, but used by Route/a, Route/b, Route/db");
    }
}
