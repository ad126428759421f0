//! What each fleet is served: translated changes on their way into the caches.
//!
//! A cache is filled by revision: its sequence is the revision's number, so "this proxy has applied
//! revision 7" needs no bookkeeping of its own.
//!
//! Routes are translated one virtual host at a time, and an Envoy that can take them so (VHDS) is sent
//! only the host that changed. For all others they are joined to the RouteConfiguration of their listener, from
//! encoded pieces; that second cache is filled when the first such client comes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use chancery_proto::{Message, type_url};
use chancery_xds::{Cache, Resource, Update};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    model::{Name, route::HostPattern},
    translate::{
        route::{placeholder, route_configuration},
        snapshot::{FleetChange, FleetChanges, ResourceId},
    },
};

/// The caches of all fleets.
#[derive(Default)]
pub struct Publisher {
    fleets: Mutex<HashMap<Name, Fleet>>,
}

/// The form in which a client gets its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteForm {
    /// One virtual host at a time (VHDS).
    ByHost,
    /// One RouteConfiguration per listener, with everything in it.
    Whole,
}

/// What a stream is served from.
#[derive(Clone)]
pub struct Served {
    /// The resources.
    pub cache: Arc<Cache>,
    /// Cancelled when the fleet is deleted.
    pub ended: CancellationToken,
}

#[derive(Default)]
struct Fleet {
    by_host: Arc<Cache>,
    whole: Option<Arc<Cache>>,
    ended: CancellationToken,
    /// Per listener: its virtual hosts, encoded.
    virtual_hosts: BTreeMap<Name, BTreeMap<HostPattern, Bytes>>,
}

impl Publisher {
    /// No fleets yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a stream of a fleet is served from, if there is such a fleet.
    pub fn serve(&self, fleet: &Name, form: RouteForm) -> Option<Served> {
        let mut fleets = self.fleets.lock();
        let fleet = fleets.get_mut(fleet)?;
        let cache = match form {
            RouteForm::ByHost => fleet.by_host.clone(),
            RouteForm::Whole => fleet.whole(),
        };
        Some(Served { cache, ended: fleet.ended.clone() })
    }

    /// Brings the caches to `revision`.
    pub fn publish(&self, revision: u64, changes: BTreeMap<Name, FleetChanges>) {
        let mut fleets = self.fleets.lock();
        for (name, changes) in changes {
            match changes.fleet {
                FleetChange::Created | FleetChange::Kept => {
                    fleets.entry(name).or_default().publish(revision, changes);
                }
                FleetChange::Deleted => {
                    if let Some(fleet) = fleets.remove(&name) {
                        fleet.ended.cancel();
                    }
                }
            }
        }
    }
}

impl Fleet {
    fn publish(&mut self, revision: u64, changes: FleetChanges) {
        let routes_changed: BTreeSet<Name> = changes.routes_changed().into_iter().cloned().collect();
        let mut by_host = Update::default();
        let mut whole = Update::default();
        for (id, bytes) in changes.put {
            let resource = Resource::new(id.type_url(), id.name(), &bytes);
            if id.routes_of().is_none() {
                whole.upsert(id.type_url(), resource.clone());
            }
            by_host.upsert(id.type_url(), resource);
            match id {
                ResourceId::VirtualHost(listener, host) => {
                    self.virtual_hosts.entry(listener).or_default().insert(host, bytes);
                }
                ResourceId::RouteConfiguration(listener) => {
                    let nobody = placeholder(&listener);
                    let resource = Resource::new(type_url::VIRTUAL_HOST, nobody.name.as_str(), &nobody.encode_to_vec());
                    by_host.upsert(type_url::VIRTUAL_HOST, resource);
                    self.virtual_hosts.entry(listener).or_default();
                }
                ResourceId::RateLimiter
                | ResourceId::Cluster(_)
                | ResourceId::Endpoints(_)
                | ResourceId::Listener(_) => {}
            }
        }
        for id in changes.removed {
            by_host.remove(id.type_url(), id.name());
            if id.routes_of().is_none() {
                whole.remove(id.type_url(), id.name());
            }
            match id {
                ResourceId::VirtualHost(listener, host) => {
                    if let Some(hosts) = self.virtual_hosts.get_mut(&listener) {
                        hosts.remove(&host);
                    }
                }
                ResourceId::RouteConfiguration(listener) => {
                    by_host.remove(type_url::VIRTUAL_HOST, placeholder(&listener).name);
                    self.virtual_hosts.remove(&listener);
                }
                ResourceId::RateLimiter
                | ResourceId::Cluster(_)
                | ResourceId::Endpoints(_)
                | ResourceId::Listener(_) => {}
            }
        }
        self.by_host.apply(revision, by_host);
        if let Some(cache) = &self.whole {
            for listener in routes_changed {
                match self.joined_routes(&listener) {
                    Some(routes) => whole.upsert(type_url::ROUTE, routes),
                    None => whole.remove(type_url::ROUTE, listener.as_str()),
                }
            }
            cache.apply(revision, whole);
        }
    }

    /// The cache for clients that take routes only whole, filled with what there is if it is new.
    fn whole(&mut self) -> Arc<Cache> {
        if let Some(cache) = &self.whole {
            return cache.clone();
        }
        let cache = Arc::new(Cache::new());
        let mut update = Update::default();
        {
            let tables = self.by_host.read();
            for type_url in [type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER] {
                for resource in tables.table(type_url).resources() {
                    update.upsert(type_url, resource.clone());
                }
            }
        }
        for routes in self.virtual_hosts.keys().filter_map(|listener| self.joined_routes(listener)) {
            update.upsert(type_url::ROUTE, routes);
        }
        cache.apply(self.by_host.head(), update);
        self.whole = Some(cache.clone());
        cache
    }

    fn joined_routes(&self, listener: &Name) -> Option<Resource> {
        let hosts = self.virtual_hosts.get(listener)?;
        let joined = route_configuration(listener, hosts.values().map(AsRef::as_ref));
        Some(Resource::new(type_url::ROUTE, listener.as_str(), &joined))
    }
}
