//! Areas of the API, and a right to read or write one of them: `routes:write`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::model::Kind;

/// A part of the API that is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// The resources of a kind.
    Resources(Kind),
    /// Endpoints that register themselves.
    Endpoints,
    /// The history.
    Revisions,
    /// Who is connected, and what it has.
    Proxies,
    /// How far revisions have come to fleets that get them in stages.
    Rollouts,
    /// What fleets are not served.
    Quarantine,
    /// How much traffic services have.
    Load,
    /// What happens.
    Events,
    /// Tokens.
    Tokens,
    /// How machines become proxies.
    Enrolments,
    /// Who did what.
    Audit,
}

impl Area {
    /// All that are not the resources of a kind.
    const OTHERS: [Self; 10] = [
        Self::Endpoints,
        Self::Revisions,
        Self::Proxies,
        Self::Rollouts,
        Self::Quarantine,
        Self::Load,
        Self::Events,
        Self::Tokens,
        Self::Enrolments,
        Self::Audit,
    ];

    /// Every area.
    pub fn all() -> impl Iterator<Item = Self> {
        Kind::ALL.into_iter().map(Self::Resources).chain(Self::OTHERS)
    }

    /// As it stands in a scope and in a path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resources(kind) => kind.collection(),
            Self::Endpoints => "endpoints",
            Self::Revisions => "revisions",
            Self::Proxies => "proxies",
            Self::Rollouts => "rollouts",
            Self::Quarantine => "quarantine",
            Self::Load => "load",
            Self::Events => "events",
            Self::Tokens => "tokens",
            Self::Enrolments => "enrolments",
            Self::Audit => "audit",
        }
    }
}

/// What is done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// It is looked at.
    Read,
    /// It is changed.
    Write,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// A right to read, or to read and write, one area or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Scope {
    /// None: every area.
    area: Option<Area>,
    verb: Verb,
}

/// A text that is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a scope; write area:read or area:write, where area is * or one of {known}", known = areas())]
pub struct UnknownScope(String);

fn areas() -> String {
    Area::all().map(Area::as_str).collect::<Vec<_>>().join(", ")
}

impl Scope {
    /// The right to do everything.
    pub const ALL: Self = Self { area: None, verb: Verb::Write };

    /// The right to do `verb` to `area`.
    pub fn new(verb: Verb, area: Area) -> Self {
        Self { area: Some(area), verb }
    }

    /// Whether whoever has it has all that `other` gives.
    pub fn covers(self, other: Self) -> bool {
        self.verb >= other.verb && (self.area.is_none() || self.area == other.area)
    }

    /// Whether whoever has it may do `verb` to `area`. Who may write may read.
    pub fn allows(self, verb: Verb, area: Area) -> bool {
        self.verb >= verb && self.area.is_none_or(|own| own == area)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.area.map_or("*", Area::as_str), self.verb.as_str())
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let parse = || {
            let (area, verb) = text.split_once(':')?;
            let area = match area {
                "*" => None,
                named => Some(Area::all().find(|area| area.as_str() == named)?),
            };
            let verb = [Verb::Read, Verb::Write].into_iter().find(|known| known.as_str() == verb)?;
            Some(Self { area, verb })
        };
        parse().ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

impl TryFrom<String> for Scope {
    type Error = UnknownScope;

    fn try_from(text: String) -> Result<Self, UnknownScope> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_an_area_and_a_verb() {
        for text in ["routes:write", "rate-limits:read", "tokens:write", "*:read", "*:write"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for text in ["routes", "routes:", ":read", "route:read", "routes:*", "Routes:read", "routes:read ", ""] {
            assert!(text.parse::<Scope>().unwrap_err().to_string().contains("rate-limits, routes"), "{text}");
        }
    }

    #[test]
    fn a_scope_allows_its_area_and_who_writes_reads() {
        use Verb::{Read, Write};
        let routes = Area::Resources(Kind::Route);
        for (scope, verb, area, allows) in [
            ("routes:write", Write, routes, true),
            ("routes:write", Read, routes, true),
            ("routes:read", Read, routes, true),
            ("routes:read", Write, routes, false),
            ("routes:write", Read, Area::Load, false),
            ("*:read", Read, Area::Tokens, true),
            ("*:read", Write, routes, false),
            ("*:write", Write, Area::Tokens, true),
        ] {
            assert_eq!(scope.parse::<Scope>().unwrap().allows(verb, area), allows, "{scope} {verb:?} {area:?}");
        }
    }
}
