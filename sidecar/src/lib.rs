//! A sidecar proxy beside a service: it takes the service's requests in and sends its calls out.
//!
//! - [`policy`] decides, and only decides: when a breaker opens, whether a retry may be made, how many requests may
//!   be under way. No clock, no chance, no IO: time and random numbers come in as arguments.
//! - [`layer`] makes requests obey it: one thin tower layer for each policy.
//! - [`config`] makes of xDS what is to be done, or says what cannot be.
//! - [`proxy`] is the way of a request through all of it.
//! - [`app`] wires it together; [`settings`] says what can be set.

pub mod admin;
pub mod app;
pub mod config;
pub mod layer;
pub mod metrics;
pub mod policy;
pub mod proxy;
pub mod settings;

#[cfg(test)]
mod tests;
