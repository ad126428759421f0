//! An endpoint that registered itself, and the lease on which it stays.
//!
//! It is no part of the catalog: it comes and goes by itself, many times a second, and nobody wants a revision of
//! each time. It has an id of its own choosing, unique within its service, so that registering twice is renewing.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::service::{Labels, Zone};

/// How long a lease may be.
pub const LEASES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

/// How many endpoints of one service may be registered.
pub const MAX_PER_SERVICE: usize = 10_000;

/// What an endpoint calls itself: 1 to 128 of `A-Z`, `a-z`, `0-9`, `.`, `_`, `:` and `-`.
///
/// Cloning shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EndpointId(Arc<str>);

/// A text is no [`EndpointId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to 128 characters of A-Z, a-z, 0-9, '.', '_', ':' and '-'")]
pub struct InvalidEndpointId;

/// What is registered of an endpoint. Its text form is stored, and compared to tell a renewal from a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisteredEndpoint {
    /// Where it is; one machine, see [`RegisteredEndpoint::is_one_machine`].
    pub address: IpAddr,
    /// Its port, never zero.
    pub port: u16,
    /// When it is used: while too few of those with a lower number are well.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: u32,
    /// Its share of the load relative to the other endpoints, 1 to 128.
    pub weight: u32,
    /// What tells it apart from others.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// In which zone it is, if that is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    /// Whether it is to be used.
    pub health: Health,
}

/// What an endpoint says of itself, the best last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It gets no requests.
    Unhealthy,
    /// It gets no new requests; those under way are finished.
    Draining,
    /// It gets requests while there are too few healthy ones.
    Degraded,
    /// It gets requests.
    #[default]
    Healthy,
}

/// What was stored before there were priorities stays what it was.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl RegisteredEndpoint {
    /// Whether this is the address of one machine, and not of all or of a group.
    pub fn is_one_machine(address: IpAddr) -> bool {
        !(address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST))
    }
}

impl EndpointId {
    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EndpointId {
    type Err = InvalidEndpointId;

    fn from_str(text: &str) -> Result<Self, InvalidEndpointId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if (1..=128).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidEndpointId)
        }
    }
}

impl TryFrom<String> for EndpointId {
    type Error = InvalidEndpointId;

    fn try_from(text: String) -> Result<Self, InvalidEndpointId> {
        text.parse()
    }
}

impl From<EndpointId> for String {
    fn from(id: EndpointId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain() {
        let valid = |text: &str| text.parse::<EndpointId>().is_ok();
        assert!(valid("10.0.0.1:8080") && valid("checkout-7f_A") && valid(&"x".repeat(128)));
        assert!(!valid("") && !valid("a/b") && !valid("a b") && !valid("é") && !valid(&"x".repeat(129)));
    }

    #[test]
    fn an_address_is_of_one_machine() {
        let one = |text: &str| RegisteredEndpoint::is_one_machine(text.parse().expect("an address"));
        assert!(one("10.0.0.1") && one("::1"));
        assert!(!one("0.0.0.0") && !one("255.255.255.255") && !one("224.0.0.1") && !one("ff02::1") && !one("::"));
    }
}
