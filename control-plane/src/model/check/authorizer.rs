//! What rules say to those who are asked about requests is heard, and nobody is asked what cannot be.
//!
//! Over HTTP a CONNECT is asked about with a CONNECT, which Envoy sends and whose answer it does not take: nobody would get a tunnel, or
//! everybody, by what the listener says of failures.

use std::{collections::BTreeSet, sync::Arc};

use super::list;
use crate::model::{
    Catalog, Key, Kind, Problems,
    authorizer::{AuthorizerProtocol, RuleAuthorization},
    listener::Listener,
    route::{PathMatch, Route},
};

pub(super) fn put_listener(next: &Catalog, changed: &BTreeSet<Key>, listener: &Listener, problems: &mut Problems) {
    let mut problems = problems.at("externalAuthorization");
    if asks_over_http(listener) {
        let carries = |key: &Key| next.route(&key.name).is_some_and(|route| tunnels(route).next().is_some());
        let routes = next.routes_on(&listener.name).map(|name| Key::new(Kind::Route, name.clone()));
        let routes: Vec<Key> = routes.filter(|key| !changed.contains(key) && carries(key)).collect();
        if !routes.is_empty() {
            let by = list(&routes);
            problems.report(format!("is over HTTP, in which nobody can be asked about the tunnels of {by}"));
        }
    }
    if !hears_rules(listener) {
        let tells = |key: &Key| next.route(&key.name).is_some_and(|route| contexts(route).next().is_some());
        let routes = next.routes_on(&listener.name).map(|name| Key::new(Kind::Route, name.clone()));
        let routes: Vec<Key> = routes.filter(|key| !changed.contains(key) && tells(key)).collect();
        if !routes.is_empty() {
            problems.report(format!("is not over gRPC, but has a context from {}", list(&routes)));
        }
    }
}

/// Whoever tells an authorizer something of a rule means it to be heard.
pub(super) fn put_route(next: &Catalog, route: &Route, problems: &mut Problems) {
    let places = || route.listeners.iter().filter_map(|place| next.listener(&place.listener));
    let named = |listener: &Arc<Listener>| Key::new(Kind::Listener, listener.name.clone());
    let over_http: Vec<Key> = places().filter(|listener| asks_over_http(listener)).map(named).collect();
    for rule in tunnels(route).filter(|_| !over_http.is_empty()) {
        let mut problems = problems.at("rules");
        let mut problems = problems.index(rule);
        let who = list(&over_http);
        problems.at("match").at("connect").report(format!(
            "cannot be asked about over HTTP, as {who} does; ask over gRPC, or nobody: externalAuthorization: {{ off: true }}"
        ));
    }
    let deaf: Vec<Key> = places().filter(|listener| !hears_rules(listener)).map(named).collect();
    if deaf.is_empty() {
        return;
    }
    for rule in contexts(route) {
        let mut problems = problems.at("rules");
        let mut problems = problems.index(rule);
        let mut problems = problems.at("externalAuthorization");
        let who = list(&deaf);
        problems.at("context").report(format!("is told over gRPC, but {who} asks nobody in that way"));
    }
}

fn hears_rules(listener: &Listener) -> bool {
    listener.authorizer.as_ref().is_some_and(|authorizer| authorizer.protocol == AuthorizerProtocol::Grpc)
}

fn asks_over_http(listener: &Listener) -> bool {
    listener.authorizer.as_ref().is_some_and(|one| matches!(one.protocol, AuthorizerProtocol::Http { .. }))
}

/// The rules for tunnels about which somebody is asked, where a listener asks anybody.
fn tunnels(route: &Route) -> impl Iterator<Item = usize> {
    let rules = route.rules.iter().enumerate().filter(|(_, rule)| rule.matches.path == PathMatch::Connect);
    rules.filter(|(_, rule)| rule.authorization != Some(RuleAuthorization::Off)).map(|(rule, _)| rule)
}

