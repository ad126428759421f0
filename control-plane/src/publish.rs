//! What each fleet is served: translated changes on their way into the caches.
//!
//! One cache per fleet, filled by revision: the cache's sequence is the revision's number, so "this
//! proxy has applied revision 7" needs no bookkeeping of its own.
//!
//! Routes are translated one virtual host at a time. They are joined here to the RouteConfiguration of
//! their listener, from encoded pieces: an edit costs the translation of its own hosts, and one copy.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use chancery_proto::type_url;
use chancery_xds::{Cache, Resource, Update};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    model::{Name, route::HostPattern},
    translate::{
        route::route_configuration,
        snapshot::{FleetChange, FleetChanges, ResourceId},
    },
};

/// The caches of all fleets.
#[derive(Default)]
pub struct Publisher {
    fleets: Mutex<HashMap<Name, Fleet>>,
}

/// What the streams of a fleet are served from.
#[derive(Clone, Default)]
pub struct Served {
    /// The resources.
    pub cache: Arc<Cache>,
    /// Cancelled when the fleet is deleted.
    pub ended: CancellationToken,
}

#[derive(Default)]
struct Fleet {
    served: Served,
    /// Per listener: its virtual hosts, encoded.
    virtual_hosts: BTreeMap<Name, BTreeMap<HostPattern, Bytes>>,
}

impl Publisher {
    /// No fleets yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the streams of a fleet are served from, if there is such a fleet.
    pub fn fleet(&self, fleet: &Name) -> Option<Served> {
        self.fleets.lock().get(fleet).map(|fleet| fleet.served.clone())
    }

    /// Brings the caches to `revision`.
    pub fn publish(&self, revision: u64, changes: BTreeMap<Name, FleetChanges>) {
        let mut fleets = self.fleets.lock();
        for (name, changes) in changes {
            match changes.fleet {
                FleetChange::Created | FleetChange::Kept => {
                    let fleet = fleets.entry(name).or_default();
                    let update = fleet.update(changes);
                    fleet.served.cache.apply(revision, update);
                }
                FleetChange::Deleted => {
                    if let Some(fleet) = fleets.remove(&name) {
                        fleet.served.ended.cancel();
                    }
                }
            }
        }
    }
}

impl Fleet {
    fn update(&mut self, changes: FleetChanges) -> Update {
        let listeners: Vec<Name> = changes.routes_changed().into_iter().cloned().collect();
        let mut update = Update::default();
        for (id, bytes) in changes.put {
            match id {
                ResourceId::VirtualHost(listener, host) => {
                    self.virtual_hosts.entry(listener).or_default().insert(host, bytes);
                }
                ResourceId::RouteConfiguration(listener) => {
                    self.virtual_hosts.entry(listener).or_default();
                }
                id => update.upsert(id.type_url(), Resource::new(id.type_url(), id.name(), &bytes)),
            }
        }
        for id in changes.removed {
            match id {
                ResourceId::VirtualHost(listener, host) => {
                    if let Some(hosts) = self.virtual_hosts.get_mut(&listener) {
                        hosts.remove(&host);
                    }
                }
                ResourceId::RouteConfiguration(listener) => {
                    self.virtual_hosts.remove(&listener);
                }
                id => update.remove(id.type_url(), id.name()),
            }
        }
        for listener in listeners {
            match self.virtual_hosts.get(&listener) {
                Some(hosts) => {
                    let joined = route_configuration(&listener, hosts.values().map(AsRef::as_ref));
                    update.upsert(type_url::ROUTE, Resource::new(type_url::ROUTE, listener.as_str(), &joined));
                }
                None => update.remove(type_url::ROUTE, listener.as_str()),
            }
        }
        update
    }
}
