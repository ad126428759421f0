//! Connections that are carried as they are: nobody reads what is said on them. Pure.

use std::time::Duration;

use super::{access::Access, route::Target};

/// What becomes of the connections of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Tcp {
    /// The targets, at least one, weights adding up to at least 1, services without duplicates.
    pub to: Vec<Target>,
    /// Whose connections are carried, besides what the listener says: by networks alone, since nobody sees certificates or headers here.
    pub access: Option<Access>,
    /// Time without a byte in either direction; `None` is the listener's.
    pub idle_timeout: Option<Duration>,
    /// How many endpoints are tried until one takes the connection, at least 1.
    pub connect_attempts: u32,
}
