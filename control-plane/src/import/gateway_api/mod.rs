//! The Gateway API of Kubernetes: Gateways, HTTPRoutes, GRPCRoutes, TLSRoutes and TCPRoutes, with the Services, ReferenceGrants and BackendTLSPolicies that they
//! stand on.
//!
//! A Gateway is a fleet, its ports are listeners (`gateway`), each port of a Service that is sent to is a service (`backend`). A route
//! stays one route as long as nobody else claims its hosts. Where several do, the Gateway API puts all of their rules into one order
//! (`matching`), which rules of several of our routes do not have; so those hosts become one route that has the rules of all of them.

mod action;
mod backend;
mod connections;
mod gateway;
mod hosts;
mod matching;
mod objects;
mod time;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use self::{
    backend::{Backends, Making, Referrer},
    connections::Carried,
    gateway::{Door, Gateways, Namespaces},
    matching::Rank,
    objects::{Object, ObjectName},
};
use super::{
    Import,
    draft::{self, Names},
    fields::{self, Place, Report},
};
use crate::model::{Kind, Name};

/// How many rules there may be, each counted once per host and listener.
const MAX_CLAIMS: usize = 200_000;

/// What the model takes of one route: listeners × hosts × rules, and hosts.
const MAX_EXPANSION: usize = 20_000;
const MAX_HOSTS: usize = 100;

/// How an import is to be done.
#[derive(Clone, Debug)]
pub struct Options {
    /// The fleet that serves all Gateways, and is there already; otherwise each Gateway becomes one.
    pub fleet: Option<Name>,
    /// Who owns what is made.
    pub team: Option<Name>,
    /// What names in the cluster's DNS end in.
    pub cluster_domain: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { fleet: None, team: None, cluster_domain: "cluster.local".to_owned() }
    }
}

/// A route that is let in somewhere.
struct Route<'a> {
    name: ObjectName,
    created: String,
    /// `HTTPRoute` or `GRPCRoute`.
    kind: &'a str,
    place: Place<'a>,
    claims: Vec<Claim<'a>>,
    /// The hosts that it has, each with a listener.
    hosts: BTreeSet<(String, String)>,
}

/// One condition of a rule, with what becomes of the requests.
struct Claim<'a> {
    rank: Rank,
    /// What becomes of them; nothing if the model takes no such condition.
    rule: Option<Value>,
    place: Place<'a>,
}

/// Resources for the objects in `documents`.
pub fn import(documents: &[Value], options: &Options) -> Import {
    let report = Report::default();
    let resources = resources(documents, options, &report);
    Import { resources, unmatched: report.into_vec() }
}

fn resources(documents: &[Value], options: &Options, report: &Report) -> Vec<Value> {
    let mut names = Names::default();
    let mut making = Making { names: &mut names, domain: &options.cluster_domain, team: options.team.as_ref() };
    let (mut backends, mut gateways, mut namespaces) = (Backends::default(), Gateways::default(), Namespaces::new());
    let (mut policies, mut routes, mut carrying) = (Vec::new(), Vec::new(), Vec::new());
    for mut object in objects::objects(documents, report) {
        match object.kind {
            "Gateway" => gateways.add(object, options.fleet.as_ref(), &mut making),
            "HTTPRoute" | "GRPCRoute" => routes.push(object),
            "TLSRoute" | "TCPRoute" => carrying.push(object),
            "BackendTLSPolicy" => policies.push(object),
            "Namespace" => {
                object.fields.rest();
                namespaces.insert(object.name.name, object.labels);
            }
            _ => backends.add(object),
        }
    }
    for policy in policies {
        backends.add_policy(policy);
    }
    let routes =
        routes.into_iter().filter_map(|route| self::route(route, &gateways, &namespaces, &mut backends, &mut making));
    let mut routes: Vec<Route<'_>> = routes.collect();
    // The oldest first, then by name: the order of what is equal otherwise.
    routes.sort_by(|a, b| (&a.created, &a.name, a.kind).cmp(&(&b.created, &b.name, b.kind)));
    let merged = merged(&routes, &mut making);
    let carrying =
        carrying.into_iter().filter_map(|route| carried(route, &gateways, &namespaces, &mut backends, &mut making));
    let carrying: Vec<Carried<'_>> = carrying.collect();
    let carried = connections::documents(carrying, &mut making);
    [gateways.documents, backends.documents, merged, carried].concat()
}

