//! The xDS transport protocol: how configuration gets to a fleet of proxies, and how they answer.
//!
//! A [`Cache`] holds what a group of clients is to have, encoded once. An [`XdsServer`]
//! serves it over gRPC, incremental and state-of-the-world, aggregated and one type at a time, to the
//! clients that your [`Admit`] lets in. What a resource means is not its business.
//!
//! The decisions (`subscription`, `session`, `order`) are pure and can be read without the rest.

pub mod cache;
mod codec;
pub mod metrics;
mod order;
pub mod resource;
pub mod server;
mod session;
pub mod status;
pub mod subscription;

pub use cache::{Cache, Update};
pub use resource::{Name, Resource, TypeUrl, Version};
pub use server::{Admission, Admit, Hello, Protocol, StreamSettings, XdsServer};
pub use status::{Rejection, SharedStatus, Stamp, StreamStatus, TypeStatus};
