//! All resources together, consistent, at one revision.
//!
//! A catalog never changes: [`Catalog::apply`] makes the next one, which shares everything with this one but what
//! the change touched, or says everything that is wrong with the change. Beside the resources it keeps the
//! relations between them (`index`), so that checking a change and translating it cost what the change costs,
//! however much else there is.
//!
//! Invariants: every reference leads to a resource of the catalog; the relations are exactly those of the resources.

use std::{
    collections::BTreeSet,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use imbl::{OrdMap, ordmap::DiffItem};
use time::OffsetDateTime;

use super::{
    Document, Key, Kind, Name, Problem, Problems, Resource, check,
    envoy_patch::{EnvoyPatch, EnvoyResource},
    fleet::Fleet,
    listener::Listener,
    rate_limit::RateLimit,
    references::references,
    route::{HostPattern, Route},
    service::Service,
    team::Team,
};

mod index;

pub(super) use index::digest;
use index::{Indexes, Step};

/// A resource of the catalog: as it is written, what it means, and who last changed it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What the user wrote.
    pub document: Arc<Document>,
    /// What it means.
    pub resource: Resource,
    /// The revision that last changed it.
    pub revision: u64,
    /// When that was.
    pub updated_at: OffsetDateTime,
    /// Who did it.
    pub updated_by: String,
}

/// All resources; cloning is cheap.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalog {
    /// By kind, in the order of [`Kind::ALL`].
    entries: [OrdMap<Name, Arc<Entry>>; Kind::ALL.len()],
    indexes: Indexes,
}

impl Catalog {
    /// The catalog before the first revision.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A catalog of `entries`, or all that is wrong with them.
    pub fn load(entries: impl IntoIterator<Item = Entry>) -> Result<Self, Vec<Problem>> {
        Self::empty().apply(entries.into_iter().map(|entry| (entry.resource.key(), Some(entry))).collect())
    }

    /// The next catalog: every key is put to its entry, or deleted for want of one. Or all that is wrong with that,
    /// sorted. Deleting what is not there changes nothing.
    pub fn apply(&self, changes: Vec<(Key, Option<Entry>)>) -> Result<Self, Vec<Problem>> {
        let (next, problems) = self.next(changes, &[]);
        if problems.is_empty() { Ok(next) } else { Err(problems.into_sorted_vec()) }
    }

    /// What is wrong with a change of which the documents `unread` could not be parsed, besides that: in the
    /// rest of it, and in what they refer to.
    pub fn problems_beside(&self, changes: Vec<(Key, Option<Entry>)>, unread: &[&Document]) -> Vec<Problem> {
        self.next(changes, unread).1.into_sorted_vec()
    }

    fn next(&self, changes: Vec<(Key, Option<Entry>)>, unread: &[&Document]) -> (Self, Problems) {
        let mut problems = Problems::default();
        let mut next = self.clone();
        let mut changed = BTreeSet::new();
        for (key, entry) in changes {
            debug_assert!(entry.as_ref().is_none_or(|entry| entry.resource.key() == key));
            next.put(&key, entry);
            if !changed.insert(key.clone()) {
                problems.about(key.to_string()).report("is changed more than once");
            }
        }
        let unread_keys: BTreeSet<Key> = unread.iter().map(|document| document.key()).collect();
        check::check(&next, &changed, &unread_keys, &mut problems);
        for document in unread {
            for (path, key) in references(document) {
                if check::is_missing(&next, &unread_keys, &key) {
                    let mut problems = problems.about(document.key().to_string());
                    problems.at_path(&path).report(check::missing(&key));
                }
            }
        }
        (next, problems)
    }

    fn put(&mut self, key: &Key, entry: Option<Entry>) {
        let entries = &mut self.entries[key.kind as usize];
        let before = match entry {
            Some(entry) => {
                self.indexes.step(&entry, Step::Add);
                entries.insert(key.name.clone(), Arc::new(entry))
            }
            None => entries.remove(&key.name),
        };
        if let Some(before) = before {
            self.indexes.step(&before, Step::Remove);
        }
    }

    /// A resource.
    pub fn entry(&self, key: &Key) -> Option<&Arc<Entry>> {
        self.entries[key.kind as usize].get(&key.name)
    }

    /// The resources of a kind, in the order of their names.
    pub fn entries(&self, kind: Kind) -> impl DoubleEndedIterator<Item = &Arc<Entry>> {
        self.entries[kind as usize].values()
    }