/// Reads a route; `None` if it is let in nowhere.
fn route<'a>(
    object: Object<'a>,
    gateways: &Gateways,
    namespaces: &Namespaces,
    backends: &mut Backends,
    making: &mut Making<'_>,
) -> Option<Route<'a>> {
    let Object { kind, name, created, mut fields, .. } = object;
    let place = fields.place.clone();
    let mut spec = fields.object("spec")?;
    let (doors, hosts) = entered(&mut spec, kind, &name, gateways, namespaces)?;
    let referrer = Referrer { kind, namespace: &name.namespace };
    let mut claims = Vec::new();
    for node in spec.items("rules") {
        let Some(mut rule) = node.object() else { continue };
        let conditions = rule.items("matches");
        let matched: Vec<_> = if conditions.is_empty() {
            vec![(matching::everything(kind), rule.place.clone())]
        } else {
            let read = |node: fields::Node<'a>| {
                let place = node.place.clone();
                Some((matching::matches(node, kind)?, place))
            };
            conditions.into_iter().filter_map(read).collect()
        };
        let action = action::action(&mut rule, &doors, referrer, backends, making);
        for ((rank, matches), place) in matched {
            let rule = checked(&matches, &action, &place);
            claims.push(Claim { rank, rule, place });
        }
    }
    Some(Route { name, created, kind, place, claims, hosts })
}

/// Reads a route about connections; `None` if it is let in nowhere, or has nowhere to carry them.
fn carried<'a>(
    object: Object<'a>,
    gateways: &Gateways,
    namespaces: &Namespaces,
    backends: &mut Backends,
    making: &mut Making<'_>,
) -> Option<Carried<'a>> {
    let Object { kind, name, created, mut fields, .. } = object;
    let place = fields.place.clone();
    let mut spec = fields.object("spec")?;
    let (_, hosts) = entered(&mut spec, kind, &name, gateways, namespaces)?;
    let referrer = Referrer { kind, namespace: &name.namespace };
    let mut rules = spec.items("rules").into_iter();
    let tcp = rules.next().and_then(fields::Node::object);
    let tcp = tcp.and_then(|mut rule| action::carried(&mut rule, referrer, backends, making));
    for further in rules {
        further.place.lacks("is a further rule, and nothing tells connections apart", "leave one");
    }
    Some(Carried { name, created, kind, place, hosts, tcp: tcp? })
}

/// Doors, and hosts that a route gets there, each with a listener.
type Entered<'a> = (Vec<&'a Door>, BTreeSet<(String, String)>);

/// Where a route of this kind comes in: the doors, and the hosts that it gets, each with a listener. `None` if nowhere.
fn entered<'a>(
    spec: &mut fields::Fields<'_>,
    kind: &str,
    name: &ObjectName,
    gateways: &'a Gateways,
    namespaces: &Namespaces,
) -> Option<Entered<'a>> {
    let place = spec.place.clone();
    spec.pass_over(&["useDefaultGateways"]);
    let named = spec.items("hostnames");
    let any_host = named.is_empty();
    let mut hostnames = Vec::new();
    for node in named {
        let Some(host) = node.text().map(str::to_ascii_lowercase) else { continue };
        match draft::refusal_of_host(&host) {
            None => hostnames.push(host),
            Some(refusal) => node.place.lacks(refusal, "claim a host that can be claimed"),
        }
    }
    let parents = spec.items("parentRefs");
    if parents.is_empty() {
        place.lacks("names no Gateway in parentRefs", "name one");
    }
    let mut doors: Vec<&Door> = Vec::new();
    let mut hosts = BTreeSet::new();
    // One whose hosts are all wrong is not for every host.
    for parent in parents.into_iter().filter(|_| any_host || !hostnames.is_empty()) {
        for (door, common) in gateways.enter(parent, kind, name, &hostnames, namespaces) {
            hosts.extend(common.into_iter().map(|host| (host, door.listener.clone())));
            doors.push(door);
        }
    }
    if hosts.is_empty() {
        spec.rest();
        return None;
    }
    Some((doors, hosts))
}

