//! Who may do what. Pure.
//!
//! A [`Grant`] has a role, which says what kind of thing may be done at all; scopes, which narrow that; and teams, which say
//! to whose resources. Everything is denied unless all three allow it, and a refusal says which of them is missing. A
//! [`Principal`] has one grant or several.
//!
//! - [`scope`]: areas of the API, and a right to read or write one.
//! - [`principal`]: roles, and what each may do.
//! - [`operations`]: what each operation of the API needs before its handler is asked.
//! - [`changes`]: what each resource of a change needs, decided when the change is made.
//!
//! What belongs to a team that a principal may not see is treated as if it did not exist. Names are the exception: they are
//! unique over all teams, so that one is taken cannot be hidden. What belongs to no team is seen by everybody, and written by
//! operators.

pub mod changes;
pub mod operations;
pub mod principal;
pub mod scope;

use std::fmt;

pub use principal::{Grant, Principal, Role};
pub use scope::{Area, Scope, Verb};

use crate::model::{Document, Kind, Name};

/// What somebody lacks for what they wanted to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// At least this role.
    Role(Role),
    /// A scope; only of those whose scopes are listed.
    Scope(Scope),
    /// This team; none: the resource belongs to no team, and only operators write those.
    Team(Option<Name>),
    /// A name that is not taken by what they may not see.
    FreeName,
    /// A rule: nothing says who may do it, so nobody may.
    Rule,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(role) => write!(f, "role {role}"),
            Self::Scope(scope) => write!(f, "scope {scope}"),
            Self::Team(Some(team)) => write!(f, "team {team}"),
            Self::Team(None) => f.write_str("a team (what belongs to none is written by operators)"),
            Self::FreeName => f.write_str("another name (this one is taken by a resource of another team)"),
            Self::Rule => f.write_str("a rule that allows it"),
        }
    }
}

/// Whose a resource is. A team belongs to itself.
pub fn owner(document: &Document) -> Option<&Name> {
    match document.kind {
        Kind::Team => Some(&document.name),
        _ => document.team.as_ref(),
    }
}
