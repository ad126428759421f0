//! What a fleet gets, and what an edit changes about it.
//!
//! A fleet gets its listeners, the virtual hosts of the routes on them, and the services these send to; not the services
//! of others. [`full`] is all of that. [`changes()`] is the difference that some changed resources make, found by following the
//! catalog's relations from just these resources: the work is that of the edit, however much else there is. Applying one after
//! the other gives the same as translating anew.
//!
//! Everything comes encoded, once, for every proxy and every stream. Routes come host by host, as delta xDS has them; a cache for
//! state-of-the-world xDS joins them ([`route_configuration`](super::route::route_configuration)) whenever one changed.

mod changes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use chancery_proto::{Message, type_url};

pub use changes::{FleetChange, FleetChanges};

use super::{
    cluster, endpoint,
    envoy_patch::{Misfit, merged},
    http3, listener, rate_limit,
    route::{self, References},
    tcp::{self, Carried},
};
use crate::model::{
    Catalog, Key, Kind, Name,
    envoy_patch::{EnvoyPatch, EnvoyResource, PatchChange},
    fleet::{Fleet, RateLimiter},
    listener::{Listener, RouteDelivery, TlsFiles},
    route::{HostPattern, Route},
    service::Service,
};

/// Which resource of a fleet. The order is the one in which Envoy wants them: what is referred to first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceId {
    /// The cluster of the fleet's rate limiter.
    RateLimiter,
    /// The cluster of a service.
    Cluster(Name),
    /// The endpoints of a service, unless the proxy resolves them.
    Endpoints(Name),
    /// A listener.
    Listener(Name),
    /// What speaks HTTP/3 beside a listener.
    Http3(Name),
    /// The route configuration of a listener, which says where its virtual hosts come from.
    RouteConfiguration(Name),
    /// The route configuration of a listener that wants it whole, without its virtual hosts: these are put by themselves, and
    /// whoever serves it joins them.
    WholeRoutes(Name),
    /// What happens to the requests for a host on a listener.
    VirtualHost(Name, HostPattern),
    /// What a patch adds, but for virtual hosts, which are the same whoever makes them.
    Added(EnvoyResource),
}

impl ResourceId {
    /// Its type.
    pub fn type_url(&self) -> &'static str {
        match self {
            Self::RateLimiter | Self::Cluster(_) => type_url::CLUSTER,
            Self::Endpoints(_) => type_url::ENDPOINT,
            Self::Listener(_) | Self::Http3(_) => type_url::LISTENER,
            Self::RouteConfiguration(_) | Self::WholeRoutes(_) => type_url::ROUTE,
            Self::VirtualHost(..) => type_url::VIRTUAL_HOST,
            Self::Added(resource) => resource.type_url(),
        }
    }

    /// Its name among the resources of its type.
    pub fn name(&self) -> String {
        match self {
            Self::RateLimiter => rate_limit::CLUSTER.to_owned(),
            Self::Cluster(name) | Self::Endpoints(name) | Self::Listener(name) | Self::RouteConfiguration(name) => {
                name.to_string()
            }
            Self::Http3(listener) => http3::name(listener),
            Self::WholeRoutes(listener) => route::route_configuration_name(listener, RouteDelivery::Whole),
            Self::VirtualHost(listener, host) => route::virtual_host_name(listener, host),
            Self::Added(resource) => match resource {
                EnvoyResource::Cluster(name)
                | EnvoyResource::Endpoints(name)
                | EnvoyResource::Secret(name)
                | EnvoyResource::Runtime(name)
                | EnvoyResource::Listener(name)
                | EnvoyResource::RouteConfiguration(name) => name.clone(),
                EnvoyResource::VirtualHost(listener, host) => route::virtual_host_name(listener, host),
            },
        }
    }

    /// As a patch names it.
    pub(crate) fn resource(&self) -> EnvoyResource {
        match self {
            Self::RateLimiter => EnvoyResource::Cluster(rate_limit::CLUSTER.to_owned()),
            Self::Cluster(name) => EnvoyResource::Cluster(name.to_string()),
            Self::Endpoints(name) => EnvoyResource::Endpoints(name.to_string()),
            Self::Listener(name) => EnvoyResource::Listener(name.to_string()),
            Self::Http3(_) => EnvoyResource::Listener(self.name()),
            Self::RouteConfiguration(name) => EnvoyResource::RouteConfiguration(name.to_string()),
            Self::WholeRoutes(_) => EnvoyResource::RouteConfiguration(self.name()),
            Self::VirtualHost(listener, host) => EnvoyResource::VirtualHost(listener.clone(), host.clone()),
            Self::Added(resource) => resource.clone(),
        }
    }

    /// What a patch adds or changes; nothing if there can be no such resource.
    fn of_patch(patch: &EnvoyPatch) -> Option<Self> {
        let is_added = matches!(patch.change, PatchChange::Add { .. });
        Some(match patch.resource() {
            EnvoyResource::VirtualHost(listener, host) => Self::VirtualHost(listener.clone(), host.clone()),
            resource if is_added => Self::Added(resource.clone()),
            EnvoyResource::Cluster(name) if name == rate_limit::CLUSTER => Self::RateLimiter,
            EnvoyResource::Cluster(name) => Self::Cluster(name.parse().ok()?),
            EnvoyResource::Endpoints(name) => Self::Endpoints(name.parse().ok()?),
            EnvoyResource::Listener(name) => Self::Listener(name.parse().ok()?),
            EnvoyResource::RouteConfiguration(name) => Self::RouteConfiguration(name.parse().ok()?),
            EnvoyResource::Secret(_) | EnvoyResource::Runtime(_) => return None,
        })
    }

    /// The listener whose routes it is, or is among.
    pub fn routes_of(&self) -> Option<&Name> {
        match self {
            Self::RouteConfiguration(listener) | Self::WholeRoutes(listener) | Self::VirtualHost(listener, _) => {
                Some(listener)
            }
            Self::RateLimiter | Self::Cluster(_) | Self::Endpoints(_) => None,
            Self::Listener(_) | Self::Http3(_) | Self::Added(_) => None,
        }
    }
}

