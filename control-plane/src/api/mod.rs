//! The REST API: what users, scripts and the command line say to the control plane.
//!
//! A handler parses, delegates, answers. One set of handlers serves every kind of resource; every
//! write, of one resource or of many, becomes one change set for [`Commit`]; every error leaves as problem
//! details (RFC 9457). What a request may cost is bounded: its body, its nesting, its time.

mod apply;
mod author;
mod blame;
mod body;
mod compare;
mod condition;
mod diff;
mod endpoints;
mod envelope;
mod error;
mod events;
mod explain;
mod export;
mod listing;
mod load;
mod merge_patch;
mod observe;
mod openapi;
mod params;
mod plan;
mod problem;
mod proxies;
mod quarantine;
mod resources;
mod revisions;
mod rollouts;
mod router;
pub mod schemas;
pub mod text;
mod tokens;
mod traffic;
mod view;
mod write;

use std::sync::Arc;

pub use openapi::document as openapi;
pub use problem::ProblemDetails;
pub use router::router;
pub use view::ResourceView;

use crate::{
    commit::Commit, feed::Feed, identity::token::AdminToken, load::Loads, proxies::Proxies, publish::Publisher,
    registry::Registry, replica::Replica, rollout::Stages, tokens::Tokens,
};

/// The parts that the API speaks for.
#[derive(Clone)]
pub struct Api {
    /// What fleets are served.
    pub publisher: Arc<Publisher>,
    /// The catalog, for reading, and the history in the store behind it.
    pub replica: Arc<Replica>,
    /// The way of every change.
    pub commit: Commit,
    /// Endpoints that register themselves.
    pub registry: Arc<Registry>,
    /// Who is connected and what it has applied.
    pub proxies: Arc<Proxies>,
    /// What happens.
    pub feed: Arc<Feed>,
    /// How much traffic services have.
    pub loads: Arc<Loads>,
    /// How far revisions have come to fleets that get them in stages.
    pub stages: Arc<Stages>,
    /// The token that allows everything.
    pub admin_token: Arc<AdminToken>,
    /// All others.
    pub tokens: Arc<Tokens>,
}

#[cfg(test)]
mod tests;
