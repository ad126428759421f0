//! The control plane: model, translation, store, API, xDS publishing, identity.

pub mod bootstrap;
pub mod model;
pub mod store;
pub mod translate;
