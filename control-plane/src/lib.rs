//! The control plane: model, translation, store, API, xDS publishing, identity.

// The store's conformance suite is compiled here and in the end-to-end tests, and names this crate
// in the same way in both.
#[cfg(test)]
extern crate self as chancery_control_plane;

pub mod access;
pub mod admission;
pub mod api;
pub mod app;
pub mod audit;
pub mod backup;
pub mod bootstrap;
pub mod commit;
pub mod connections;
pub mod csds;
pub mod enrolment;
pub mod explain;
pub mod feed;
pub mod gauges;
pub mod identity;
pub mod import;
pub mod load;
pub mod metrics;
pub mod model;
pub mod oidc;
pub mod proxies;
pub mod publish;
pub mod quarantine;
pub mod registry;
pub mod replica;
pub mod rollout;
pub mod seen;
pub mod services;
pub mod settings;
pub mod store;
pub mod tokens;
pub mod translate;
pub mod verdict;
