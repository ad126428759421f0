//! The REST API: what users, scripts and the command line say to the control plane.
//!
//! A handler parses, delegates, answers. One set of handlers serves every kind of resource; every
//! write, of one resource or of many, becomes one change set for [`Commit`]; every error leaves as problem
//! details (RFC 9457). What a request may cost is bounded: its head, its body, its nesting, its time; and how many one caller
//! may make (`guard`).

mod apply;
mod audit;
mod author;
mod blame;
mod body;
mod compare;
mod condition;
mod cors;
mod deprecation;
mod diff;
mod endpoints;
mod enrolments;
mod envelope;
mod error;
mod events;
mod explain;
mod export;
mod guard;
mod idempotency;
mod listing;
mod lives;
mod load;
mod merge_patch;
mod observe;
mod openapi;
mod page;
mod params;
mod plan;
mod problem;
mod proxies;
mod quarantine;
mod record;
mod resources;
mod revisions;
mod rollouts;
mod router;
pub mod schemas;
mod seen;
mod server;
mod sign_in;
pub mod text;
mod tokens;
mod traffic;
mod view;
mod write;

use std::sync::Arc;

pub use cors::{InvalidOrigin, Origins};
pub use guard::{Guard, InvalidNetwork, Networks, Rates};
pub use openapi::document as openapi;
pub use problem::ProblemDetails;
pub use router::router;
pub use server::serve;
pub use view::ResourceView;

use crate::{
    audit::Audit, commit::Commit, enrolment::Enrolments, feed::Feed, identity::token::AdminToken, load::Loads,
    oidc::SignIn, proxies::Proxies, publish::Publisher, registry::Registry, replica::Replica, rollout::Stages,
    seen::Seen, tokens::Tokens,
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
    /// Which requests fleets have seen.
    pub seen: Arc<Seen>,
    /// How far revisions have come to fleets that get them in stages.
    pub stages: Arc<Stages>,
    /// The token that allows everything.
    pub admin_token: Arc<AdminToken>,
    /// All others.
    pub tokens: Arc<Tokens>,
    /// How machines become proxies.
    pub enrolments: Arc<Enrolments>,
    /// Who did what.
    pub audit: Arc<Audit>,
    /// How much one caller may ask for.
    pub guard: Arc<Guard>,
    /// People who sign in with an issuer, if there is one.
    pub sign_in: Option<Arc<SignIn>>,
    /// Pages of which origins may ask from a browser.
    pub origins: Origins,
}

#[cfg(test)]
mod tests;
