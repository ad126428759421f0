//! Whether a changed catalog is consistent, with everything that is not.
//!
//! The catalog before the change was, so only what the change touches is looked at: the references of what was put, those to
//! what was deleted or moved, and what claims the same as what was put. A fault is reported on a resource
//! that is part of the change, for that is what its author can mend.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Catalog, Key, Kind, Name, Problems, Resource,
    catalog::digest,
    fleet::Fleet,
    listener::Listener,
    rate_limit::{Enforcement, RateLimit},
    route::{Action, Forward, HostPattern, ListenerRef, Route},
    service::Service,
};

mod access;
mod authorizer;
mod calls;
mod envoy_patch;
mod subset;
mod tcp;
mod team;

/// How many resources a reason names.
const NAMED: usize = 5;

/// Reports what is inconsistent in `next` because of the `changed` resources.
///
/// Resources that are `unread` belong to the change too, but could not be parsed: what refers to them is
/// given the benefit of the doubt.
pub(super) fn check(next: &Catalog, changed: &BTreeSet<Key>, unread: &BTreeSet<Key>, problems: &mut Problems) {
    for key in changed {
        let mut problems = problems.about(key.to_string());
        match next.entry(key).map(|entry| &entry.resource) {
            None => deleted(next, changed, key, &mut problems),
            Some(Resource::Fleet(fleet)) => put_fleet(next, changed, fleet, &mut problems.at("spec")),
            Some(Resource::Service(service)) => {
                put_service(next, unread, service, &mut problems.at("spec"));
                subset::put_service(next, changed, service, &mut problems.at("spec"));
                calls::put_service(next, changed, service, &mut problems.at("spec"));
                envoy_patch::added_already(next, changed, key, &mut problems);
            }
            Some(Resource::Team(team)) => team::put(next, changed, team, &mut problems.at("spec")),
            Some(Resource::RateLimit(limit)) => put_rate_limit(next, changed, limit, &mut problems.at("spec")),
            Some(Resource::Listener(listener)) => {
                put_listener(next, changed, unread, listener, &mut problems.at("spec"));
                access::put_listener(next, changed, listener, &mut problems.at("spec"));
                calls::put_listener(next, unread, listener, &mut problems.at("spec"));
                authorizer::put_listener(next, changed, listener, &mut problems.at("spec"));
                tcp::put_listener(next, changed, listener, &mut problems.at("spec"));
                envoy_patch::http3_patched_already(next, changed, listener, &mut problems.at("spec"));
                envoy_patch::added_already(next, changed, key, &mut problems);
            }
            Some(Resource::Route(route)) => {
                put_route(next, unread, route, &mut problems.at("spec"));
                access::put_route(next, route, &mut problems.at("spec"));
                subset::put_route(next, route, &mut problems.at("spec"));
                authorizer::put_route(next, route, &mut problems.at("spec"));
                tcp::put_route(next, route, &mut problems.at("spec"));
                team::hosts_of(next, unread, key, route, &mut problems.at("spec").at("hosts"));
                envoy_patch::hosts_added_already(next, changed, route, &mut problems.at("spec"));
            }
            Some(Resource::EnvoyPatch(patch)) => envoy_patch::put(next, unread, patch, &mut problems.at("spec")),
        }
    }
    team::quotas(next, changed, problems);
}

/// Whether nothing is, or will be, called so.
pub(super) fn is_missing(next: &Catalog, unread: &BTreeSet<Key>, key: &Key) -> bool {
    next.entry(key).is_none() && !unread.contains(key)
}

/// What is said of a reference to nothing.
pub(super) fn missing(key: &Key) -> String {
    format!("{key} does not exist")
}

/// Nothing may refer to what is gone; what is part of the change reports its own references.
fn deleted(next: &Catalog, changed: &BTreeSet<Key>, key: &Key, problems: &mut Problems) {
    let unchanged = |kind: Kind, names: &mut dyn Iterator<Item = &Name>| {
        let keys = names.map(|name| Key::new(kind, name.clone()));
        keys.filter(|key| !changed.contains(key)).collect::<Vec<_>>()
    };
    let mut referrers = match key.kind {
        Kind::Fleet => unchanged(Kind::Listener, &mut next.listeners_of(&key.name)),
        Kind::Listener => unchanged(Kind::Route, &mut next.routes_on(&key.name)),
        Kind::Service => unchanged(Kind::Route, &mut next.routes_to(&key.name)),
        Kind::RateLimit => unchanged(Kind::Route, &mut next.routes_limited_by(&key.name)),
        Kind::Team => next.owned_by(&key.name).filter(|owned| !changed.contains(owned)).cloned().collect(),
        Kind::Route | Kind::EnvoyPatch => Vec::new(),
    };
    referrers.extend(unchanged(Kind::EnvoyPatch, &mut next.indexes().needed_by.of(key)));
    if key.kind == Kind::Service {
        referrers.extend(unchanged(Kind::Listener, &mut next.indexes().listeners_calling.of(&key.name)));
    }
    if key.kind == Kind::Fleet {
        referrers.extend(unchanged(Kind::EnvoyPatch, &mut next.patches_of(&key.name)));
        referrers.extend(unchanged(Kind::Service, &mut next.indexes().behind.of(&key.name)));
    }
    if !referrers.is_empty() {
        problems.report(format!("is deleted, but used by {}", list(&referrers)));
    }
}

