//! What stands in rules although other resources say it: the limits that they name, and how the services that they send to keep
//! sessions.

use std::collections::BTreeMap;

use crate::model::{Catalog, Name, rate_limit::RateLimit, route::Route, service::SessionAffinity};

/// What the rules of some routes refer to.
#[derive(Debug, Default)]
pub struct References<'a> {
    /// The limits.
    pub limits: BTreeMap<&'a Name, &'a RateLimit>,
    /// How the services keep sessions, if they do.
    pub affinities: BTreeMap<&'a Name, &'a SessionAffinity>,
}

impl<'a> References<'a> {
    /// What the rules of `routes` refer to in `catalog`.
    pub fn of(routes: impl Iterator<Item = &'a Route> + Clone, catalog: &'a Catalog) -> Self {
        let limits = routes.clone().flat_map(Route::rate_limits);
        let services = routes.flat_map(Route::services);
        Self {
            limits: limits.filter_map(|limit| Some((limit, &**catalog.rate_limit(limit)?))).collect(),
            affinities: services
                .filter_map(|name| Some((name, catalog.service(name)?.session_affinity.as_ref()?)))
                .collect(),
        }
    }

    /// Whether the same rules mean the same with `other`: the names of their limits are the same, too.
    pub fn mean_the_same_as(&self, other: &References<'_>) -> bool {
        let Self { limits, affinities } = self;
        *affinities == other.affinities
            && limits.values().zip(other.limits.values()).all(|(ours, theirs)| ours.counts_as(theirs))
    }
}
