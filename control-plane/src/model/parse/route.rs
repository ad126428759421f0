//! What a route's spec means: where it is served, and its rules together.

use std::collections::HashMap;

use super::{
    host,
    jwt::{self, Providers},
    rule, tcp, text,
};
use crate::model::{
    Name,
    problem::{Problems, Quoted},
    route::{ListenerRef, Match, Route, Rule},
    wire::RouteSpec,
};

/// How often the rules of one route may exist on a proxy: listeners × hosts × rules.
///
/// Envoy keeps the rules of a route once per host and listener, so each limit alone would allow millions.
const MAX_EXPANSION: usize = 20_000;

pub(super) fn route(name: Name, spec: &RouteSpec, problems: &mut Problems) -> Option<Route> {
    let RouteSpec { listeners, hosts, jwt_providers, rules, tcp } = spec;
    match (rules, tcp) {
        (Some(_), None) => {}
        (None, Some(_)) if jwt_providers.is_some() => problems.at("jwtProviders").report("goes with rules only"),
        (None, Some(_)) => {}
        (None, None) => problems.report("needs rules or tcp"),
        (Some(_), Some(_)) => problems.report("can have only one of rules and tcp"),
    }
    let rules = rules.as_deref().unwrap_or_default();
    let (wanted_at, names) = (listeners.len(), hosts.len());
    let expansion = wanted_at * names * rules.len();
    if expansion > MAX_EXPANSION {
        problems.report(format!(
            "listeners × hosts × rules must be at most {MAX_EXPANSION}, not {expansion}; split the route"
        ));
    }
    let listeners = text::distinct(listeners, &mut problems.at("listeners"), listener_ref);
    let hosts = text::distinct(hosts, &mut problems.at("hosts"), host::pattern);
    let written = jwt_providers.as_deref().unwrap_or_default();
    let jwt_providers = jwt::providers(written, &mut problems.at("jwtProviders"));
    let rules = {
        let providers = Providers { read: &jwt_providers, written };
        let mut problems = problems.at("rules");
        let parsed = problems.each(rules, |spec, problems| rule::rule(spec, &providers, problems));
        unambiguous(parsed.as_deref().unwrap_or_default(), &mut problems);
        parsed
    };
    let tcp = tcp.as_ref().and_then(|spec| tcp::tcp(spec, &mut problems.at("tcp")));
    // Each name has a chain of its own on each listener, which says again who may have it.
    let networks = tcp
        .iter()
        .flat_map(|tcp| &tcp.access)
        .flat_map(crate::model::access::Access::callers)
        .map(|caller| caller.networks.len());
    let expansion = wanted_at * names * networks.sum::<usize>();
    if expansion > MAX_EXPANSION {
        problems.report(format!(
            "listeners × hosts × networks must be at most {MAX_EXPANSION}, not {expansion}; split the route"
        ));
    }
    Some(Route { name, listeners: listeners?, hosts: hosts?, jwt_providers, rules: rules?, tcp })
}

/// `fleet/listener`.
fn listener_ref(text: &str) -> Result<ListenerRef, String> {
    let parsed = text.split_once('/').and_then(|(fleet, listener)| {
        Some(ListenerRef { fleet: fleet.parse().ok()?, listener: listener.parse().ok()? })
    });
    parsed.ok_or_else(|| format!("{} is not a reference of the form fleet/listener", Quoted(text)))
}

/// The first of two rules with the same match would hide the other.
fn unambiguous(rules: &[Rule], problems: &mut Problems) {
    let mut first: HashMap<&Match, usize> = HashMap::new();
    for (index, rule) in rules.iter().enumerate() {
        let earlier = *first.entry(&rule.matches).or_insert(index);
        if earlier != index {
            problems.index(index).at("match").report(format!("is the same as that of rules[{earlier}]"));
        }
    }
}
