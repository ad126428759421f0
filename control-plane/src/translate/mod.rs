//! From the catalog to Envoy's own messages. Pure: no clock, no IO, nothing that can fail.
//!
//! Nothing fails because the parsed model holds only what Envoy accepts; where Envoy is stricter than the
//! language of the users, the model's parser refuses, with the path of the field, before anything gets
//! here. A test runs a real Envoy over a catalog that uses every feature at once. Raw patches ([`envoy_patch`]) are the
//! exception: what they make is held to Envoy's own constraints ([`constraints`]) before it is stored.
//!
//! Same input, same bytes: whatever has no order in the model is sorted before it is encoded, and a
//! message that holds a map with more than one entry is written by a function of its own, in order. The version of a resource is a hash of its
//! bytes, so an order that wavers would push what has not changed.
//!
//! One file per kind of message ([`cluster`], [`endpoint`], [`route`], [`listener`], [`tcp`], [`rate_limit`]); [`snapshot`]
//! decides which of them a fleet gets, and what one edit changes; [`effect`] tells what that is to proxies.

mod access;
pub(crate) mod access_log;
mod authorizer;
mod buffer;
pub mod cluster;
mod composite;
mod compression;
pub mod constraints;
mod cors;
pub mod effect;
pub mod endpoint;
pub mod envoy_patch;
mod fault;
mod filter;
pub mod http3;
mod jwt;
pub mod listener;
mod local_rate_limit;
mod metadata;
pub mod rate_limit;
pub mod route;
mod session;
pub mod snapshot;
pub mod tcp;
mod tls;
mod tracing;
pub(crate) mod value;

#[cfg(test)]
pub(crate) mod testing;
