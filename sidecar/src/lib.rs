//! A sidecar proxy beside a service: it takes the service's requests in and sends its calls out.
//!
//! - [`policy`] decides, and only decides: when a breaker opens, whether a retry may be made, how many requests may
//!   be under way. No clock, no chance, no IO: time and random numbers come in as arguments.
//! - [`layer`] does what a policy decided: one thin tower layer for each.

pub mod layer;
pub mod policy;
