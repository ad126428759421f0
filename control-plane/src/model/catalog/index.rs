//! The relations between the resources of a catalog, kept current change by change.
//!
//! A relation is one flat ordered map of pairs: most resources are related to very few others, for which a
//! collection of their own would cost far more than the pairs. Pairs are counted, so that one of them stays
//! as long as any resource gives rise to it.

use std::hash::{DefaultHasher, Hash, Hasher};

use imbl::OrdMap;

use crate::model::{
    Entry, Key, Name, Resource,
    envoy_patch::{EnvoyPatch, EnvoyResource, PatchChange},
    listener::{Call, Listener},
    route::{HostPattern, Match, Route},
};

/// Whether a resource comes or goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Add,
    Remove,
}

/// Which `B`s belong to an `A`, in order.
///
/// `None` is no member: it sorts before every `Some`, so a range that starts there holds all of an `A`.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::model) struct Relation<A: Ord + Clone, B: Ord + Clone>(OrdMap<(A, Option<B>), u32>);

impl<A: Ord + Clone, B: Ord + Clone> Default for Relation<A, B> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

impl<A: Ord + Clone, B: Ord + Clone> Relation<A, B> {
    fn step(&mut self, a: &A, b: &B, step: Step) {
        let key = (a.clone(), Some(b.clone()));
        let count = self.0.get(&key).copied().unwrap_or(0);
        match (step, count) {
            (Step::Add, _) => self.0.insert(key, count + 1),
            (Step::Remove, 0 | 1) => self.0.remove(&key),
            (Step::Remove, _) => self.0.insert(key, count - 1),
        };
    }

    /// All that belong to `a`.
    pub(in crate::model) fn of<'a>(&'a self, a: &A) -> impl Iterator<Item = &'a B> + use<'a, A, B> {
        let a = a.clone();
        self.0
            .range((a.clone(), None)..)
            .take_while(move |((other, _), _)| *other == a)
            .filter_map(|((_, b), _)| b.as_ref())
    }

    /// Whether `b` belongs to `a`.
    pub(in crate::model) fn contains(&self, a: &A, b: &B) -> bool {
        self.0.contains_key(&(a.clone(), Some(b.clone())))
    }
}

/// Every relation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::model) struct Indexes {
    /// Fleet to listeners.
    pub(in crate::model) listeners_of: Relation<Name, Name>,
    /// Fleet and port to listeners.
    pub(in crate::model) binds: Relation<(Name, u16), Name>,
    /// Listener to routes.
    pub(in crate::model) routes_on: Relation<Name, Name>,
    /// Service to routes.
    pub(in crate::model) routes_to: Relation<Name, Name>,
    /// Service to the listeners that call it themselves, such as for logs.
    pub(in crate::model) listeners_calling: Relation<Name, Name>,
    /// Fleet to the services whose endpoints are its proxies.
    pub(in crate::model) behind: Relation<Name, Name>,
    /// Fleet to services.
    pub(in crate::model) services_of: Relation<Name, Name>,
    /// Limit to routes.
    pub(in crate::model) routes_limited_by: Relation<Name, Name>,
    /// Fleet to limits.
    pub(in crate::model) limits_of: Relation<Name, Name>,
    /// Listener to hosts.
    pub(in crate::model) hosts_on: Relation<Name, HostPattern>,
    /// Listener and host to routes.
    pub(in crate::model) claims: Relation<(Name, HostPattern), Name>,
    /// Digest of listener, host and match to the rules (route, index) that have them; see [`digest`].
    pub(in crate::model) matches: Relation<u64, (Name, usize)>,
    /// Team to what names it as its own.
    pub(in crate::model) owned_by: Relation<Name, Key>,
    /// Fleet to patches.
    pub(in crate::model) patches_of: Relation<Name, Name>,
    /// Fleet and resource of Envoy to the patches that add or change it.
    pub(in crate::model) patches_on: Relation<(Name, EnvoyResource), Name>,
    /// Resource of Envoy to the patches that add it, in whatever fleet.
    pub(in crate::model) added_by: Relation<EnvoyResource, Name>,
    /// What patches cannot be without, to these patches.
    pub(in crate::model) needed_by: Relation<Key, Name>,
}

impl Indexes {
    pub(super) fn step(&mut self, entry: &Entry, step: Step) {
        if let Some(team) = &entry.document.team {
            self.owned_by.step(team, &entry.resource.key(), step);
        }
        match &entry.resource {
            Resource::Fleet(_) | Resource::Team(_) | Resource::RateLimit(_) => {}
            Resource::Service(service) => {
                if let Some(fleet) = service.behind() {
                    self.behind.step(fleet, &service.name, step);
                }
            }
            Resource::Listener(listener) => self.listener(listener, step),
            Resource::Route(route) => self.route(route, step),
            Resource::EnvoyPatch(patch) => self.patch(patch, step),
        }
    }

    fn listener(&mut self, listener: &Listener, step: Step) {
        self.listeners_of.step(&listener.fleet, &listener.name, step);
        self.binds.step(&(listener.fleet.clone(), listener.port), &listener.name, step);
        for Call { service, .. } in listener.calls() {
            self.listeners_calling.step(service, &listener.name, step);
            self.services_of.step(&listener.fleet, service, step);
        }
    }

    fn patch(&mut self, patch: &EnvoyPatch, step: Step) {
        self.patches_of.step(&patch.fleet, &patch.name, step);
        self.patches_on.step(&(patch.fleet.clone(), patch.resource().clone()), &patch.name, step);
        if let PatchChange::Add { resource, .. } = &patch.change {
            self.added_by.step(resource, &patch.name, step);
        }
        if let Some(needed) = patch.needs() {
            self.needed_by.step(&needed, &patch.name, step);
        }
    }

    fn route(&mut self, route: &Route, step: Step) {
        let services = route.services();
        for service in &services {
            self.routes_to.step(service, &route.name, step);
        }
        let limits = route.rate_limits();
        for limit in &limits {
            self.routes_limited_by.step(limit, &route.name, step);
        }
        for place in &route.listeners {
            self.routes_on.step(&place.listener, &route.name, step);
            for service in &services {
                self.services_of.step(&place.fleet, service, step);
            }
            for limit in &limits {
                self.limits_of.step(&place.fleet, limit, step);
            }
            for host in &route.hosts {
                self.hosts_on.step(&place.listener, host, step);
                self.claims.step(&(place.listener.clone(), host.clone()), &route.name, step);
                for (index, rule) in route.rules.iter().enumerate() {
                    let digest = digest(&place.listener, host, &rule.matches);
                    self.matches.step(&digest, &(route.name.clone(), index), step);
                }
            }
        }
    }
}

/// Stands for a listener, a host and a match. Different ones may share a digest, so what it finds is to be compared.
pub(in crate::model) fn digest(listener: &Name, host: &HostPattern, matches: &Match) -> u64 {
    let mut hasher = DefaultHasher::new();
    (listener, host, matches).hash(&mut hasher);
    hasher.finish()
}
