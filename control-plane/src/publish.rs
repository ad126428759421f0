//! What each fleet is served, and what rate limiters are: translated changes on their way into the caches.
//!
//! A cache is filled by revision: its sequence says which, so "this proxy has applied revision 7" needs no bookkeeping of its
//! own. Between two revisions there are steps, in which a fleet takes back what a proxy has rejected: see [`Shelf`].
//!
//! Routes are translated one virtual host at a time, and an Envoy that can take them so (VHDS) is sent
//! only the host that changed. For all others they are joined to the RouteConfiguration of their listener, from
//! encoded pieces; that second cache is filled when the first such client comes. Where a listener wants them whole, both
//! forms are in either cache under two names, and a proxy asks for one of them.
//!
//! Limiters share one cache with the domains of all fleets: a limiter may be asked by any of them. Those that are
//! envoyproxy/ratelimit share another (`peers`).

mod endpoints;
mod peers;
mod quarantine;
mod shelf;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use chancery_proto::{Message, type_url};
use chancery_xds::{Cache, Resource, Update};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use quarantine::Place;
pub use shelf::{Cause, Id, Quarantined, Rejected, Shelf, revision_at, sequence_of};

use self::{endpoints::Registered, peers::Peers};
use crate::{
    model::{Catalog, Key, Name, listener::RouteDelivery, route::HostPattern},
    translate::{
        rate_limit,
        route::{placeholder, route_configuration, route_configuration_name},
        snapshot::{self, FleetChange, FleetChanges, ResourceId},
    },
};

/// The caches of all fleets, and that of the limiters.
#[derive(Default)]
pub struct Publisher {
    fleets: Mutex<HashMap<Name, Fleet>>,
    registered: Mutex<Registered>,
    limiters: Arc<Cache>,
    peers: Mutex<Option<Peers>>,
    /// The last that was published.
    revision: AtomicU64,
    quarantine_changed: Arc<Notify>,
}

/// What a revision changes for those who are served.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// For the proxies of each fleet.
    pub fleets: BTreeMap<Name, FleetChanges>,
    /// Which services take endpoints that register themselves, of those that changed.
    pub taking: BTreeMap<Name, bool>,
    /// For limiters: the new content of a domain, or that it is gone.
    pub domains: BTreeMap<Name, Option<Bytes>>,
}

/// The form in which a client gets its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// What hears of a proxy's verdicts on them; a limiter's are not asked for.
    pub shelf: Option<Arc<Shelf>>,
    /// Cancelled when the fleet is deleted.
    pub ended: CancellationToken,
}

#[derive(Default)]
struct Fleet {
    by_host: Arc<Shelf>,
    whole: Option<Arc<Shelf>>,
    ended: CancellationToken,
    /// Per listener: its virtual hosts, encoded.
    virtual_hosts: BTreeMap<Name, BTreeMap<HostPattern, Bytes>>,
    /// Listeners whose routes are there whole too, for proxies that take them either way. Not only those that want them so now:
    /// connections from the time before a change go on with what they had.
    also_whole: BTreeSet<Name>,
    /// Per service: its endpoints as the catalog has them, encoded.
    assignments: BTreeMap<Name, Bytes>,
    /// What patches add, which has one form for all clients.
    added: BTreeMap<ResourceId, Resource>,
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
        let shelf = match form {
            RouteForm::ByHost => fleet.by_host.clone(),
            RouteForm::Whole => fleet.whole(),
        };
        Some(Served { cache: shelf.cache().clone(), shelf: Some(shelf), ended: fleet.ended.clone() })
    }

    /// The revision that is published.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Whether there is such a fleet.
    pub fn has(&self, fleet: &Name) -> bool {
        self.fleets.lock().contains_key(fleet)
    }

    /// What is cancelled when the fleet is deleted, if there is such a fleet.
    pub fn ended(&self, fleet: &Name) -> Option<CancellationToken> {
        self.fleets.lock().get(fleet).map(|fleet| fleet.ended.clone())
    }

    /// What a limiter is served from.
    pub fn serve_limiter(&self) -> Served {
        Served { cache: self.limiters.clone(), shelf: None, ended: CancellationToken::new() }
    }

    /// What a limiter is served from that is envoyproxy/ratelimit.
    pub fn serve_peer(&self) -> Served {
        let mut peers = self.peers.lock();
        let peers = peers.get_or_insert_with(|| Peers::new(&self.limiters));
        Served { cache: peers.cache(), shelf: None, ended: CancellationToken::new() }
    }

    /// Fills the caches with what has been served before, at `revision`.
    pub fn load(&self, revision: u64, changes: Changes) {
        self.bring(revision, changes, false);
    }

    /// Brings the caches to `revision`, with what is new on trial. Limiters come first, so that they know a limit when proxies
    /// begin to ask about it.
    pub fn publish(&self, revision: u64, changes: Changes) {
        self.bring(revision, changes, true);
    }

    fn bring(&self, revision: u64, changes: Changes, on_trial: bool) {
        let mut fleets = self.fleets.lock();
        let mut peers = self.peers.lock();
        if let Some(peers) = &mut *peers {
            peers.publish(sequence_of(revision), &changes.domains);
        }
        let mut domains = Update::default();
        for (name, bytes) in changes.domains {
            match bytes {
                Some(bytes) => {
                    let resource = Resource::new(type_url::RATE_LIMIT_DOMAIN, name.as_str(), &bytes);
                    domains.upsert(type_url::RATE_LIMIT_DOMAIN, resource);
                }
                None => domains.remove(type_url::RATE_LIMIT_DOMAIN, name.as_str()),
            }
        }
        self.limiters.apply(sequence_of(revision), domains);
        drop(peers);
        let mut registered = self.registered.lock();
        let different = registered.take(changes.taking);
        for (name, changes) in changes.fleets {
            match changes.fleet {
                FleetChange::Created | FleetChange::Kept => {
                    fleets.entry(name).or_default().publish(revision, changes, on_trial, &registered);
                }
                FleetChange::Deleted => {
                    if let Some(fleet) = fleets.remove(&name) {
                        fleet.ended.cancel();
                    }
                }
            }
        }
        endpoints::reassign(fleets.values_mut(), revision, &different, &registered);
        self.revision.store(revision, Ordering::Release);
    }
}

