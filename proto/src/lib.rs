//! The protobuf messages that the parts of Chancery exchange with Envoy and with each other.
//!
//! [`envoy`] gives Envoy's generated messages short names, so that a translation reads
//! `cluster::Cluster` and not seven path segments; [`type_url`] names the types that travel over
//! xDS, and [`any`] packs one message into another, [`cel`] writes conditions. [`chancery`] has the messages that are our own. Nothing here knows
//! what the messages are for.
//!
//! Envoy's generated code comes from the `envoy-types` crate and is compiled once, there. Its `Any`,
//! `Duration` and wrappers are its own types ([`google`]), not those of `prost-types`: use these
//! wherever a message of Envoy holds one.

pub mod any;
pub mod cel;
pub mod chancery;
pub mod describe;
pub mod envoy;
pub mod reflection;
pub mod type_url;

pub use envoy_types::pb::google;
pub use prost::{Message, Name};
