//! What Envoy is asked about an edit: a bootstrap of what the edit puts anew for a fleet, and of nothing else but what that needs
//! to be understood. Pure.
//!
//! Each resource becomes a part that stands for itself, so that the question can be asked again about some of them, when Envoy does
//! not say which one it means:
//! - a listener or a cluster is taken as it is; routes and endpoints that it asks for by name stay asked for;
//! - a route configuration, and the virtual hosts of a listener together, become a listener of their own that has them inline;
//! - endpoints become a cluster of their own that has them inline, a secret comes with somebody who uses it;
//! - a layer of runtime values is taken as it is.
//!
//! No two hosts of a listener may claim the same domain. Each that is translated claims its own, so others of the listener are put
//! beside those that changed only where patches change hosts.
//!
//! Whether a cluster exists is not asked: clusters come and go by themselves, and proxies have own ones in their bootstrap. What is
//! named stands there without endpoints.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chancery_proto::type_url;
use sha2::{Digest as _, Sha256};

use super::{
    harmless::Harmless,
    pieces::{Pieces, with_endpoints, with_routes},
};
use crate::{
    bootstrap::XDS_CLUSTER,
    model::{
        Catalog, Key, Kind, Name,
        envoy_patch::{EnvoyPatch, EnvoyResource, PatchChange},
        route::HostPattern,
    },
    translate::{
        constraints,
        route::route_configuration,
        snapshot::{self, ResourceId},
    },
};

/// What identifies a question: what Envoy says to the same bytes is the same.
pub(super) type Fingerprint = [u8; 32];

/// What an edit puts anew for one fleet, to be judged together.
#[derive(Clone, Debug, Default)]
pub struct Question {
    parts: Vec<Part>,
    /// Unchanged hosts that stand beside the changed ones of a listener.
    beside: BTreeMap<Name, Vec<Bytes>>,
}

/// One resource of it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The resource that can be mended, and where in it.
    pub(super) resource: Key,
    pub(super) path: &'static str,
    /// Type and name of what Envoy is sent.
    pub(super) type_url: &'static str,
    pub(super) name: String,
    pieces: Pieces,
    /// A virtual host, which is judged with others of its listener.
    host: Option<(Name, Bytes)>,
    /// The clusters that are named.
    clusters: BTreeSet<String>,
}

impl Question {
    /// What Envoy is to be asked about `put`, which `fleet` gets when the resources `changed` are as in `catalog`. What cannot be judged on
    /// this machine is left out.
    pub fn about(catalog: &Catalog, fleet: &Name, put: &BTreeMap<ResourceId, Bytes>, changed: &[Key]) -> Self {
        let parts: Vec<Part> =
            put.iter().filter_map(|(id, bytes)| Part::of(id, bytes, maker(catalog, fleet, id, changed))).collect();
        let listeners: BTreeSet<&Name> = parts.iter().filter_map(|part| Some(&part.host.as_ref()?.0)).collect();
        let beside = listeners.into_iter().map(|listener| (listener.clone(), beside(catalog, fleet, listener, put)));
        let beside = beside.collect();
        Self { parts, beside }
    }

    /// Whether there is nothing to judge.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// All of it.
    pub(super) fn whole(&self) -> Vec<u8> {
        self.bootstrap(0..self.parts.len())
    }

    /// The bootstrap, encoded, that has these parts; the same parts give the same bytes.
    pub(super) fn bootstrap(&self, parts: impl IntoIterator<Item = usize>) -> Vec<u8> {
        let mut pieces = Pieces::default();
        let mut hosts: BTreeMap<&Name, Vec<&[u8]>> = BTreeMap::new();
        let mut missing = BTreeSet::from([XDS_CLUSTER]);
        let mut there = BTreeSet::new();
        for part in parts.into_iter().filter_map(|index| self.parts.get(index)) {
            pieces.add(&part.pieces);
            missing.extend(part.clusters.iter().map(String::as_str));
            if part.type_url == type_url::CLUSTER {
                there.insert(part.name.as_str());
            }
            if let Some((listener, host)) = &part.host {
                hosts.entry(listener).or_default().push(host);
            }
        }
        for (listener, mut hosts) in hosts {
            hosts.extend(self.beside.get(listener).into_iter().flatten().map(AsRef::as_ref));
            let routes = route_configuration(listener.as_str(), hosts);
            pieces.listeners.push(with_routes(listener.as_str(), &routes));
        }
        missing.difference(&there).for_each(|name| pieces.stand_in(name));
        pieces.into_bootstrap()
    }
}

