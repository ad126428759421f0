//! What a change does to the proxies of a fleet, as they see it: which resources are added, changed and removed, and which listeners
//! drain connections because of it. Pure.
//!
//! When Envoy drains (`ListenerImpl::supportUpdateFilterChain` and `diffFilterChain` of 1.40). Of a listener whose message is
//! another one, only the filter chains may have changed; then those chains that are not there any more, as they were, drain by
//! themselves and all other connections stay. In every other case a new listener takes the place of the old one, which drains
//! as a whole; so does one that is removed. Envoy compares lists as sets, and we do not: where a list is only in another order, we say
//! that it drains, and it does not.

use std::collections::BTreeMap;

use bytes::Bytes;
use chancery_proto::{
    Message as _,
    envoy::listener::{FilterChain, Listener as EnvoyListener},
    type_url,
};

use super::{
    route,
    snapshot::{self, FleetChanges, ResourceId},
};
use crate::model::{Catalog, Name, listener::RouteDelivery};

/// What proxies of a fleet see of a change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effect {
    /// What becomes of which resource, by type URL and name.
    pub resources: BTreeMap<(&'static str, String), ResourceChange>,
    /// Listeners that drain connections, by name.
    pub drains: BTreeMap<String, Drain>,
}

/// What becomes of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceChange {
    /// It is new.
    Added,
    /// It is another.
    Changed,
    /// It is gone.
    Removed,
}

/// Why connections of a listener are drained, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drain {
    /// All: it is removed.
    Removed,
    /// All: it moves to another address.
    Moved,
    /// All: more than its filter chains is another.
    Replaced,
    /// Those of filter chains, by their names: these are other ones now, or gone.
    FilterChains(Vec<String>),
}

/// What `changes`, which lead from `before` to `after`, are to the proxies of `fleet`.
pub fn effect(before: &Catalog, after: &Catalog, fleet: &Name, changes: &FleetChanges) -> Effect {
    let mut effect = Effect::default();
    // Whoever takes the routes of a listener whole is not told of its hosts, but of all of them.
    let is_whole = |listener: &Name| {
        let mut listeners = [before, after].into_iter().filter_map(|catalog| catalog.listener(listener));
        listeners.any(|listener| listener.route_delivery == RouteDelivery::Whole)
    };
    let mut joined = Vec::new();
    let mut joins = |id: &ResourceId| match id.routes_of() {
        Some(listener) if !matches!(id, ResourceId::WholeRoutes(_)) && is_whole(listener) => {
            joined.push(route::route_configuration_name(listener, RouteDelivery::Whole));
            true
        }
        _ => false,
    };
    let removed: BTreeMap<_, _> = changes.removed.iter().map(|id| ((id.type_url(), id.name()), id)).collect();
    for (key, id) in &removed {
        if joins(id) {
            continue;
        }
        effect.resources.insert(key.clone(), ResourceChange::Removed);
        if key.0 == type_url::LISTENER {
            effect.drains.insert(key.1.clone(), Drain::Removed);
        }
    }
    for (id, new) in &changes.put {
        let key = (id.type_url(), id.name());
        // A name that a patch takes over, or gives back, is removed under one id and put under another.
        let old = snapshot::one(before, fleet, removed.get(&key).copied().unwrap_or(id));
        if old.as_ref() == Some(new) {
            effect.resources.remove(&key);
        }
        if key.0 == type_url::LISTENER {
            effect.drains.remove(&key.1);
        }
        if old.as_ref() == Some(new) || joins(id) {
            continue;
        }
        if let Some(old) = old.as_ref().filter(|_| key.0 == type_url::LISTENER) {
            effect.drains.extend(drain(old, new).map(|drain| (key.1.clone(), drain)));
        }
        let change = if old.is_some() { ResourceChange::Changed } else { ResourceChange::Added };
        effect.resources.insert(key, change);
    }
    for name in joined {
        effect.resources.entry((type_url::ROUTE, name)).or_insert(ResourceChange::Changed);
    }
    effect
}

/// Which connections drain when the one listener takes the place of the other.
fn drain(old: &Bytes, new: &Bytes) -> Option<Drain> {
    let (Ok(mut old), Ok(mut new)) = (EnvoyListener::decode(old.clone()), EnvoyListener::decode(new.clone())) else {
        return Some(Drain::Replaced);
    };
    let (chains, later) = (take_chains(&mut old), take_chains(&mut new));
    let listed = later.iter().filter(|(name, _)| *name != DEFAULT).count();
    let proxied =
        |chains: &[(String, FilterChain)]| chains.first().is_some_and(|(_, chain)| uses_proxy_protocol(chain));
    match () {
        () if (&old.address, &old.additional_addresses) != (&new.address, &new.additional_addresses) => {
            Some(Drain::Moved)
        }
        () if old != new || old.fcds_config.is_some() => Some(Drain::Replaced),
        () if listed == 0 || proxied(&chains) != proxied(&later) => Some(Drain::Replaced),
        () => {
            let stays = |chain: &FilterChain| later.iter().any(|(_, other)| other == chain);
            let gone: Vec<_> = chains.into_iter().filter(|(_, chain)| !stays(chain)).map(|(name, _)| name).collect();
            (!gone.is_empty()).then_some(Drain::FilterChains(gone))
        }
    }
}

/// What the chain is called that takes what no other matches.
const DEFAULT: &str = "(default)";

/// Takes the filter chains out of a listener, each under its name or, without one, its place; and what chooses between them.
fn take_chains(listener: &mut EnvoyListener) -> Vec<(String, FilterChain)> {
    listener.filter_chain_matcher = None;
    let chains = std::mem::take(&mut listener.filter_chains).into_iter().enumerate();
    let named = chains.map(|(index, chain)| {
        let name = if chain.name.is_empty() { format!("filter_chains[{index}]") } else { chain.name.clone() };
        (name, chain)
    });
    named.chain(listener.default_filter_chain.take().map(|chain| (DEFAULT.to_owned(), chain))).collect()
}

#[expect(deprecated, reason = "Envoy still asks for it")]
fn uses_proxy_protocol(chain: &FilterChain) -> bool {
    chain.use_proxy_proto.is_some_and(|flag| flag.value)
}

#[cfg(test)]
mod tests;
