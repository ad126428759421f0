//! A parsed resource of any kind.

use std::sync::Arc;

use super::{
    Key, Kind, Name, envoy_patch::EnvoyPatch, fleet::Fleet, listener::Listener, rate_limit::RateLimit, route::Route,
    service::Service, team::Team,
};

/// A parsed resource; cloning shares it.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// A group of Envoys with one configuration.
    Fleet(Arc<Fleet>),
    /// A port of a fleet.
    Listener(Arc<Listener>),
    /// An owner of services, limits and routes.
    Team(Arc<Team>),
    /// An upstream.
    Service(Arc<Service>),
    /// What is counted, and how much of it is admitted.
    RateLimit(Arc<RateLimit>),
    /// Hosts and ordered rules on listeners.
    Route(Arc<Route>),
    /// Raw configuration of Envoy.
    EnvoyPatch(Arc<EnvoyPatch>),
}

impl Resource {
    /// What kind it is of.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Fleet(_) => Kind::Fleet,
            Self::Listener(_) => Kind::Listener,
            Self::Team(_) => Kind::Team,
            Self::Service(_) => Kind::Service,
            Self::RateLimit(_) => Kind::RateLimit,
            Self::Route(_) => Kind::Route,
            Self::EnvoyPatch(_) => Kind::EnvoyPatch,
        }
    }

    /// What it is called.
    pub fn name(&self) -> &Name {
        match self {
            Self::Fleet(fleet) => &fleet.name,
            Self::Listener(listener) => &listener.name,
            Self::Team(team) => &team.name,
            Self::Service(service) => &service.name,
            Self::RateLimit(limit) => &limit.name,
            Self::Route(route) => &route.name,
            Self::EnvoyPatch(patch) => &patch.name,
        }
    }

    /// What identifies it.
    pub fn key(&self) -> Key {
        Key::new(self.kind(), self.name().clone())
    }
}
