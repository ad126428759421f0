//! What becomes of a request, said before anybody sends it. Pure.
//!
//! A catalog and a request go in, an [`Explanation`] comes out: which listeners could take the request, which of its hosts
//! matches, which rules were passed over and what of them did not match, which rule decides and what it does.
//!
//! It decides a second time what Envoy decides, by what the language of the users means and not by what it is translated to: a
//! mistake in the translation is not repeated here. That both say the same is tested against a real Envoy, on
//! generated routes and requests (`e2e/tests/explain.rs`). What Envoy does to a request before it looks at routes is in
//! `arrival`, what a rule looks at in `condition`, what it does in `destination` and `policy`.
//!
//! Patches are not understood, only named: they can change everything.
//!
//! Invariant: the work for a request is bounded by the rules that claim its host on the listeners of one fleet.

mod arrival;
mod condition;
mod destination;
mod explanation;
mod guard;
mod host;
mod path;
mod pattern;
mod policy;
mod request;
mod rewrite;
mod tcp;
mod traffic;

use std::{cell::RefCell, collections::HashMap, rc::Rc};

pub use explanation::{
    AtListener, CorsPolicy, Destination, Explanation, FaultPolicy, Guard, HeaderEdits, KeyValue, LimitPolicy,
    MirrorPolicy, PassedOver, Policies, RetryPolicy, Seen, SessionPolicy, Share, Source, Unmet, VirtualHost,
};
pub use request::{InvalidRequest, Request};
pub use traffic::{Goal, Moved, moved};

use crate::model::{
    Catalog, Entry, Key, Kind, Name,
    envoy_patch::EnvoyResource,
    fleet::Fleet,
    listener::{Listener, ListenerProtocol},
    route::{
        Action, Forward, HostPattern, Target,
        order::{self, Claim},
    },
    service::SessionAffinity,
};
use arrival::{Arrived, Refusal};
use condition::conditions;
use pattern::Patterns;

/// How many rules that were passed over are told of: those that came closest to the request.
const MOST_PASSED_OVER: usize = 50;

/// Explains requests to one catalog. What it works out about the catalog it keeps for the next request.
#[derive(Debug)]
pub struct Explainer<'a> {
    catalog: &'a Catalog,
    revision: u64,
    patterns: Patterns,
    claims: RefCell<HashMap<(Name, HostPattern), Claims<'a>>>,
}

/// The rules for a host on a listener, in the order in which they are tried.
type Claims<'a> = Rc<[Claim<'a>]>;

/// What a listener does with a request.
struct Decision<'a> {
    arrived: Result<Arrived, Refusal>,
    host: Option<HostPattern>,
    claims: Claims<'a>,
    /// Which of the claims.
    chosen: Option<usize>,
}

/// Rules that were passed over.
#[derive(Default)]
struct Passed {
    /// Those that came closest, in their order.
    told: Vec<PassedOver>,
    /// How many others there were.
    omitted: usize,
    /// The one that came closest.
    nearest: Option<Source>,
}

impl<'a> Explainer<'a> {
    /// One for `catalog`, which is that of `revision`.
    pub fn new(catalog: &'a Catalog, revision: u64) -> Self {
        Self { catalog, revision, patterns: Patterns::default(), claims: RefCell::default() }
    }

    /// What becomes of `request` on `fleet`; `None` if there is no such fleet.
    pub fn explain(&self, fleet: &Name, request: &Request) -> Option<Explanation> {
        let fleet = self.catalog.fleet(fleet)?;
        let mut notes = Vec::new();
        let listeners = self.listeners_for(fleet, request, &mut notes);
        let listeners = listeners.into_iter().map(|listener| self.at_listener(fleet, listener, request)).collect();
        let others = self.patches(fleet, |resource| match resource {
            EnvoyResource::Listener(name) => name.parse().map_or(true, |name| self.catalog.listener(&name).is_none()),
            _ => false,
        });
        notes.extend(
            others.iter().map(|patch| format!("{} adds a listener, of which nothing is said here", patch.resource)),
        );
        Some(Explanation {
            revision: self.revision,
            fleet: self.source(Kind::Fleet, &fleet.name, ""),
            listeners,
            notes,
        })
    }