impl Changes {
    /// Everything, for a start.
    pub fn full(catalog: &Catalog) -> Self {
        let domains = rate_limit::all(catalog).into_iter().map(|(name, bytes)| (name, Some(bytes))).collect();
        Self { fleets: snapshot::full(catalog), taking: endpoints::all_taking(catalog), domains }
    }

    /// What the changes to the resources `changed`, which lead from `before` to `after`, mean for everybody.
    pub fn between(before: &Catalog, after: &Catalog, changed: &[Key]) -> Self {
        Self {
            fleets: snapshot::changes(before, after, changed),
            taking: endpoints::taking(after, changed),
            domains: rate_limit::changes(before, after, changed),
        }
    }
}

impl Fleet {
    fn publish(&mut self, revision: u64, mut changes: FleetChanges, on_trial: bool, registered: &Registered) {
        self.add_registered(&mut changes, registered);
        let routes_changed: BTreeSet<Name> = changes.routes_changed().into_iter().cloned().collect();
        let mut by_host = Update::default();
        let mut whole = Update::default();
        for misfit in &changes.misfits {
            // Stored when it fitted: translation, or Envoy's messages, have changed since.
            let (patch, violation) = (&misfit.patch, &misfit.violation);
            tracing::warn!(%patch, %violation, "a patch does not fit, what it changes is served without it");
        }
        for (id, bytes) in changes.put {
            if let ResourceId::WholeRoutes(listener) = id {
                self.also_whole.insert(listener);
                continue;
            }
            let resource = Resource::new(id.type_url(), id.name(), &bytes);
            if id.routes_of().is_none() {
                whole.upsert(id.type_url(), resource.clone());
            }
            by_host.upsert(id.type_url(), resource.clone());
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
                id @ ResourceId::Added(_) => {
                    self.added.insert(id, resource);
                }
                ResourceId::RateLimiter
                | ResourceId::Cluster(_)
                | ResourceId::Endpoints(_)
                | ResourceId::Listener(_)
                | ResourceId::WholeRoutes(_) => {}
            }
        }
        for id in changes.removed.into_iter().filter(|id| !matches!(id, ResourceId::WholeRoutes(_))) {
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
                id @ ResourceId::Added(_) => {
                    self.added.remove(&id);
                }
                ResourceId::RateLimiter
                | ResourceId::Cluster(_)
                | ResourceId::Endpoints(_)
                | ResourceId::Listener(_)
                | ResourceId::WholeRoutes(_) => {}
            }
        }
        for listener in self.also_whole.intersection(&routes_changed) {
            let name = route_configuration_name(listener, RouteDelivery::Whole);
            for update in [&mut by_host, &mut whole] {
                match self.joined_routes(listener, &name) {
                    Some(routes) => update.upsert(type_url::ROUTE, routes),
                    None => update.remove(type_url::ROUTE, name.as_str()),
                }
            }
        }
        self.also_whole.retain(|listener| self.virtual_hosts.contains_key(listener));
        if on_trial {
            self.by_host.publish(revision, by_host);
        } else {
            self.by_host.fill(sequence_of(revision), by_host);
        }
        if let Some(shelf) = &self.whole {
            for listener in routes_changed {
                match self.joined_routes(&listener, listener.as_str()) {
                    Some(routes) => whole.upsert(type_url::ROUTE, routes),
                    None => whole.remove(type_url::ROUTE, listener.as_str()),
                }
            }
            shelf.publish(revision, whole);
        }
    }

    /// The shelf for clients that take routes only whole, filled with what there is if it is new.
    fn whole(&mut self) -> Arc<Shelf> {
        if let Some(shelf) = &self.whole {
            return shelf.clone();
        }
        let mut update = Update::default();
        {
            let tables = self.by_host.cache().snapshot();
            for type_url in [type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER] {
                for resource in tables.table(type_url).resources() {
                    update.upsert(type_url, resource.clone());
                }
            }
        }
        let by_listener = self.virtual_hosts.keys().map(|listener| (listener, listener.to_string()));
        let also = self.also_whole.iter();
        let also = also.map(|listener| (listener, route_configuration_name(listener, RouteDelivery::Whole)));
        for (listener, name) in by_listener.chain(also) {
            if let Some(routes) = self.joined_routes(listener, &name) {
                update.upsert(type_url::ROUTE, routes);
            }
        }
        for (id, resource) in &self.added {
            update.upsert(id.type_url(), resource.clone());
        }
        let shelf = self.by_host.beside(update);
        self.whole = Some(shelf.clone());
        shelf
    }

    fn joined_routes(&self, listener: &Name, name: &str) -> Option<Resource> {
        let hosts = self.virtual_hosts.get(listener)?;
        let joined = route_configuration(name, hosts.values().map(AsRef::as_ref));
        Some(Resource::new(type_url::ROUTE, name, &joined))
    }
}

#[cfg(test)]
mod tests;