/// The rules that tell an authorizer something.
fn contexts(route: &Route) -> impl Iterator<Item = usize> {
    let rules = route.rules.iter().enumerate();
    rules.filter(|(_, rule)| matches!(rule.authorization, Some(RuleAuthorization::Context(_)))).map(|(rule, _)| rule)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{
        Problem, Resource,
        authorizer::Authorizer,
        catalog::tests::{entry, fleet, listener, route, service},
        fleet::OnFailure,
        service::ServiceProtocol,
    };

    fn asking(protocol: Option<AuthorizerProtocol>) -> Resource {
        let Resource::Listener(mut web) = listener("web", "edge", "0.0.0.0", 80) else { panic!("a listener") };
        Arc::make_mut(&mut web).authorizer = protocol.map(|protocol| Authorizer {
            service: "auth".parse().unwrap(),
            protocol,
            timeout: Duration::from_secs(1),
            on_failure: OnFailure::Deny,
            status_on_error: 403,
            body: None,
            headers: None,
        });
        Resource::Listener(web)
    }

    fn http() -> Option<AuthorizerProtocol> {
        Some(AuthorizerProtocol::Http { path_prefix: String::new(), to_service: vec![], to_client: None })
    }

    fn speaking(protocol: ServiceProtocol) -> Resource {
        let Resource::Service(mut auth) = service("auth") else { panic!("a service") };
        Arc::make_mut(&mut auth).protocol = protocol;
        Resource::Service(auth)
    }

    fn telling(authorization: Option<RuleAuthorization>) -> Resource {
        let Resource::Route(mut shop) = route("shop", &["edge/web"], &["*"], &[("/", ""), ("/a", "")]) else {
            panic!("a route")
        };
        Arc::make_mut(&mut shop).rules[1].authorization = authorization;
        Resource::Route(shop)
    }

    fn context() -> Option<RuleAuthorization> {
        Some(RuleAuthorization::Context([("tier".to_owned(), "gold".to_owned())].into()))
    }

    fn put(resource: Resource) -> Vec<(Key, Option<crate::model::Entry>)> {
        vec![(resource.key(), Some(entry(resource)))]
    }

    fn said(result: Result<Catalog, Vec<Problem>>) -> Vec<String> {
        result.err().into_iter().flatten().map(|problem| problem.to_string()).collect()
    }

    #[test]
    fn whoever_is_asked_exists_and_understands() {
        let grpc = || asking(Some(AuthorizerProtocol::Grpc));
        let nobody = Catalog::load([fleet("edge"), grpc()].map(entry));
        assert_eq!(said(nobody), ["Listener/web: spec.externalAuthorization.service: Service/auth does not exist"]);
        let deaf = Catalog::load([fleet("edge"), grpc(), speaking(ServiceProtocol::Http1)].map(entry));
        assert_eq!(
            said(deaf),
            [
                "Listener/web: spec.externalAuthorization.service: is Service/auth, whose protocol is not http2, as gRPC needs it"
            ]
        );
        let good = Catalog::load([fleet("edge"), grpc(), speaking(ServiceProtocol::Http2)].map(entry)).unwrap();
        assert!(good.fleet_uses(&"edge".parse().unwrap(), &"auth".parse().unwrap()));
        assert_eq!(
            said(good.apply(put(speaking(ServiceProtocol::Http1)))),
            ["Service/auth: spec.protocol: must be http2, for Listener/web speaks gRPC to it"]
        );
        assert_eq!(
            said(good.apply(vec![(speaking(ServiceProtocol::Http2).key(), None)])),
            ["Service/auth: is deleted, but used by Listener/web"]
        );
        assert!(good.apply([put(speaking(ServiceProtocol::Http1)), put(asking(http()))].concat()).is_ok());
    }

    #[test]
    fn nobody_is_asked_over_http_about_a_tunnel() {
        let tunnel = |authorization| {
            let Resource::Route(mut shop) = telling(authorization) else { panic!("a route") };
            Arc::make_mut(&mut shop).rules[1].matches.path = PathMatch::Connect;
            Resource::Route(shop)
        };
        let loaded = |protocol, route: Resource| {
            Catalog::load([fleet("edge"), asking(protocol), speaking(ServiceProtocol::Http2), route].map(entry))
        };
        let refused = said(loaded(http(), tunnel(None)));
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].starts_with("Route/shop: spec.rules[1].match.connect: cannot be asked"), "{refused:?}");
        assert!(loaded(http(), tunnel(Some(RuleAuthorization::Off))).is_ok());
        assert!(loaded(None, tunnel(None)).is_ok());
        let asked = loaded(Some(AuthorizerProtocol::Grpc), tunnel(None)).unwrap();
        assert_eq!(
            said(asked.apply(put(asking(http())))),
            [
                "Listener/web: spec.externalAuthorization: is over HTTP, in which nobody can be asked about the tunnels of Route/shop"
            ]
        );
    }

    #[test]
    fn what_a_rule_tells_is_heard() {
        let loaded = |protocol, told| {
            let resources = [fleet("edge"), asking(protocol), speaking(ServiceProtocol::Http2), telling(told)];
            Catalog::load(resources.map(entry))
        };
        for protocol in [None, http()] {
            assert_eq!(
                said(loaded(protocol.clone(), context())),
                [
                    "Route/shop: spec.rules[1].externalAuthorization.context: is told over gRPC, but Listener/web asks nobody in that way"
                ]
            );
            assert!(loaded(protocol, Some(RuleAuthorization::Off)).is_ok());
        }
        let heard = loaded(Some(AuthorizerProtocol::Grpc), context()).unwrap();
        assert_eq!(
            said(heard.apply(put(asking(None)))),
            ["Listener/web: spec.externalAuthorization: is not over gRPC, but has a context from Route/shop"]
        );
        assert!(heard.apply([put(asking(None)), put(telling(None))].concat()).is_ok());
    }
}
