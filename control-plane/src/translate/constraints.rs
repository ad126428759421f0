//! Whether Envoy would take what an edit makes of its resources.
//!
//! Only what is about to be sent anew is looked at, so the work is that of the edit. The model's parser lets
//! nothing through of which we know that Envoy refuses it, so what is found here comes from a patch, or from a gap in
//! our knowledge: it is told of the resource that can be mended, with the place in Envoy's message.

use std::collections::{BTreeMap, HashSet};

use chancery_proto::{
    Message,
    describe::{Violation, check},
    envoy::route::VirtualHost,
    type_url,
};

use super::snapshot::{FleetChanges, ResourceId};
use crate::model::{
    Catalog, Key, Kind, Name, Problem, Problems,
    envoy_patch::{EnvoyPatch, PatchChange},
};

/// Everything that Envoy would refuse of what `changes` put, which lead to `catalog`.
pub fn refused(catalog: &Catalog, changes: &BTreeMap<Name, FleetChanges>) -> Vec<Problem> {
    let mut problems = Problems::default();
    let mut seen = HashSet::new();
    for (fleet, FleetChanges { put, misfits, .. }) in changes {
        for misfit in misfits {
            let key = Key::new(Kind::EnvoyPatch, misfit.patch.clone());
            let place = catalog
                .envoy_patch(&misfit.patch)
                .map_or(Place::default(), |patch| Place::of(patch, &misfit.violation));
            problems.about(key.to_string()).at_path(&place.path).report(format!("does not fit: {}", place.reason));
        }
        for (id, bytes) in put {
            // Fleets that share a service share its messages.
            if !seen.insert((id.type_url(), bytes)) {
                continue;
            }
            for violation in check(id.type_url(), bytes).into_iter().chain(misnamed(id, bytes)) {
                let (key, place) = blame(catalog, fleet, id, bytes, &violation);
                problems.about(key.to_string()).at_path(&place.path).report(format!(
                    "makes a {} {} that Envoy would refuse: {}",
                    type_url::short_name(id.type_url()),
                    id.name(),
                    place.reason
                ));
            }
        }
    }
    problems.into_sorted_vec()
}

/// A message must be called what its resource is called: proxies go by the one to set it, by the other to remove it.
fn misnamed(id: &ResourceId, bytes: &[u8]) -> Option<Violation> {
    /// The field that every type of resource has first.
    #[derive(Clone, PartialEq, Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }
    let (name, wanted) = (Named::decode(bytes).ok()?.name, id.name());
    let path = if id.type_url() == type_url::ENDPOINT { "cluster_name" } else { "name" };
    (!name.is_empty() && name != wanted)
        .then(|| Violation { path: path.to_owned(), reason: format!("must be {wanted:?}, as the resource is called") })
}

/// Where in a document, and what is said there.
#[derive(Default)]
struct Place {
    path: String,
    reason: String,
}

impl Place {
    fn new(path: &str, violation: &Violation) -> Self {
        Self { path: path.to_owned(), reason: violation.to_string() }
    }

    /// The place in a patch, if the violation is in what it merges.
    fn of(patch: &EnvoyPatch, violation: &Violation) -> Self {
        let within = |path: &str| {
            let rest = violation.path.strip_prefix(path)?;
            (path.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
                .then(|| rest.trim_start_matches('.').to_owned())
        };
        match &patch.change {
            PatchChange::Add { .. } => Self::new("spec.resource", violation),
            PatchChange::Merge { path, .. } => match within(&path.to_string()) {
                Some(rest) if rest.is_empty() || rest.starts_with('[') => {
                    Self { path: format!("spec.merge{rest}"), reason: violation.to_string() }
                }
                Some(rest) => Self { path: format!("spec.merge.{rest}"), reason: violation.to_string() },
                None => Self::new("spec.path", violation),
            },
        }
    }
}

/// The resource that can be mended.
fn blame(catalog: &Catalog, fleet: &Name, id: &ResourceId, bytes: &[u8], violation: &Violation) -> (Key, Place) {
    // What is translated was accepted before anybody patched it; of several patches, the one that reaches the place.
    let patches = catalog.patches_of_resource(fleet, &id.resource()).filter_map(|name| catalog.envoy_patch(name));
    let mut patches: Vec<&EnvoyPatch> = patches.map(AsRef::as_ref).collect();
    patches.sort_by_key(|patch| match &patch.change {
        PatchChange::Merge { path, .. } if violation.path.starts_with(&path.to_string()) => 1 + path.to_string().len(),
        _ => 0,
    });
    if let Some(patch) = patches.last() {
        return (Key::new(Kind::EnvoyPatch, patch.name.clone()), Place::of(patch, violation));
    }
    if let ResourceId::VirtualHost(..) = id
        && let Some((route, index)) = rule(bytes, violation)
    {
        return (Key::new(Kind::Route, route), Place::new(&format!("spec.rules[{index}]"), violation));
    }
    let (origin, path) = origin(fleet, id);
    (origin, Place::new(path, violation))
}

/// The resource that what `fleet` gets as `id` is made from, patches aside, and where in it.
pub(crate) fn origin(fleet: &Name, id: &ResourceId) -> (Key, &'static str) {
    let own = |kind, name: &Name, path| (Key::new(kind, name.clone()), path);
    match id {
        ResourceId::RateLimiter => own(Kind::Fleet, fleet, "spec.rateLimiter"),
        ResourceId::Cluster(name) => own(Kind::Service, name, "spec"),
        ResourceId::Endpoints(name) => own(Kind::Service, name, "spec.endpoints"),
        ResourceId::Listener(name)
        | ResourceId::Http3(name)
        | ResourceId::RouteConfiguration(name)
        | ResourceId::WholeRoutes(name)
        | ResourceId::VirtualHost(name, _) => own(Kind::Listener, name, "spec"),
        ResourceId::Added(_) => own(Kind::Fleet, fleet, "spec"),
    }
}

/// The rule that made the entry of a virtual host in which the violation is; the entry is called so.
fn rule(host: &[u8], violation: &Violation) -> Option<(Name, usize)> {
    let (index, _) = violation.path.strip_prefix("routes[")?.split_once(']')?;
    let host = VirtualHost::decode(host).ok()?;
    let (route, index) = host.routes.get(index.parse::<usize>().ok()?)?.name.split_once('/')?;
    Some((route.parse().ok()?, index.parse().ok()?))
}

#[cfg(test)]
mod tests;
