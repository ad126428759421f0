//! The control plane: model, translation, store, API, xDS publishing, identity.

pub mod api;
pub mod model;
pub mod store;
