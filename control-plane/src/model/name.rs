//! What things are called: resource names, kinds, keys.
//!
//! A [`Name`] is a DNS label, so it can stand in a URL, a file name, a SPIFFE path and an Envoy
//! resource name without escaping; nothing else can be constructed.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// A DNS label: 1 to 63 of `a-z`, `0-9` and `-`, neither first nor last a hyphen (RFC 1123).
///
/// Cloning shares the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The text is empty.
    #[error("must not be empty")]
    Empty,
    /// The text has more than 63 characters.
    #[error("must have at most 63 characters")]
    TooLong,
    /// A character is not allowed at its place.
    #[error("must consist of a-z, 0-9 and '-', and neither start nor end with '-'")]
    Character,
}

impl Name {
    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if text.len() > 63 {
            return Err(InvalidName::TooLong);
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !text.bytes().all(allowed) || text.starts_with('-') || text.ends_with('-') {
            return Err(InvalidName::Character);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The kinds of resource, in the order in which a change of several is best read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A group of Envoys with one configuration.
    Fleet,
    /// A port of a fleet.
    Listener,
    /// An owner of services, limits and routes.
    Team,
    /// An upstream.
    Service,
    /// What is counted, and how much of it is admitted.
    RateLimit,
    /// Hosts and ordered rules on listeners.
    Route,
    /// Raw configuration of Envoy.
    EnvoyPatch,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 7] =
        [Kind::Fleet, Kind::Listener, Kind::Team, Kind::Service, Kind::RateLimit, Kind::Route, Kind::EnvoyPatch];

    /// The name as it stands in a document: `Route`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Fleet => "Fleet",
            Kind::Listener => "Listener",
            Kind::Team => "Team",
            Kind::Service => "Service",
            Kind::RateLimit => "RateLimit",
            Kind::Route => "Route",
            Kind::EnvoyPatch => "EnvoyPatch",
        }
    }

    /// One of the collection: `rate-limit`.
    pub fn singular(self) -> &'static str {
        match self {
            Kind::Fleet => "fleet",
            Kind::Listener => "listener",
            Kind::Team => "team",
            Kind::Service => "service",
            Kind::RateLimit => "rate-limit",
            Kind::Route => "route",
            Kind::EnvoyPatch => "envoy-patch",
        }
    }

    /// The collection in the API: `routes`.
    pub fn collection(self) -> &'static str {
        match self {
            Kind::Fleet => "fleets",
            Kind::Listener => "listeners",
            Kind::Team => "teams",
            Kind::Service => "services",
            Kind::RateLimit => "rate-limits",
            Kind::Route => "routes",
            Kind::EnvoyPatch => "envoy-patches",
        }
    }
}

/// No kind has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind {0:?}; known are Fleet, Listener, Team, Service, RateLimit, Route, EnvoyPatch")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What identifies a resource: `Route/checkout`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// The kind.
    pub kind: Kind,
    /// The name, unique per kind.
    pub name: Name,
}

impl Key {
    /// The key of the resource `name` of `kind`.
    pub fn new(kind: Kind, name: Name) -> Self {
        Self { kind, name }
    }

    /// The key that is displayed as `text`, if one is.
    pub fn read(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('/')?;
        Some(Self::new(kind.parse().ok()?, name.parse().ok()?))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}