    /// The listeners of `fleet` that `request` could come to: by the port that it names, by its scheme, by its host. What
    /// nothing of the fleet agrees with does not count, since something in front may have changed it.
    fn listeners_for(&self, fleet: &Fleet, request: &Request, notes: &mut Vec<String>) -> Vec<&'a Listener> {
        let mut chosen: Vec<&Listener> = self
            .catalog
            .listeners_of(&fleet.name)
            .filter_map(|name| self.catalog.listener(name))
            .map(AsRef::as_ref)
            .collect();
        if chosen.is_empty() {
            notes.push(format!("Fleet/{} has no listeners", fleet.name));
        }
        notes.extend(chosen.iter().filter_map(|listener| tcp::carries(self.catalog, listener, request)));
        chosen.retain(|listener| listener.protocol.is_http());
        let mut narrow =
            |chosen: &mut Vec<&Listener>, otherwise: Option<String>, agrees: &dyn Fn(&Listener) -> bool| {
                if chosen.iter().any(|listener| agrees(listener)) {
                    chosen.retain(|listener| agrees(listener));
                } else if !chosen.is_empty() {
                    notes.extend(otherwise);
                }
            };
        if let Some(port) = request.port() {
            let note =
                format!("no listener of Fleet/{} is bound to port {port}; all of them are looked at", fleet.name);
            narrow(&mut chosen, Some(note), &|listener| listener.port == port);
        }
        if let Some(scheme) = request.scheme() {
            let note = format!("no listener here speaks {scheme}; something in front of the fleet has to");
            narrow(&mut chosen, Some(note), &|listener| spoken(listener) == scheme);
        }
        let is_claimed = |listener: &Listener| {
            let arrived = arrival::arrive(request, listener, fleet);
            let host = arrived.map_or_else(|_| request.authority().to_owned(), |arrived| arrived.host);
            host::choose(self.catalog, &listener.name, &host).is_some()
        };
        narrow(&mut chosen, None, &is_claimed);
        chosen
    }

    fn decide(&self, fleet: &Fleet, listener: &Listener, request: &Request) -> Decision<'a> {
        let nothing = |arrived| Decision { arrived, host: None, claims: Rc::from([]), chosen: None };
        let arrived = match arrival::arrive(request, listener, fleet) {
            Ok(arrived) => arrived,
            Err(refusal) => return nothing(Err(refusal)),
        };
        let Some(host) = host::choose(self.catalog, &listener.name, &arrived.host) else {
            return nothing(Ok(arrived));
        };
        let claims = self.claims(&listener.name, &host);
        let chosen = claims.iter().position(|claim| self.matches(claim, &arrived));
        if let Some(refusal) = chosen.and_then(|index| arrived.refused_by(claims[index].rule)) {
            return nothing(Err(refusal));
        }
        Decision { arrived: Ok(arrived), host: Some(host), claims, chosen }
    }

    /// The rules for a host on a listener, in the order in which they are tried.
    fn claims(&self, listener: &Name, host: &HostPattern) -> Claims<'a> {
        let merged = || {
            let routes = self.catalog.routes_claiming(listener, host);
            order::merge(routes.filter_map(|name| self.catalog.route(name)).map(AsRef::as_ref)).collect()
        };
        self.claims.borrow_mut().entry((listener.clone(), host.clone())).or_insert_with(merged).clone()
    }

    /// Whether a rule is for the request, or for a question that a browser asks about such requests.
    fn matches(&self, claim: &Claim<'_>, arrived: &Arrived) -> bool {
        let matches = &claim.rule.matches;
        let answers_preflights = matches!(&claim.rule.action, Action::Forward(Forward { cors: Some(_), .. }));
        (answers_preflights && condition::is_preflight_of(matches, arrived, &self.patterns))
            || conditions(matches).all(|condition| condition.holds(arrived, &self.patterns))
    }

    fn at_listener(&self, fleet: &Fleet, listener: &Listener, request: &Request) -> AtListener {
        let Decision { arrived, host, claims, chosen } = self.decide(fleet, listener, request);
        let claim = chosen.map(|index| claims[index]);
        let (mut passed, mut policies, mut notes) = (Passed::default(), None, Vec::new());
        if let Ok(arrived) = &arrived {
            passed = self.passed_over(&claims[..chosen.unwrap_or(claims.len())], arrived);
            policies = claim.and_then(|claim| self.policies(fleet, &claim, arrived));
            notes = arrived.notes(&claims, chosen);
            notes.extend(claim.and_then(|claim| destination::of_tunnel(claim.rule)).map(str::to_owned));
        }
        AtListener {
            listener: self.source(Kind::Listener, &listener.name, ""),
            protocol: spoken(listener).to_owned(),
            port: listener.port,
            request: arrived.as_ref().ok().map(Arrived::seen),
            virtual_host: host.as_ref().map(|host| self.virtual_host(listener, host)),
            passed_over: passed.told,
            passed_over_omitted: passed.omitted,
            nearest: passed.nearest.filter(|_| chosen.is_none()),
            rule: claim.map(|claim| self.rule_source(&claim, "")),
            guards: self.guards(listener, claim.as_ref()),
            destination: self.destination(&arrived, claim.as_ref()),
            policies,
            response_headers: claim.and_then(|claim| self.answer_headers(&claim)),
            patches: self.patches_here(fleet, listener, claim.as_ref()),
            notes,
        }
    }

    fn virtual_host(&self, listener: &Listener, host: &HostPattern) -> VirtualHost {
        let routes = self.catalog.routes_claiming(&listener.name, host);
        let because = match host {
            HostPattern::Exact(_) => "it is this host",
            HostPattern::Suffix(_) => "no route claims the host itself, and this is the longest wildcard for it",
            HostPattern::Any => "no route claims the host itself or by a wildcard of its domain",
        };
        VirtualHost {
            host: host.to_string(),
            because: because.to_owned(),
            routes: routes.map(|route| self.source(Kind::Route, route, "")).collect(),
        }
    }

    /// What of `claims`, all of which did not match, is told.
    fn passed_over(&self, claims: &[Claim<'_>], arrived: &Arrived) -> Passed {
        let distance = |claim: &Claim<'_>| condition::distance(&claim.rule.matches, arrived, &self.patterns);
        let mut ranked: Vec<_> = claims.iter().enumerate().map(|(index, claim)| (distance(claim), index)).collect();
        ranked.sort_unstable();
        let nearest = ranked.first().map(|(_, index)| self.rule_source(&claims[*index], ""));
        let omitted = ranked.len().saturating_sub(MOST_PASSED_OVER);
        ranked.truncate(MOST_PASSED_OVER);
        ranked.sort_unstable_by_key(|(_, index)| *index);
        let told = ranked.into_iter().map(|(_, index)| {
            let claim = &claims[index];
            let written = &self.document(claim)["match"];
            let unmet = conditions(&claim.rule.matches).filter(|condition| !condition.holds(arrived, &self.patterns));
            let unmet = unmet.map(|condition| condition.unmet(claim.index, written, arrived)).collect();
            PassedOver { rule: self.rule_source(claim, ""), unmet }
        });
        Passed { told: told.collect(), omitted, nearest }
    }

    /// What becomes of a request that has arrived, or not, and was taken by a rule, or by none.
    fn destination(&self, arrived: &Result<Arrived, Refusal>, claim: Option<&Claim<'_>>) -> Destination {
        match (arrived, claim) {
            (Err(Refusal { status, location, because }), _) => {
                Destination::Refused { status: *status, location: location.clone(), because: because.clone() }
            }
            (Ok(_), None) => Destination::NoRoute { status: 404 },
            (Ok(arrived), Some(claim)) => {
                destination::of(claim.rule, arrived, &self.patterns, |target, of| self.share(target, of))
            }
        }
    }

    /// What `target` gets, `of` all weights together.
    fn share(&self, target: &Target, of: u64) -> Share {
        let Target { service, subset, weight } = target;
        let affinity = self.catalog.service(service).and_then(|service| service.session_affinity.as_ref());
        let session = affinity.map(|affinity| SessionPolicy {
            from: self.source(Kind::Service, service, "spec.sessionAffinity"),
            by: match affinity {
                SessionAffinity::Cookie { name, .. } => format!("cookie {name}"),
                SessionAffinity::Header(name) => format!("header {name}"),
            },
        });
        let service = self.source(Kind::Service, service, "");
        Share { service, subset: subset.clone(), weight: *weight, of, session }
    }

    /// The patches that have a say here.
    fn patches_here(&self, fleet: &Fleet, listener: &Listener, claim: Option<&Claim<'_>>) -> Vec<Source> {
        let is_target = |cluster: &str| match claim.map(|claim| &claim.rule.action) {
            Some(Action::Forward(forward)) => forward.to.iter().any(|target| target.service.as_str() == cluster),
            _ => false,
        };
        self.patches(fleet, |resource| match resource {
            EnvoyResource::Listener(name) | EnvoyResource::RouteConfiguration(name) => *name == listener.name.as_str(),
            EnvoyResource::VirtualHost(place, _) => *place == listener.name,
            EnvoyResource::Cluster(name) | EnvoyResource::Endpoints(name) => is_target(name),
            EnvoyResource::Secret(_) | EnvoyResource::Runtime(_) => false,
        })
    }

    fn patches(&self, fleet: &Fleet, wanted: impl Fn(&EnvoyResource) -> bool) -> Vec<Source> {
        let patches = self.catalog.patches_of(&fleet.name).filter_map(|name| self.catalog.envoy_patch(name));
        let patches = patches.filter(|patch| wanted(patch.resource()));
        patches.map(|patch| self.source(Kind::EnvoyPatch, &patch.name, "")).collect()
    }

    fn entry(&self, kind: Kind, name: &Name) -> Option<&'a Entry> {
        self.catalog.entry(&Key::new(kind, name.clone())).map(AsRef::as_ref)
    }

    fn source(&self, kind: Kind, name: &Name, path: impl Into<String>) -> Source {
        let revision = self.entry(kind, name).map_or(0, |entry| entry.revision);
        Source { resource: format!("{kind}/{name}"), path: path.into(), revision }
    }

    /// The rule of a claim, or a place in it.
    fn rule_source(&self, claim: &Claim<'_>, place: &str) -> Source {
        self.source(Kind::Route, &claim.route.name, format!("spec.rules[{}]{place}", claim.index))
    }

    /// The rule of a claim as it is written.
    fn document(&self, claim: &Claim<'_>) -> &'a serde_json::Value {
        let entry = self.entry(Kind::Route, &claim.route.name);
        entry.map_or(&serde_json::Value::Null, |entry| &entry.document.spec["rules"][claim.index])
    }
}

/// The scheme of URLs that lead to a listener.
fn spoken(listener: &Listener) -> &'static str {
    match listener.protocol {
        ListenerProtocol::Http => "http",
        ListenerProtocol::Https(_) => "https",
        ListenerProtocol::Tcp => "tcp",
        ListenerProtocol::TlsPassthrough => "tls",
    }
}

#[cfg(test)]
mod tests;
