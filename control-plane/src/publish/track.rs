//! What some proxies of a fleet are served, in both forms of routes.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use chancery_proto::{Message, type_url};
use chancery_xds::{Resource, Update};

use super::{RouteForm, Shelf, endpoints::Registered, sequence_of};
use crate::{
    model::{Name, listener::RouteDelivery, route::HostPattern},
    translate::{
        route::{placeholder, route_configuration, route_configuration_name},
        snapshot::{FleetChanges, ResourceId},
    },
};

/// What the proxies of a fleet are served that get the same.
#[derive(Default)]
pub(super) struct Track {
    by_host: Arc<Shelf>,
    whole: Option<Arc<Shelf>>,
    /// Per listener: its virtual hosts, encoded.
    virtual_hosts: BTreeMap<Name, BTreeMap<HostPattern, Bytes>>,
    /// Listeners whose routes are there whole too, for proxies that take them either way. Not only those that want them so now:
    /// connections from the time before a change go on with what they had.
    also_whole: BTreeSet<Name>,
    /// Per service: its endpoints as the catalog has them, encoded.
    pub(super) assignments: BTreeMap<Name, Bytes>,
    /// The services that take registered endpoints, if they are others than those of the newest revision.
    pub(super) taking: Option<HashSet<Name>>,
    /// What patches add, which has one form for all clients.
    added: BTreeMap<ResourceId, Resource>,
}

/// What is known of what a track comes to.
#[derive(Clone, Copy)]
pub(super) enum Known<'t> {
    /// It has been served before.
    Good,
    /// Nothing: it is on trial.
    Nothing,
    /// It is on trial, but for what this track has found to be bad.
    As(&'t Track),
}

impl Track {
    /// The shelf of those who get routes in this form.
    pub(super) fn shelf(&mut self, form: RouteForm) -> Arc<Shelf> {
        match form {
            RouteForm::ByHost => self.by_host.clone(),
            RouteForm::Whole => self.whole(),
        }
    }

    /// The shelves that somebody has asked for.
    pub(super) fn shelves(&self) -> impl Iterator<Item = (RouteForm, &Arc<Shelf>)> {
        let whole = self.whole.as_ref().map(|shelf| (RouteForm::Whole, shelf));
        [(RouteForm::ByHost, &self.by_host)].into_iter().chain(whole)
    }

    /// Another that begins as this one is.
    pub(super) fn fork(&self) -> Self {
        Self {
            by_host: Arc::new(self.by_host.fork()),
            whole: None,
            virtual_hosts: self.virtual_hosts.clone(),
            also_whole: self.also_whole.clone(),
            assignments: self.assignments.clone(),
            taking: self.taking.clone(),
            added: self.added.clone(),
        }
    }

    /// Makes `changes`, which lead to `revision`.
    pub(super) fn publish(
        &mut self,
        revision: u64,
        mut changes: FleetChanges,
        known: Known<'_>,
        registered: &Registered,
    ) {
        self.add_registered(&mut changes, registered);
        let routes_changed: BTreeSet<Name> = changes.routes_changed().into_iter().cloned().collect();
        let mut by_host = Update::default();
        let mut whole = Update::default();
        for misfit in &changes.misfits {
            // Stored when it fitted: translation, or Envoy's messages, have changed since.
            let (resource, reason) = (&misfit.patch, &misfit.violation);
            tracing::warn!(%resource, %reason, "a patch does not fit, what it changes is served without it");
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
                | ResourceId::Http3(_)
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
                | ResourceId::Http3(_)
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
        match known {
            Known::Good => self.by_host.fill(sequence_of(revision), by_host),
            Known::Nothing => self.by_host.publish(revision, by_host, &BTreeMap::new()),
            Known::As(other) => self.by_host.publish(revision, by_host, &other.by_host.quarantined()),
        }
        if let Some(shelf) = &self.whole {
            for listener in routes_changed {
                match self.joined_routes(&listener, listener.as_str()) {
                    Some(routes) => whole.upsert(type_url::ROUTE, routes),
                    None => whole.remove(type_url::ROUTE, listener.as_str()),
                }
            }
            let other = match known {
                Known::As(other) => other.whole.as_ref(),
                Known::Good | Known::Nothing => None,
            };
            shelf.publish(revision, whole, &other.map(|shelf| shelf.quarantined()).unwrap_or_default());
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