    /// The resources of a kind with names above `name`, in the order of their names.
    pub fn entries_after(&self, kind: Kind, name: &Name) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries[kind as usize].range::<_, Name>((Excluded(name), Unbounded)).map(|(_, entry)| entry)
    }

    /// The resources that are not the same in `other`, or in one of the two only. What they share costs little.
    pub fn different(&self, other: &Self) -> Vec<Key> {
        let mut keys = Vec::new();
        for (kind, (ours, theirs)) in Kind::ALL.into_iter().zip(self.entries.iter().zip(&other.entries)) {
            let key = |name: &Name| Key::new(kind, name.clone());
            keys.extend(ours.diff(theirs).filter_map(|item| match item {
                DiffItem::Add(name, _) | DiffItem::Remove(name, _) => Some(key(name)),
                DiffItem::Update { old: (name, before), new: (_, after) } => (before != after).then(|| key(name)),
            }));
        }
        keys
    }

    /// How many resources of a kind there are.
    pub fn len(&self, kind: Kind) -> usize {
        self.entries[kind as usize].len()
    }

    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.entries.iter().all(OrdMap::is_empty)
    }

    fn resource(&self, kind: Kind, name: &Name) -> Option<&Resource> {
        self.entries[kind as usize].get(name).map(|entry| &entry.resource)
    }

    /// A fleet.
    pub fn fleet(&self, name: &Name) -> Option<&Arc<Fleet>> {
        match self.resource(Kind::Fleet, name) {
            Some(Resource::Fleet(fleet)) => Some(fleet),
            _ => None,
        }
    }

    /// A listener.
    pub fn listener(&self, name: &Name) -> Option<&Arc<Listener>> {
        match self.resource(Kind::Listener, name) {
            Some(Resource::Listener(listener)) => Some(listener),
            _ => None,
        }
    }

    /// A team.
    pub fn team(&self, name: &Name) -> Option<&Arc<Team>> {
        match self.resource(Kind::Team, name) {
            Some(Resource::Team(team)) => Some(team),
            _ => None,
        }
    }

    /// A service.
    pub fn service(&self, name: &Name) -> Option<&Arc<Service>> {
        match self.resource(Kind::Service, name) {
            Some(Resource::Service(service)) => Some(service),
            _ => None,
        }
    }

    /// A limit.
    pub fn rate_limit(&self, name: &Name) -> Option<&Arc<RateLimit>> {
        match self.resource(Kind::RateLimit, name) {
            Some(Resource::RateLimit(limit)) => Some(limit),
            _ => None,
        }
    }

    /// A route.
    pub fn route(&self, name: &Name) -> Option<&Arc<Route>> {
        match self.resource(Kind::Route, name) {
            Some(Resource::Route(route)) => Some(route),
            _ => None,
        }
    }

    /// A patch.
    pub fn envoy_patch(&self, name: &Name) -> Option<&Arc<EnvoyPatch>> {
        match self.resource(Kind::EnvoyPatch, name) {
            Some(Resource::EnvoyPatch(patch)) => Some(patch),
            _ => None,
        }
    }

    /// Every fleet, in the order of their names.
    pub fn fleets(&self) -> impl Iterator<Item = &Arc<Fleet>> {
        self.entries(Kind::Fleet).filter_map(|entry| match &entry.resource {
            Resource::Fleet(fleet) => Some(fleet),
            _ => None,
        })
    }

    /// The listeners of a fleet.
    pub fn listeners_of(&self, fleet: &Name) -> impl Iterator<Item = &Name> {
        self.indexes.listeners_of.of(fleet)
    }

    /// The routes on a listener.
    pub fn routes_on(&self, listener: &Name) -> impl Iterator<Item = &Name> {
        self.indexes.routes_on.of(listener)
    }

    /// The routes with a rule that sends to a service.
    pub fn routes_to(&self, service: &Name) -> impl Iterator<Item = &Name> {
        self.indexes.routes_to.of(service)
    }

    /// The hosts that routes claim on a listener, each once.
    pub fn hosts_on(&self, listener: &Name) -> impl Iterator<Item = &HostPattern> {
        self.indexes.hosts_on.of(listener)
    }

    /// The routes that claim just this host on a listener.
    pub fn routes_claiming(&self, listener: &Name, host: &HostPattern) -> impl Iterator<Item = &Name> {
        self.indexes.claims.of(&(listener.clone(), host.clone()))
    }

    /// The services that a listener of the fleet, or a route on one, sends to, each once.
    pub fn services_of(&self, fleet: &Name) -> impl Iterator<Item = &Name> {
        self.indexes.services_of.of(fleet)
    }

    /// Whether a listener of the fleet, or a route on one, sends to the service.
    pub fn fleet_uses(&self, fleet: &Name, service: &Name) -> bool {
        self.indexes.services_of.contains(fleet, service)
    }

    /// The routes with a rule that a limit applies to.
    pub fn routes_limited_by(&self, limit: &Name) -> impl Iterator<Item = &Name> {
        self.indexes.routes_limited_by.of(limit)
    }

    /// The limits that apply to a route on a listener of the fleet, each once.
    pub fn limits_of(&self, fleet: &Name) -> impl Iterator<Item = &Name> {
        self.indexes.limits_of.of(fleet)
    }

    /// Whether a limit applies to a route on a listener of the fleet.
    pub fn fleet_is_limited_by(&self, fleet: &Name, limit: &Name) -> bool {
        self.indexes.limits_of.contains(fleet, limit)
    }

    /// What names this team as its own, whether there is such a team or not.
    pub fn owned_by(&self, team: &Name) -> impl Iterator<Item = &Key> {
        self.indexes.owned_by.of(team)
    }

    /// The patches of a fleet.
    pub fn patches_of(&self, fleet: &Name) -> impl Iterator<Item = &Name> {
        self.indexes.patches_of.of(fleet)
    }

    /// The patches that add or change this resource of a fleet.
    pub fn patches_of_resource<'a>(
        &'a self,
        fleet: &Name,
        resource: &EnvoyResource,
    ) -> impl Iterator<Item = &'a Name> + use<'a> {
        // Most catalogs have none, and every resource asks.
        let some = self.len(Kind::EnvoyPatch) > 0;
        some.then(|| self.indexes.patches_on.of(&(fleet.clone(), resource.clone()))).into_iter().flatten()
    }

    /// The relations, for the check.
    pub(super) fn indexes(&self) -> &Indexes {
        &self.indexes
    }
}

#[cfg(test)]
pub(super) mod tests;
