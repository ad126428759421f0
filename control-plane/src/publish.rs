//! What each fleet is served, and what rate limiters are: translated changes on their way into the caches.
//!
//! A cache is filled by revision, and in steps between two revisions ([`Publisher::republish`]). Its sequence says both
//! ([`sequence`]), so "this proxy has applied revision 7" needs no bookkeeping of its own.
//!
//! Routes are translated one virtual host at a time, and an Envoy that can take them so (VHDS) is sent
//! only the host that changed. For all others they are joined to the RouteConfiguration of their listener, from
//! encoded pieces; that second cache is filled when the first such client comes.
//!
//! Limiters share one cache with the domains of all fleets: a limiter may be asked by any of them.

mod endpoints;
pub mod sequence;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use chancery_proto::{Message, type_url};
use chancery_xds::{Cache, Resource, Update};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use endpoints::Registered;

use crate::{
    model::{Catalog, Key, Name, route::HostPattern},
    translate::{
        rate_limit,
        route::{placeholder, route_configuration},
        snapshot::{self, FleetChange, FleetChanges, ResourceId},
    },
};

/// The caches of all fleets, and that of the limiters.
#[derive(Default)]
pub struct Publisher {
    fleets: Mutex<HashMap<Name, Fleet>>,
    registered: Mutex<Registered>,
    limiters: Arc<Cache>,
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
    /// The last one that a change was given.
    sequence: u64,
    ended: CancellationToken,
    /// Per listener: its virtual hosts, encoded.
    virtual_hosts: BTreeMap<Name, BTreeMap<HostPattern, Bytes>>,
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
        let cache = match form {
            RouteForm::ByHost => fleet.by_host.clone(),
            RouteForm::Whole => fleet.whole(),
        };
        Some(Served { cache, ended: fleet.ended.clone() })
    }

    /// Whether there is such a fleet.
    pub fn has(&self, fleet: &Name) -> bool {
        self.fleets.lock().contains_key(fleet)
    }

    /// What a limiter is served from.
    pub fn serve_limiter(&self) -> Served {
        Served { cache: self.limiters.clone(), ended: CancellationToken::new() }
    }

    /// Brings the caches to `revision`. Limiters come first, so that they know a limit when proxies begin to ask about it.
    pub fn publish(&self, revision: u64, changes: Changes) {
        let mut fleets = self.fleets.lock();
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
        self.limiters.apply(sequence::next(self.limiters.head(), revision), domains);
        let mut registered = self.registered.lock();
        let different = registered.take(changes.taking);
        for (name, changes) in changes.fleets {
            match changes.fleet {
                FleetChange::Created | FleetChange::Kept => {
                    let fleet = fleets.entry(name).or_default();
                    fleet.publish(sequence::next(fleet.sequence, revision), changes, &registered);
                }
                FleetChange::Deleted => {
                    if let Some(fleet) = fleets.remove(&name) {
                        fleet.ended.cancel();
                    }
                }
            }
        }
        endpoints::reassign(fleets.values_mut(), &different, &registered);
    }

    /// Gives `fleet` something else than its revision says, as the next step of that revision. Returns the sequence at which
    /// it stands, or none if there is no such fleet (any more). A revision that concerns the same resources later
    /// overwrites it.
    ///
    /// Every change of a fleet's caches that is not a revision goes this way: it takes the lock that revisions take, so
    /// sequences grow whoever publishes.
    pub fn republish(&self, fleet: &Name, changes: FleetChanges) -> Option<u64> {
        let mut fleets = self.fleets.lock();
        let fleet = fleets.get_mut(fleet)?;
        fleet.publish(sequence::next(fleet.sequence, 0), changes, &self.registered.lock());
        Some(fleet.sequence)
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
    fn publish(&mut self, sequence: u64, mut changes: FleetChanges, registered: &Registered) {
        self.add_registered(&mut changes, registered);
        self.sequence = sequence;
        let routes_changed: BTreeSet<Name> = changes.routes_changed().into_iter().cloned().collect();
        let mut by_host = Update::default();
        let mut whole = Update::default();
        for misfit in &changes.misfits {
            // Stored when it fitted: translation, or Envoy's messages, have changed since.
            let (patch, violation) = (&misfit.patch, &misfit.violation);
            tracing::warn!(%patch, %violation, "a patch does not fit, what it changes is served without it");
        }
        for (id, bytes) in changes.put {
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
                id @ ResourceId::Added(_) => {
                    self.added.remove(&id);
                }
                ResourceId::RateLimiter
                | ResourceId::Cluster(_)
                | ResourceId::Endpoints(_)
                | ResourceId::Listener(_) => {}
            }
        }
        self.by_host.apply(sequence, by_host);
        if let Some(cache) = &self.whole {
            for listener in routes_changed {
                match self.joined_routes(&listener) {
                    Some(routes) => whole.upsert(type_url::ROUTE, routes),
                    None => whole.remove(type_url::ROUTE, listener.as_str()),
                }
            }
            cache.apply(sequence, whole);
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
            let tables = self.by_host.snapshot();
            for type_url in [type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER] {
                for resource in tables.table(type_url).resources() {
                    update.upsert(type_url, resource.clone());
                }
            }
        }
        for routes in self.virtual_hosts.keys().filter_map(|listener| self.joined_routes(listener)) {
            update.upsert(type_url::ROUTE, routes);
        }
        for (id, resource) in &self.added {
            update.upsert(id.type_url(), resource.clone());
        }
        cache.apply(self.sequence, update);
        self.whole = Some(cache.clone());
        cache
    }

    fn joined_routes(&self, listener: &Name) -> Option<Resource> {
        let hosts = self.virtual_hosts.get(listener)?;
        let joined = route_configuration(listener, hosts.values().map(AsRef::as_ref));
        Some(Resource::new(type_url::ROUTE, listener.as_str(), &joined))
    }
}
