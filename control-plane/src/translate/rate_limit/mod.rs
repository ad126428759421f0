//! Limits as the proxies and the limiter see them.
//!
//! A proxy asks its fleet's limiter about each request on a route with limits, with one descriptor per limit
//! ([`descriptors()`]); the limiter has what is admitted from its own resource ([`domain()`]). The domain is the
//! fleet's name, so limits of the same name on two fleets are counted apart.
//!
//! Whether a listener asks at all depends on the fleet alone ([`filter`]): the first limit of a fleet must not
//! drain the connections of its listeners.

mod descriptors;
mod domain;
mod limiter;

pub use descriptors::{LIMIT_KEY, descriptors};
pub use domain::{all, changes, domain};
pub use limiter::{CA_SECRET, CLUSTER, FILTER, IDENTITY_SECRET, cluster, filter};

#[cfg(test)]
mod tests;
