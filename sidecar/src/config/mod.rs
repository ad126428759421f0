//! Where the configuration comes from, and what it is.
//!
//! - [`snapshot`], [`routes`] and [`tcp`]: what it is. Pure.
//! - [`share`]: which of several clusters. Pure.
//! - [`from_xds`]: Envoy's messages into that, or every problem. Pure.
//! - [`ignored`]: which fields of a message say something that the sidecar does not look at. Pure.
//! - [`held`]: what was received and is in force, and what a server is told about the rest. Pure.
//! - [`bootstrap`]: who the sidecar is, and where its control plane is.
//! - [`ads`]: the subscription.

pub mod ads;
pub mod bootstrap;
pub mod from_xds;
pub mod held;
pub mod ignored;
pub mod routes;
pub mod share;
pub mod snapshot;
pub mod tcp;
pub mod tls;
