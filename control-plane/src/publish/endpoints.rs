//! Endpoints that registered themselves, on their way into the caches.
//!
//! The catalog knows nothing of them, so what is served of a service is put together here: the assignment as the catalog has it
//! (and patches made it), then what is registered, if the service takes that. Whatever of the two changes, only the assignment
//! is published anew: no cluster, no listener, no route.
//!
//! Invariant: [`Registered`] is locked only by who holds the lock on the fleets.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;

use super::{Fleet, Known, Publisher, Track};
use crate::{
    model::{Catalog, Key, Kind, Name, Resource},
    translate::snapshot::{FleetChanges, ResourceId},
};

/// What is registered, and which services take it.
#[derive(Default)]
pub(super) struct Registered {
    taking: HashSet<Name>,
    /// Per service: what is to be added to its assignment.
    encoded: HashMap<Name, Bytes>,
}

impl Registered {
    /// Notes which services take registrations now, and says for which of them that makes a difference.
    pub(super) fn take(&mut self, services: BTreeMap<Name, bool>) -> BTreeSet<Name> {
        let mut different = BTreeSet::new();
        for (service, takes) in services {
            let changed = if takes { self.taking.insert(service.clone()) } else { self.taking.remove(&service) };
            if changed && self.encoded.contains_key(&service) {
                different.insert(service);
            }
        }
        different
    }

    /// `taking` are the services that take registrations, if they are others than now.
    fn added_to(&self, assignment: &Bytes, service: &Name, taking: Option<&HashSet<Name>>) -> Bytes {
        match self.encoded.get(service).filter(|_| taking.unwrap_or(&self.taking).contains(service)) {
            Some(addition) => [assignment.as_ref(), addition].concat().into(),
            None => assignment.clone(),
        }
    }
}

/// Which of the services `changed` take registrations after the change.
pub(super) fn taking(after: &Catalog, changed: &[Key]) -> BTreeMap<Name, bool> {
    let services = changed.iter().filter(|key| key.kind == Kind::Service).map(|key| &key.name);
    services.map(|name| (name.clone(), after.service(name).is_some_and(|service| service.registered))).collect()
}

/// All services that take registrations.
pub(super) fn all_taking(catalog: &Catalog) -> BTreeMap<Name, bool> {
    let services = catalog.entries(Kind::Service).filter_map(|entry| match &entry.resource {
        Resource::Service(service) if service.registered => Some(service),
        _ => None,
    });
    services.map(|service| (service.name.clone(), true)).collect()
}

impl Publisher {
    /// Publishes what is registered of `services`: what is to be added to the assignment of each, or nothing.
    pub fn publish_endpoints(&self, services: BTreeMap<Name, Bytes>) {
        let mut fleets = self.fleets.lock();
        let mut registered = self.registered.lock();
        let different: BTreeSet<Name> = services.keys().cloned().collect();
        for (service, addition) in services {
            match addition.is_empty() {
                true => registered.encoded.remove(&service),
                false => registered.encoded.insert(service, addition),
            };
        }
        reassign(fleets.values_mut().flat_map(Fleet::tracks_mut), self.revision(), &different, &registered);
    }
}

/// Publishes the assignments of `services` anew, wherever there are any, as a step of `revision`.
pub(super) fn reassign<'a>(
    tracks: impl Iterator<Item = &'a mut Track>,
    revision: u64,
    services: &BTreeSet<Name>,
    registered: &Registered,
) {
    if services.is_empty() {
        return;
    }
    for track in tracks {
        let assignment =
            |service: &Name| Some((ResourceId::Endpoints(service.clone()), track.assignments.get(service)?.clone()));
        let put: BTreeMap<_, _> = services.iter().filter_map(assignment).collect();
        if !put.is_empty() {
            let changes = FleetChanges { put, ..FleetChanges::default() };
            track.publish(revision, changes, Known::Nothing, registered);
        }
    }
}

impl Track {
    /// Notes the assignments in `changes`, and adds to them what is registered.
    pub(super) fn add_registered(&mut self, changes: &mut FleetChanges, registered: &Registered) {
        for id in &changes.removed {
            if let ResourceId::Endpoints(service) = id {
                self.assignments.remove(service);
            }
        }
        for (id, bytes) in &mut changes.put {
            if let ResourceId::Endpoints(service) = id {
                let whole = registered.added_to(bytes, service, self.taking.as_ref());
                self.assignments.insert(service.clone(), std::mem::replace(bytes, whole));
            }
        }
    }
}