/// Everything, for a start: what leads from nothing to `catalog`.
pub fn full(catalog: &Catalog) -> BTreeMap<Name, FleetChanges> {
    let created = |fleet: &Arc<Fleet>| {
        let mut changes = FleetChanges { fleet: FleetChange::Created, ..FleetChanges::default() };
        for id in everything(catalog, &fleet.name) {
            if let Some(source) = Source::of(&id, catalog, &fleet.name) {
                let bytes = source.encode(&mut changes.misfits);
                changes.put.insert(id, bytes);
            }
        }
        changes
    };
    catalog.fleets().map(|fleet| (fleet.name.clone(), created(fleet))).collect()
}

/// The resource `id` of `fleet`, if the fleet gets it.
pub fn one(catalog: &Catalog, fleet: &Name, id: &ResourceId) -> Option<Bytes> {
    Source::of(id, catalog, fleet).map(|source| source.encode(&mut Vec::new()))
}

/// What the changes to the resources `changed`, which lead from `before` to `after`, mean for each fleet.
///
/// A fleet for which nothing changes is left out, and so is a resource that stays what it was; only
/// a virtual host may, rarely, be put with the bytes it had.
pub fn changes(before: &Catalog, after: &Catalog, changed: &[Key]) -> BTreeMap<Name, FleetChanges> {
    let mut fleets = came_and_went(before, after, changed);
    let mut touched = BTreeSet::new();
    for key in changed {
        for catalog in [before, after] {
            touch(key, catalog, &mut touched);
        }
        let affinity = |catalog: &Catalog| catalog.service(&key.name).and_then(|one| one.session_affinity.clone());
        if key.kind == Kind::Service && affinity(before) != affinity(after) {
            touch_rules(after, after.routes_to(&key.name), &mut touched);
        }
    }
    for (fleet, id) in touched {
        let old = Source::of(&id, before, &fleet);
        let Some(new) = Source::of(&id, after, &fleet) else {
            if old.is_some() {
                fleets.entry(fleet).or_default().removed.insert(id);
            }
            continue;
        };
        if old.as_ref().is_some_and(|old| old.is_same(&new)) {
            continue;
        }
        let mut misfits = Vec::new();
        let bytes = new.encode(&mut misfits);
        // Other sources can translate to the same bytes. Where routes differ they hardly do, and a host can have
        // thousands of them: not worth translating twice.
        let unchanged = |old: &Source<'_>| !old.is_host() && old.encode(&mut Vec::new()) == bytes;
        let unchanged = old.as_ref().is_some_and(unchanged);
        if !unchanged || !misfits.is_empty() {
            let changes = fleets.entry(fleet).or_default();
            changes.misfits.extend(misfits);
            if !unchanged {
                changes.put.insert(id, bytes);
            }
        }
    }
    fleets
}