/// Limits need a limiter; routes that are part of the change report it themselves.
fn put_fleet(next: &Catalog, changed: &BTreeSet<Key>, fleet: &Fleet, problems: &mut Problems) {
    if fleet.rate_limiter.is_some() {
        return;
    }
    let here = |route: &&Name| {
        let route = next.route(route);
        route.is_some_and(|route| route.listeners.iter().any(|place| place.fleet == fleet.name))
    };
    let limits = next.limits_of(&fleet.name);
    let limited: BTreeSet<&Name> = limits.flat_map(|limit| next.routes_limited_by(limit)).filter(here).collect();
    let limited = limited.into_iter().map(|name| Key::new(Kind::Route, name.clone()));
    let limited: Vec<Key> = limited.filter(|key| !changed.contains(key)).collect();
    if !limited.is_empty() {
        problems.at("rateLimiter").report(format!("is missing, but limits are used by {}", list(&limited)));
    }
}

/// Whose proxies the endpoints are.
fn put_service(next: &Catalog, unread: &BTreeSet<Key>, service: &Service, problems: &mut Problems) {
    let fleet = service.behind().map(|fleet| Key::new(Kind::Fleet, fleet.clone()));
    if let Some(fleet) = fleet.filter(|fleet| is_missing(next, unread, fleet)) {
        problems.at("tls").at("mesh").at("fleet").report(missing(&fleet));
    }
}

fn put_listener(
    next: &Catalog,
    changed: &BTreeSet<Key>,
    unread: &BTreeSet<Key>,
    listener: &Listener,
    problems: &mut Problems,
) {
    let fleet = Key::new(Kind::Fleet, listener.fleet.clone());
    if is_missing(next, unread, &fleet) {
        problems.at("fleet").report(missing(&fleet));
    }
    let bound: Vec<Key> = next
        .indexes()
        .binds
        .of(&(listener.fleet.clone(), listener.port))
        .filter_map(|name| next.listener(name))
        .filter(|other| other.name != listener.name && overlap(other.address, listener.address))
        .map(|other| Key::new(Kind::Listener, other.name.clone()))
        .collect();
    if !bound.is_empty() {
        problems.at("port").report(format!(
            "{} port {} of fleet {} is bound by {}",
            listener.address,
            listener.port,
            listener.fleet,
            list(&bound)
        ));
    }
    // Routes name the fleet too; those that are not part of the change now name the wrong one.
    let astray: Vec<Key> = next
        .routes_on(&listener.name)
        .filter_map(|name| next.route(name))
        .filter(|route| {
            let names_other = |place: &ListenerRef| place.listener == listener.name && place.fleet != listener.fleet;
            route.listeners.iter().any(names_other)
        })
        .map(|route| Key::new(Kind::Route, route.name.clone()))
        .chain(envoy_patch::astray(next, listener))
        .filter(|key| !changed.contains(key))
        .collect();
    if !astray.is_empty() {
        problems.at("fleet").report(format!("is not the fleet by which it is used by {}", list(&astray)));
    }
}

/// Whether a socket on one address is in the way of one on the other.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
}

fn put_route(next: &Catalog, unread: &BTreeSet<Key>, route: &Route, problems: &mut Problems) {
    for (index, place) in route.listeners.iter().enumerate() {
        let mut problems = problems.at("listeners");
        let mut problems = problems.index(index);
        let key = Key::new(Kind::Listener, place.listener.clone());
        match next.listener(&place.listener) {
            _ if unread.contains(&key) => {}
            None => problems.report(missing(&key)),
            Some(listener) if listener.fleet != place.fleet => {
                problems.report(format!("Listener/{} belongs to fleet {}", place.listener, listener.fleet));
            }
            Some(_) => {}
        }
    }
    let exists = |service: &Name, problems: &mut Problems| {
        let service = Key::new(Kind::Service, service.clone());
        if is_missing(next, unread, &service) {
            problems.at("service").report(missing(&service));
        }
    };
    for (index, provider) in route.jwt_providers.iter().enumerate() {
        if let Some(service) = provider.service() {
            exists(service, &mut problems.at("jwtProviders").index(index).at("keys"));
        }
    }
    for (index, target) in route.tcp.iter().flat_map(|tcp| tcp.to.iter().enumerate()) {
        exists(&target.service, &mut problems.at("tcp").at("to").index(index));
    }
    for (index, rule) in route.rules.iter().enumerate() {
        let Action::Forward(forward) = &rule.action else { continue };
        let mut problems = problems.at("rules");
        let mut problems = problems.index(index);
        for (index, target) in forward.to.iter().enumerate() {
            exists(&target.service, &mut problems.at("to").index(index));
        }
        if let Some(mirror) = &forward.mirror {
            exists(&mirror.service, &mut problems.at("mirror"));
        }
    }
    limits(next, unread, route, problems);
    for (conflict, claims) in conflicts(next, route) {
        let (listener, host) = claims[0];
        let elsewhere = match claims.len() {
            1 => String::new(),
            claims => format!(" and {} more", claims - 1),
        };
        problems.at("rules").index(conflict.rule).at("match").report(format!(
            "is the same as that of spec.rules[{}] of Route/{}, which also claims {host} on {listener}{elsewhere}",
            conflict.other_rule, conflict.other
        ));
    }
}

