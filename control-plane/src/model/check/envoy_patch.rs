//! What patches refer to, and that nothing makes the same resource of Envoy as another.

use std::collections::BTreeSet;

use super::{Catalog, Key, Kind, Listener, Problems, Route, is_missing, list, missing};
use crate::model::{
    envoy_patch::{EnvoyPatch, EnvoyResource, PatchChange},
    parse::RATE_LIMITER,
};

pub(super) fn put(next: &Catalog, unread: &BTreeSet<Key>, patch: &EnvoyPatch, problems: &mut Problems) {
    let fleet = Key::new(Kind::Fleet, patch.fleet.clone());
    if is_missing(next, unread, &fleet) {
        problems.at("fleet").report(missing(&fleet));
    }
    let resource = patch.resource();
    let named = match (&patch.change, resource) {
        (PatchChange::Merge { .. }, _) => "target.name",
        (PatchChange::Add { .. }, EnvoyResource::Endpoints(_)) => "resource.cluster_name",
        (PatchChange::Add { .. }, _) => "resource.name",
    };
    let mut problems = problems.at_path(named);
    // The limiter's cluster is made from the fleet.
    let needed = patch.needs().filter(|key| key.name.as_str() != RATE_LIMITER);
    if let Some(key) = needed {
        match next.listener(&key.name).filter(|_| key.kind == Kind::Listener) {
            _ if unread.contains(&key) => {}
            Some(listener) if listener.fleet != patch.fleet => {
                problems.report(format!("{key} belongs to fleet {}", listener.fleet));
            }
            None if is_missing(next, unread, &key) => problems.report(missing(&key)),
            _ => {}
        }
    }
    if matches!(patch.change, PatchChange::Merge { .. }) {
        if let EnvoyResource::Listener(listener) = resource
            && listener.parse().ok().and_then(|name| next.listener(&name)).is_some_and(|listener| listener.http3)
        {
            problems.report(format!("Listener/{listener} has http3, {BESIDE}"));
        }
        return;
    }
    let others = next.indexes().added_by.of(resource).filter(|name| **name != patch.name);
    let others = others.filter(|name| next.envoy_patch(name).is_some_and(|other| other.fleet == patch.fleet));
    let mut makers: Vec<Key> = others.map(|name| Key::new(Kind::EnvoyPatch, name.clone())).collect();
    makers.extend(match resource {
        EnvoyResource::VirtualHost(listener, host) => {
            next.routes_claiming(listener, host).map(|name| Key::new(Kind::Route, name.clone())).collect()
        }
        resource => resource.origin().filter(|key| next.entry(key).is_some()).into_iter().collect::<Vec<_>>(),
    });
    if !makers.is_empty() {
        problems.report(format!("{resource} is made by {}", list(&makers)));
    }
}

/// Why a patch of a listener would not do what it is for.
const BESIDE: &str = "which is a listener of its own to Envoy: what came over it would go around the patch";

/// A listener speaks HTTP/3 beside a patch; patches that are part of the change report it themselves.
pub(super) fn http3_patched_already(
    next: &Catalog,
    changed: &BTreeSet<Key>,
    listener: &Listener,
    problems: &mut Problems,
) {
    if !listener.http3 {
        return;
    }
    let resource = EnvoyResource::Listener(listener.name.to_string());
    let patches = next.patches_of_resource(&listener.fleet, &resource);
    let patches = patches.map(|name| Key::new(Kind::EnvoyPatch, name.clone()));
    let patches: Vec<Key> = patches.filter(|key| !changed.contains(key)).collect();
    if !patches.is_empty() {
        problems.at("http3").report(format!("is patched by {}, {BESIDE}", list(&patches)));
    }
}

/// A service or a listener is called as what a patch adds; patches that are part of the change report it themselves.
pub(super) fn added_already(next: &Catalog, changed: &BTreeSet<Key>, key: &Key, problems: &mut Problems) {
    let name = key.name.to_string();
    let resources = match key.kind {
        Kind::Service => [EnvoyResource::Cluster(name.clone()), EnvoyResource::Endpoints(name)],
        _ => [EnvoyResource::Listener(name.clone()), EnvoyResource::RouteConfiguration(name)],
    };
    for resource in resources {
        let patches = unchanged(next, changed, &resource);
        if !patches.is_empty() {
            problems.at("name").report(format!("{resource} is added by {}", list(&patches)));
        }
    }
}

/// A route claims a host that a patch has added.
pub(super) fn hosts_added_already(next: &Catalog, changed: &BTreeSet<Key>, route: &Route, problems: &mut Problems) {
    if next.len(Kind::EnvoyPatch) == 0 {
        return;
    }
    for (index, host) in route.hosts.iter().enumerate() {
        for place in &route.listeners {
            let resource = EnvoyResource::VirtualHost(place.listener.clone(), host.clone());
            let patches = unchanged(next, changed, &resource);
            if !patches.is_empty() {
                problems.at("hosts").index(index).report(format!("{resource} is added by {}", list(&patches)));
            }
        }
    }
}

/// The patches that name the listener under another fleet than it is in now.
pub(super) fn astray<'a>(next: &'a Catalog, listener: &'a Listener) -> impl Iterator<Item = Key> + 'a {
    let key = Key::new(Kind::Listener, listener.name.clone());
    let patches = next.indexes().needed_by.of(&key).filter_map(|name| next.envoy_patch(name));
    let astray = patches.filter(|patch| patch.fleet != listener.fleet);
    astray.map(|patch| Key::new(Kind::EnvoyPatch, patch.name.clone()))
}

fn unchanged(next: &Catalog, changed: &BTreeSet<Key>, resource: &EnvoyResource) -> Vec<Key> {
    let patches = next.indexes().added_by.of(resource).map(|name| Key::new(Kind::EnvoyPatch, name.clone()));
    patches.filter(|key| !changed.contains(key)).collect()
}