/// The fleets that were created or deleted, without their resources.
fn came_and_went(before: &Catalog, after: &Catalog, changed: &[Key]) -> BTreeMap<Name, FleetChanges> {
    let change = |name: &Name| match (before.fleet(name), after.fleet(name)) {
        (None, Some(_)) => Some(FleetChange::Created),
        (Some(_), None) => Some(FleetChange::Deleted),
        _ => None,
    };
    let fleets = changed.iter().filter(|key| key.kind == Kind::Fleet).map(|key| &key.name);
    fleets
        .filter_map(|name| Some((name.clone(), FleetChanges { fleet: change(name)?, ..FleetChanges::default() })))
        .collect()
}

/// Adds to `touched` what depends on the resource `key` in `catalog`.
fn touch(key: &Key, catalog: &Catalog, touched: &mut BTreeSet<(Name, ResourceId)>) {
    let name = &key.name;
    match key.kind {
        Kind::Fleet => touched.extend(everything(catalog, name).into_iter().map(|id| (name.clone(), id))),
        // A listener comes and goes together with the routes on it, or its name would lead nowhere.
        Kind::Listener => {
            if let Some(listener) = catalog.listener(name) {
                let ids =
                    [ResourceId::Listener, ResourceId::Http3, ResourceId::RouteConfiguration, ResourceId::WholeRoutes];
                let services = listener.calls().flat_map(|call| of_service(call.service));
                let ids = ids.map(|id| id(name.clone())).into_iter().chain(services);
                touched.extend(ids.map(|id| (listener.fleet.clone(), id)));
            }
        }
        Kind::Team => {}
        Kind::Service => {
            for fleet in catalog.fleets().filter(|fleet| catalog.fleet_uses(&fleet.name, name)) {
                touched.extend(of_service(name).map(|id| (fleet.name.clone(), id)));
            }
        }
        Kind::RateLimit => touch_rules(catalog, catalog.routes_limited_by(name), touched),
        Kind::EnvoyPatch => {
            let patch = catalog.envoy_patch(name);
            touched.extend(patch.and_then(|patch| Some((patch.fleet.clone(), ResourceId::of_patch(patch)?))));
        }
        Kind::Route => {
            let Some(route) = catalog.route(name) else { return };
            for place in &route.listeners {
                let listener = &place.listener;
                let hosts = hosts_of(route, listener);
                let services = route.services().into_iter().flat_map(of_service);
                let ids = hosts.chain(services).chain([ResourceId::RouteConfiguration(listener.clone())]);
                // Where there are no requests, the listener itself has the routes.
                let ids = ids.chain(route.tcp.iter().map(|_| ResourceId::Listener(listener.clone())));
                touched.extend(ids.map(|id| (place.fleet.clone(), id)));
            }
        }
    }
}

/// Adds the virtual hosts of `routes`.
fn touch_rules<'a>(
    catalog: &Catalog,
    routes: impl Iterator<Item = &'a Name>,
    touched: &mut BTreeSet<(Name, ResourceId)>,
) {
    for route in routes.filter_map(|route| catalog.route(route)) {
        for place in &route.listeners {
            touched.extend(hosts_of(route, &place.listener).map(|id| (place.fleet.clone(), id)));
        }
    }
}

/// The virtual hosts that `route` has rules in, on one of its listeners.
fn hosts_of<'a>(route: &'a Route, listener: &'a Name) -> impl Iterator<Item = ResourceId> + 'a {
    route.hosts.iter().map(|host| ResourceId::VirtualHost(listener.clone(), host.clone()))
}

