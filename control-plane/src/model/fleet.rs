//! A group of Envoys with one configuration.

use std::time::Duration;

use super::Name;

/// A fleet, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// The name; proxies carry it in their certificate and as `node.cluster`.
    pub name: Name,
    /// The timeout of a rule that sets none.
    pub default_timeout: Duration,
    /// How many proxies in front of the fleet append to `x-forwarded-for` and are trusted.
    pub trusted_hops: u32,
}
