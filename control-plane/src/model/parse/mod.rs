//! From documents to parsed resources, with every problem reported.
//!
//! Three steps: [`parse_document`] reads the envelope, `wire` checks that the `spec` has the shape of its kind, and the files here,
//! one per kind, give its values their meaning. A step that finds problems ends the parsing of that document, so
//! no problem is a mere consequence of another; other documents of the same change are still parsed.
//!
//! Invariant: what comes out satisfies every promise in the doc comments of the parsed types, and everything in it
//! is within Envoy's own limits; only references between resources remain to be checked (see `check`).

mod access;
mod access_log;
mod authorizer;
mod compression;
mod document;
mod envoy_patch;
mod fleet;
mod host;
mod jwt;
mod listener;
mod path;
mod rate_limit;
mod registration;
mod rollout;
mod route;
mod rule;
mod service;
mod tcp;
mod team;
mod template;
mod text;
mod tracing;

use std::sync::Arc;

pub use access_log::examples as access_log_operators;
pub use document::parse_document;
pub(in crate::model) use envoy_patch::RATE_LIMITER;
pub use registration::{Registered, Registrations, registration, registrations};

use super::{
    Document, Kind,
    problem::Problems,
    resource::Resource,
    wire::{EnvoyPatchSpec, FleetSpec, ListenerSpec, RateLimitSpec, RouteSpec, ServiceSpec, TeamSpec, Wire},
};

/// The resource that `document` describes; `None` if `problems` now says why not.
pub fn parse(document: &Document, problems: &mut Problems) -> Option<Resource> {
    let mut problems = problems.about(document.key().to_string());
    let mut problems = problems.at("spec");
    let before = problems.count();
    let (name, spec) = (document.name.clone(), &document.spec);
    let resource = match document.kind {
        Kind::Fleet => {
            let spec = FleetSpec::read(spec, &mut problems)?;
            Resource::Fleet(Arc::new(fleet::fleet(name, &spec, &mut problems)?))
        }
        Kind::Listener => {
            let spec = ListenerSpec::read(spec, &mut problems)?;
            Resource::Listener(Arc::new(listener::listener(name, &spec, &mut problems)?))
        }
        Kind::Team => {
            let spec = TeamSpec::read(spec, &mut problems)?;
            Resource::Team(Arc::new(team::team(name, &spec, &mut problems)?))
        }
        Kind::Service => {
            let spec = ServiceSpec::read(spec, &mut problems)?;
            Resource::Service(Arc::new(service::service(name, &spec, &mut problems)?))
        }
        Kind::RateLimit => {
            let spec = RateLimitSpec::read(spec, &mut problems)?;
            Resource::RateLimit(Arc::new(rate_limit::rate_limit(name, &spec, &mut problems)?))
        }
        Kind::Route => {
            let spec = RouteSpec::read(spec, &mut problems)?;
            Resource::Route(Arc::new(route::route(name, &spec, &mut problems)?))
        }
        Kind::EnvoyPatch => {
            let spec = EnvoyPatchSpec::read(spec, &mut problems)?;
            Resource::EnvoyPatch(Arc::new(envoy_patch::envoy_patch(name, &spec, &mut problems)?))
        }
    };
    (problems.count() == before).then_some(resource)
}

#[cfg(test)]
mod tests;