/// The ids of all that `fleet` could get; services that the proxy resolves have no endpoints.
fn everything(catalog: &Catalog, fleet: &Name) -> BTreeSet<ResourceId> {
    let mut ids: BTreeSet<ResourceId> = catalog.services_of(fleet).flat_map(of_service).collect();
    ids.insert(ResourceId::RateLimiter);
    for listener in catalog.listeners_of(fleet) {
        ids.insert(ResourceId::Listener(listener.clone()));
        ids.insert(ResourceId::Http3(listener.clone()));
        ids.insert(ResourceId::RouteConfiguration(listener.clone()));
        ids.insert(ResourceId::WholeRoutes(listener.clone()));
        ids.extend(catalog.hosts_on(listener).map(|host| ResourceId::VirtualHost(listener.clone(), host.clone())));
    }
    let patches = catalog.patches_of(fleet).filter_map(|name| catalog.envoy_patch(name));
    ids.extend(patches.filter_map(|patch| ResourceId::of_patch(patch)));
    ids
}

fn of_service(service: &Name) -> [ResourceId; 2] {
    [ResourceId::Cluster(service.clone()), ResourceId::Endpoints(service.clone())]
}

/// All that a resource is made from.
enum Source<'a> {
    RateLimiter(&'a RateLimiter),
    Cluster(&'a Service),
    Endpoints(&'a Service),
    Listener(&'a Listener, &'a Fleet, Vec<Carried<'a>>),
    Http3(&'a Listener, &'a TlsFiles, &'a Fleet),
    Routes(&'a Name),
    WholeRoutes(&'a Name),
    Claims {
        listener: &'a Name,
        host: &'a HostPattern,
        claims: Vec<&'a Arc<Route>>,
        references: References<'a>,
        fleet: &'a Fleet,
    },
    Added(&'a [u8]),
    Patched {
        of: Box<Source<'a>>,
        type_url: &'static str,
        patches: Vec<&'a EnvoyPatch>,
    },
}

impl<'a> Source<'a> {
    /// What the resource `id` of `fleet` is made from, none if the fleet does not get it.
    fn of(id: &'a ResourceId, catalog: &'a Catalog, fleet: &Name) -> Option<Self> {
        if catalog.len(Kind::EnvoyPatch) == 0 {
            return Self::translated(id, catalog, fleet);
        }
        let patches = catalog.patches_of_resource(fleet, &id.resource());
        let patches: Vec<&EnvoyPatch> =
            patches.filter_map(|name| catalog.envoy_patch(name).map(AsRef::as_ref)).collect();
        // What is translated under the same name is another resource, which a patch may replace in one edit.
        let can_be_added = matches!(id, ResourceId::Added(_) | ResourceId::VirtualHost(..));
        let added = patches.iter().filter(|_| can_be_added).find_map(|patch| match &patch.change {
            PatchChange::Add { message, .. } => Some(Self::Added(message)),
            PatchChange::Merge { .. } => None,
        });
        let source = added.or_else(|| Self::translated(id, catalog, fleet))?;
        Some(match patches.is_empty() || matches!(source, Self::Added(_)) {
            true => source,
            false => Self::Patched { of: Box::new(source), type_url: id.type_url(), patches },
        })
    }

    /// As [`Source::of`], were there no patches.
    fn translated(id: &'a ResourceId, catalog: &'a Catalog, fleet: &Name) -> Option<Self> {
        let listener = |name| catalog.listener(name).filter(|listener| listener.fleet == *fleet);
        let http = |name| listener(name).filter(|listener| listener.protocol.is_http());
        let service = |name| catalog.service(name).filter(|_| catalog.fleet_uses(fleet, name));
        match id {
            ResourceId::RateLimiter => catalog.fleet(fleet)?.rate_limiter.as_ref().map(Self::RateLimiter),
            ResourceId::Cluster(name) => service(name).map(|service| Self::Cluster(service)),
            ResourceId::Endpoints(name) => {
                service(name).filter(|service| endpoint::is_discovered(service)).map(|service| Self::Endpoints(service))
            }
            ResourceId::Listener(name) => {
                let (listener, fleet) = (listener(name)?, catalog.fleet(fleet)?);
                Some(Self::Listener(listener, fleet, tcp::carried(listener, catalog)?))
            }
            ResourceId::Http3(name) => {
                let listener = listener(name)?;
                Some(Self::Http3(listener, http3::certificate(listener)?, catalog.fleet(fleet)?))
            }
            ResourceId::RouteConfiguration(name) => Some(Self::Routes(&http(name)?.name)),
            ResourceId::WholeRoutes(name) => {
                let listener = http(name).filter(|listener| listener.route_delivery == RouteDelivery::Whole);
                listener.map(|listener| Self::WholeRoutes(&listener.name))
            }
            ResourceId::VirtualHost(name, host) => {
                let (listener, fleet) = (&http(name)?.name, catalog.fleet(fleet)?);
                let claims = catalog.routes_claiming(listener, host).filter_map(|route| catalog.route(route));
                let claims: Vec<_> = claims.collect();
                let references = References::of(claims.iter().map(|route| &***route), catalog);
                (!claims.is_empty()).then_some(Self::Claims { listener, host, claims, references, fleet })
            }
            ResourceId::Added(_) => None,
        }
    }

    /// Whether the resource made from `other` is certain to be the same, found without making it.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::RateLimiter(a), Self::RateLimiter(b)) => a == b,
            (Self::Cluster(a), Self::Cluster(b)) | (Self::Endpoints(a), Self::Endpoints(b)) => a == b,
            (Self::Listener(a, in_a, of_a), Self::Listener(b, in_b, of_b)) => (a, in_a, of_a) == (b, in_b, of_b),
            (Self::Http3(a, _, in_a), Self::Http3(b, _, in_b)) => (a, in_a) == (b, in_b),
            (Self::Routes(a), Self::Routes(b)) | (Self::WholeRoutes(a), Self::WholeRoutes(b)) => a == b,
            (Self::Added(a), Self::Added(b)) => a == b,
            (Self::Patched { of: a, patches: by_a, .. }, Self::Patched { of: b, patches: by_b, .. }) => {
                by_a == by_b && a.is_same(b)
            }
            (
                Self::Claims { claims: a, references: of_a, fleet: in_a, .. },
                Self::Claims { claims: b, references: of_b, fleet: in_b, .. },
            ) => {
                in_a.default_timeout == in_b.default_timeout
                    && a.len() == b.len()
                    && a.iter().zip(b).all(|(a, b)| route::same_rules(a, b))
                    && of_a.mean_the_same_as(of_b)
            }
            _ => false,
        }
    }

    /// Whether it is made from the rules of routes.
    fn is_host(&self) -> bool {
        match self {
            Self::Claims { .. } => true,
            Self::Patched { of, .. } => of.is_host(),
            _ => false,
        }
    }

    fn encode(&self, misfits: &mut Vec<Misfit>) -> Bytes {
        match self {
            Self::RateLimiter(limiter) => encode(&rate_limit::cluster(limiter)),
            Self::Cluster(service) => cluster::encode_cluster(cluster::cluster(service)),
            Self::Endpoints(service) => endpoint::encode_assignment(endpoint::load_assignment(service)),
            Self::Listener(listener, fleet, carried) if carried.is_empty() => {
                encode(&listener::listener(listener, fleet))
            }
            Self::Listener(listener, _, carried) => encode(&tcp::listener(listener, carried)),
            Self::Http3(listener, files, fleet) => encode(&http3::listener(listener, files, fleet)),
            Self::Routes(listener) => encode(&route::route_configuration_by_host(listener)),
            Self::WholeRoutes(listener) => {
                let name = route::route_configuration_name(listener, RouteDelivery::Whole);
                route::route_configuration(&name, [])
            }
            Self::Claims { listener, host, claims, references, fleet } => {
                let claims = claims.iter().map(|&route| &**route);
                route::encode_virtual_host(route::virtual_host(listener, host, claims, references, fleet))
            }
            Self::Added(message) => Bytes::copy_from_slice(message),
            Self::Patched { of, type_url, patches } => {
                merged(type_url, of.encode(misfits), patches.iter().copied(), misfits)
            }
        }
    }
}

fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

#[cfg(test)]
mod tests;