/// The limits of a route exist, and so does a limiter wherever it is served.
fn limits(next: &Catalog, unread: &BTreeSet<Key>, route: &Route, problems: &mut Problems) {
    let without: BTreeSet<&Name> = route
        .listeners
        .iter()
        .filter_map(|place| next.fleet(&place.fleet))
        .filter(|fleet| fleet.rate_limiter.is_none())
        .map(|fleet| &fleet.name)
        .filter(|fleet| !unread.contains(&Key::new(Kind::Fleet, (*fleet).clone())))
        .collect();
    for (index, rule) in route.rules.iter().enumerate() {
        let Action::Forward(forward) = &rule.action else { continue };
        if forward.rate_limits.is_empty() {
            continue;
        }
        let mut problems = problems.at("rules");
        let mut problems = problems.index(index);
        let mut problems = problems.at("rateLimits");
        for fleet in &without {
            problems.report(format!("needs a rate limiter, but Fleet/{fleet} names none in spec.rateLimiter"));
        }
        for (index, limit) in forward.rate_limits.iter().enumerate() {
            let limit = Key::new(Kind::RateLimit, limit.clone());
            if is_missing(next, unread, &limit) {
                problems.index(index).report(missing(&limit));
            }
        }
        if let [(_, first), (second, _), ..] = quotas(next, forward)[..] {
            problems.index(second).report(format!("is a quota, as RateLimit/{first} is; {ONE_QUOTA}"));
        }
    }
}

/// Why a rule has at most one quota.
const ONE_QUOTA: &str = "a proxy counts a request in one";

/// The limits of a rule that the proxy enforces itself, with their places among all.
fn quotas<'a>(next: &Catalog, forward: &'a Forward) -> Vec<(usize, &'a Name)> {
    let is_quota = |name| next.rate_limit(name).is_some_and(|limit| limit.enforcement == Enforcement::Quota);
    forward.rate_limits.iter().enumerate().filter(|(_, name)| is_quota(name)).collect()
}

/// A limit that has become a quota may be the second one of a rule; routes that are part of the change report it themselves.
fn put_rate_limit(next: &Catalog, changed: &BTreeSet<Key>, limit: &RateLimit, problems: &mut Problems) {
    if limit.enforcement != Enforcement::Quota {
        return;
    }
    let is_second = |route: &&Name| {
        let rules = next.route(route).into_iter().flat_map(|route| route.forwards());
        rules.filter(|forward| forward.rate_limits.contains(&limit.name)).any(|rule| quotas(next, rule).len() > 1)
    };
    let routes = next.routes_limited_by(&limit.name).filter(is_second);
    let routes = routes.map(|name| Key::new(Kind::Route, name.clone()));
    let routes: Vec<Key> = routes.filter(|key| !changed.contains(key)).collect();
    if !routes.is_empty() {
        let routes = list(&routes);
        problems.at("enforcement").report(format!("is quota, but rules of {routes} have one already; {ONE_QUOTA}"));
    }
}

/// A rule for the same requests as one of another route.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Conflict<'a> {
    rule: usize,
    other: &'a Name,
    other_rule: usize,
}

/// The rules of other routes that are for the same requests as one of `route`, and on which listeners and hosts.
fn conflicts<'a>(
    next: &'a Catalog,
    route: &'a Route,
) -> BTreeMap<Conflict<'a>, Vec<(&'a ListenerRef, &'a HostPattern)>> {
    let mut conflicts: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for place in &route.listeners {
        for host in &route.hosts {
            for (index, rule) in route.rules.iter().enumerate() {
                for (name, other_rule) in next.indexes().matches.of(&digest(&place.listener, host, &rule.matches)) {
                    let Some(other) = next.route(name).filter(|other| other.name != route.name) else { continue };
                    let same = other.rules.get(*other_rule).is_some_and(|other| other.matches == rule.matches)
                        && other.hosts.contains(host)
                        && other.listeners.iter().any(|other| other.listener == place.listener);
                    if same {
                        let conflict = Conflict { rule: index, other: name, other_rule: *other_rule };
                        conflicts.entry(conflict).or_default().push((place, host));
                    }
                }
            }
        }
    }
    conflicts
}

/// The first of them by name, and how many more.
fn list(keys: &[Key]) -> String {
    let named: Vec<String> = keys.iter().take(NAMED).map(Key::to_string).collect();
    match keys.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests;