/// A rule that the model takes: this one, or one that refuses its requests; none if its conditions are what it does not take.
fn checked(matches: &Value, action: &Value, place: &Place<'_>) -> Option<Value> {
    let of = |action: &Value| {
        let mut rule = action.clone();
        rule["match"] = matches.clone();
        rule
    };
    let rule = of(action);
    let refusals = draft::refusals_of_rule(&rule);
    if let Some(refusal) = refusals.iter().find(|refusal| refusal.path.starts_with("match")) {
        let reason = format!("makes a rule that is refused: {}: {}", refusal.path, refusal.reason);
        place.lacks(reason, matching::LEFT_OUT);
        return None;
    }
    match refusals.first() {
        None => Some(rule),
        Some(refusal) => {
            action::refused(place, &refusal.path, &refusal.reason);
            Some(of(&action::refusal()))
        }
    }
}

/// How many routes claim some hosts, which, and on which listeners.
type Claimants<'a> = (usize, Vec<usize>, BTreeSet<&'a str>);

/// The documents of routes: one for all hosts and listeners that the same routes have claimed.
fn merged(routes: &[Route<'_>], making: &mut Making<'_>) -> Vec<Value> {
    let mut claimed: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (index, route) in routes.iter().enumerate() {
        for (host, listener) in &route.hosts {
            claimed.entry((host, listener)).or_default().push(index);
        }
    }
    let mut by_host: BTreeMap<(Vec<usize>, &str), BTreeSet<&str>> = BTreeMap::new();
    for ((host, listener), members) in claimed {
        by_host.entry((members, host)).or_default().insert(listener);
    }
    let mut groups: BTreeMap<Claimants<'_>, Vec<&str>> = BTreeMap::new();
    for ((members, host), listeners) in by_host {
        // Those of one route alone come first, and so get its name.
        groups.entry((members.len(), members, listeners)).or_default().push(host);
    }
    let mut documents = Vec::new();
    let mut left = MAX_CLAIMS;
    for ((_, members, listeners), hosts) in groups {
        let members: Vec<&Route<'_>> = members.iter().map(|index| &routes[*index]).collect();
        let first = members[0];
        if let Some(other) = members.iter().find(|other| other.kind != first.kind) {
            let reason =
                format!("claims hosts of {} {}, of which the Gateway API would refuse one", first.kind, first.name);
            other.place.lacks(reason, "nothing, if calls of gRPC are to be looked for first, as they are now");
        }
        let rules = in_order(&members);
        if rules.is_empty() {
            continue;
        }
        let most = (MAX_EXPANSION / (listeners.len() * rules.len())).clamp(1, MAX_HOSTS);
        for hosts in hosts.chunks(most) {
            let Some(rest) = left.checked_sub(rules.len()) else {
                first.place.lacks("is one of too many routes", "import fewer documents at once");
                return documents;
            };
            left = rest;
            let spec = json!({ "listeners": listeners, "hosts": hosts, "rules": rules });
            let document =
                draft::document(Kind::Route, &making.names.free(Kind::Route, &first.name.wanted()), making.team, spec);
            match draft::refusals(&document).first() {
                None => documents.push(document),
                Some(refusal) => {
                    let reason = format!("makes a route that is refused: {}: {}", refusal.path, refusal.reason);
                    first.place.lacks(reason, "split the route");
                }
            }
        }
    }
    documents
}

/// The rules of several routes in the order of the Gateway API. What an earlier rule takes for certain is not there again.
fn in_order(routes: &[&Route<'_>]) -> Vec<Value> {
    let mut claims: Vec<&Claim<'_>> = routes.iter().flat_map(|route| &route.claims).collect();
    // Stable: what is equal stays in the order of the routes, and of the rules in each.
    claims.sort_by_key(|claim| claim.rank);
    let mut seen = BTreeSet::new();
    let mut rules = Vec::new();
    for claim in claims {
        let Some(rule) = &claim.rule else { continue };
        if seen.insert(rule["match"].to_string()) {
            rules.push(rule.clone());
        } else {
            claim.place.lacks("is never reached: a rule before it has the same conditions", "leave it out");
        }
    }
    rules
}

#[cfg(test)]
mod tests;