impl Part {
    /// None for what says nothing by itself, or cannot be judged here.
    fn of(id: &ResourceId, bytes: &Bytes, (resource, path): (Key, &'static str)) -> Option<Self> {
        let (type_url, name) = (id.type_url(), id.name());
        if matches!(id, ResourceId::RouteConfiguration(_) | ResourceId::WholeRoutes(_)) {
            return None;
        }
        let Harmless { message, clusters } = Harmless::of(type_url, bytes)?;
        let mut pieces = Pieces::default();
        let mut host = None;
        match type_url {
            type_url::LISTENER => pieces.listeners.push(message),
            type_url::CLUSTER => pieces.clusters.push(message),
            type_url::ENDPOINT => pieces.clusters.push(with_endpoints(&name, &message)),
            type_url::ROUTE => pieces.listeners.push(with_routes(&name, &message)),
            type_url::VIRTUAL_HOST => host = Some((id.routes_of()?.clone(), message)),
            type_url::SECRET => pieces.secret(&name, message)?,
            type_url::RUNTIME => pieces.layers.push(message),
            _ => return None,
        }
        // Routes and endpoints may name what comes later; a cluster names itself.
        let clusters = if type_url == type_url::LISTENER { clusters } else { BTreeSet::new() };
        Some(Self { resource, path, type_url, name, pieces, host, clusters })
    }
}

/// The resource of which what `fleet` gets as `id` is made, and where in it; one that was changed rather than another.
fn maker(catalog: &Catalog, fleet: &Name, id: &ResourceId, changed: &[Key]) -> (Key, &'static str) {
    let is_changed = |kind, name: &Name| changed.iter().any(|key| key.kind == kind && key.name == *name);
    let patches = catalog.patches_of_resource(fleet, &id.resource()).filter_map(|name| catalog.envoy_patch(name));
    let patches: Vec<&EnvoyPatch> = patches.map(AsRef::as_ref).collect();
    let of_patch = |patch: &EnvoyPatch| {
        let path = if matches!(patch.change, PatchChange::Add { .. }) { "spec.resource" } else { "spec.merge" };
        (Key::new(Kind::EnvoyPatch, patch.name.clone()), path)
    };
    if let Some(patch) = patches.iter().find(|patch| is_changed(Kind::EnvoyPatch, &patch.name)) {
        return of_patch(patch);
    }
    if let ResourceId::VirtualHost(listener, host) = id {
        let mut routes = catalog.routes_claiming(listener, host);
        if let Some(route) = routes.find(|route| is_changed(Kind::Route, route)) {
            return (Key::new(Kind::Route, route.clone()), "spec");
        }
    }
    let (origin, path) = constraints::origin(fleet, id);
    match patches.last() {
        Some(patch) if !changed.contains(&origin) => of_patch(patch),
        _ => (origin, path),
    }
}

/// The hosts of `listener` that are not among `put`, if any of its hosts is patched.
fn beside(catalog: &Catalog, fleet: &Name, listener: &Name, put: &BTreeMap<ResourceId, Bytes>) -> Vec<Bytes> {
    let patches = catalog.patches_of(fleet).filter_map(|name| catalog.envoy_patch(name));
    let patched = patches.filter_map(|patch| match patch.resource() {
        EnvoyResource::VirtualHost(of, host) if of == listener => Some(host),
        _ => None,
    });
    let mut hosts: BTreeSet<&HostPattern> = patched.collect();
    if hosts.is_empty() {
        return Vec::new();
    }
    hosts.extend(catalog.hosts_on(listener));
    let ids = hosts.into_iter().map(|host| ResourceId::VirtualHost(listener.clone(), host.clone()));
    let others = ids.filter(|id| !put.contains_key(id)).filter_map(|id| snapshot::one(catalog, fleet, &id));
    others.filter_map(|bytes| Some(Harmless::of(type_url::VIRTUAL_HOST, &bytes)?.message)).collect()
}

/// What identifies a bootstrap.
pub(super) fn fingerprint(bootstrap: &[u8]) -> Fingerprint {
    Sha256::digest(bootstrap).into()
}

#[cfg(test)]
mod tests;
