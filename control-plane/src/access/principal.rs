//! Who somebody is to the API: a role, scopes and teams, and what follows from them.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Area, Missing, Scope, Verb};
use crate::model::{Kind, Name};

/// What somebody may do at all; each may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Writes services, limits and routes of its teams, and registers endpoints with their services.
    Owner,
    /// Writes those of every team and of none, fleets, listeners and patches; decides on rollouts and the quarantine.
    Operator,
    /// Writes teams and tokens.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Owner => "owner",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

impl Role {
    /// The least that may do `verb` to `area`, in some team.
    fn least(verb: Verb, area: Area) -> Self {
        match (verb, area) {
            (_, Area::Tokens) | (Verb::Write, Area::Resources(Kind::Team)) => Self::Admin,
            // Entries are about everybody's resources, and about who is let in.
            (Verb::Read, Area::Audit) => Self::Operator,
            (Verb::Read, _) => Self::Viewer,
            (Verb::Write, Area::Resources(Kind::Service | Kind::RateLimit | Kind::Route) | Area::Endpoints) => {
                Self::Owner
            }
            (Verb::Write, _) => Self::Operator,
        }
    }
}

/// Somebody who is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Under which its changes are recorded.
    pub name: String,
    /// What it may do at all.
    pub role: Role,
    /// Whose resources an owner writes, and an owner or a viewer sees. A viewer without any sees all.
    pub teams: BTreeSet<Name>,
    /// What its role is narrowed to; none: nothing is.
    pub scopes: BTreeSet<Scope>,
}

impl Principal {
    /// An admin without bounds.
    pub fn admin(name: &str) -> Self {
        Self { name: name.to_owned(), role: Role::Admin, teams: BTreeSet::new(), scopes: BTreeSet::new() }
    }

    /// Whether role and scopes allow to do `verb` to `area`, whoever it belongs to.
    ///
    /// # Errors
    /// What is missing.
    pub fn may(&self, verb: Verb, area: Area) -> Result<(), Missing> {
        let role = Role::least(verb, area);
        if self.role < role {
            return Err(Missing::Role(role));
        }
        if !self.scopes.is_empty() && !self.scopes.iter().any(|scope| scope.allows(verb, area)) {
            return Err(Missing::Scope(Scope::new(verb, area)));
        }
        Ok(())
    }

    /// Whether role and scopes allow to write resources of any kind.
    ///
    /// # Errors
    /// What is missing.
    pub fn may_write_something(&self) -> Result<(), Missing> {
        let kinds =
            [Kind::Service, Kind::RateLimit, Kind::Route, Kind::Fleet, Kind::Listener, Kind::EnvoyPatch, Kind::Team];
        let mut missing = Ok(());
        for kind in kinds {
            match self.may(Verb::Write, Area::Resources(kind)) {
                Ok(()) => return Ok(()),
                refused => missing = missing.and(refused),
            }
        }
        missing
    }

    /// Whether it may hand out `scopes` (none: all): nobody gives what they have not got.
    ///
    /// # Errors
    /// A scope that is missing.
    pub fn may_grant(&self, scopes: &[Scope]) -> Result<(), Missing> {
        let all = [Scope::ALL];
        let wanted = if scopes.is_empty() { &all } else { scopes };
        let covered = |wanted: &Scope| self.scopes.is_empty() || self.scopes.iter().any(|own| own.covers(*wanted));
        wanted.iter().find(|wanted| !covered(wanted)).map_or(Ok(()), |wanted| Err(Missing::Scope(*wanted)))
    }

    /// Whether it sees what belongs to every team.
    pub fn sees_all(&self) -> bool {
        match self.role {
            Role::Viewer => self.teams.is_empty(),
            Role::Owner => false,
            Role::Operator | Role::Admin => true,
        }
    }

    /// Whether it sees what belongs to `team`, or to none.
    pub fn sees(&self, team: Option<&Name>) -> bool {
        self.sees_all() || team.is_none_or(|team| self.teams.contains(team))
    }

    /// Whether it may write what belongs to `team`, or to none, if role and scopes allow it.
    ///
    /// # Errors
    /// What is missing.
    pub fn writes_of(&self, team: Option<&Name>) -> Result<(), Missing> {
        let own = || team.is_some_and(|team| self.teams.contains(team));
        if self.role > Role::Owner || own() { Ok(()) } else { Err(Missing::Team(team.cloned())) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `owner payments,checkout routes:write,*:read`: role, teams and scopes, `-` for none.
    pub(in crate::access) fn principal(text: &str) -> Principal {
        let mut words = text.split(' ');
        let role = words.next().unwrap();
        let mut listed = || words.next().unwrap_or("-").split(',').filter(|word| *word != "-");
        let teams = listed().map(|team| team.parse().unwrap()).collect();
        let scopes = listed().map(|scope| scope.parse().unwrap()).collect();
        let role = serde_json::from_value(role.into()).unwrap();
        Principal { name: "ci".to_owned(), role, teams, scopes }
    }

    #[test]
    fn each_role_may_do_more_than_the_one_before() {
        use Kind::{EnvoyPatch, Fleet, Listener, RateLimit, Route, Service, Team};
        let resources = |kinds: &[Kind]| kinds.iter().map(|kind| Area::Resources(*kind)).collect::<Vec<_>>();
        let owners = [resources(&[Service, RateLimit, Route]), vec![Area::Endpoints]].concat();
        let operators = [
            resources(&[Fleet, Listener, EnvoyPatch]),
            vec![Area::Revisions, Area::Proxies, Area::Rollouts, Area::Quarantine, Area::Load, Area::Events],
            vec![Area::Audit],
        ]
        .concat();
        for area in Area::all() {
            let least = match area {
                area if owners.contains(&area) => Role::Owner,
                area if operators.contains(&area) => Role::Operator,
                Area::Resources(Team) | Area::Tokens => Role::Admin,
                other => panic!("{other:?} has no row"),
            };
            let reads = match area {
                Area::Tokens => Role::Admin,
                Area::Audit => Role::Operator,
                _ => Role::Viewer,
            };
            for role in ["viewer", "owner", "operator", "admin"].map(principal) {
                for (verb, least) in [(Verb::Write, least), (Verb::Read, reads)] {
                    let expected = if role.role >= least { Ok(()) } else { Err(Missing::Role(least)) };
                    assert_eq!(role.may(verb, area), expected, "{} {verb:?} {area:?}", role.role);
                }
            }
        }
    }

    #[test]
    fn scopes_narrow_a_role_and_never_widen_it() {
        let routes = Area::Resources(Kind::Route);
        let fleets = Area::Resources(Kind::Fleet);
        for (who, verb, area, expected) in [
            ("owner a routes:write", Verb::Write, routes, Ok(())),
            ("owner a routes:write", Verb::Read, routes, Ok(())),
            ("owner a routes:read", Verb::Write, routes, Err("scope routes:write")),
            ("owner a routes:write", Verb::Read, Area::Load, Err("scope load:read")),
            ("owner a routes:write,*:read", Verb::Read, Area::Load, Ok(())),
            ("owner a *:write", Verb::Write, fleets, Err("role operator")),
            ("viewer - routes:write", Verb::Write, routes, Err("role owner")),
            ("admin - routes:read", Verb::Write, Area::Tokens, Err("scope tokens:write")),
        ] {
            let found = principal(who).may(verb, area).map_err(|missing| missing.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{who} {verb:?} {area:?}");
        }
    }

    #[test]
    fn nobody_grants_what_they_have_not_got() {
        for (who, granted, expected) in [
            ("admin", "", Ok(())),
            ("admin", "routes:write", Ok(())),
            ("admin - tokens:write", "", Err("scope *:write")),
            ("admin - tokens:write", "tokens:read", Ok(())),
            ("admin - tokens:write", "routes:read", Err("scope routes:read")),
            ("admin - tokens:write,*:read", "routes:read,routes:write", Err("scope routes:write")),
            ("admin - *:write", "", Ok(())),
        ] {
            let scopes: Vec<Scope> = granted.split_terminator(',').map(|scope| scope.parse().unwrap()).collect();
            let found = principal(who).may_grant(&scopes).map_err(|missing| missing.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{who} grants {granted:?}");
        }
    }

    #[test]
    fn teams_say_whose() {
        let team = |text: &str| text.parse::<Name>().ok();
        for (who, of, sees, writes) in [
            ("viewer", "a", true, Err("team a")),
            ("viewer a", "b", false, Err("team b")),
            ("viewer a", "", true, Err("a team (what belongs to none is written by operators)")),
            ("owner a,c", "a", true, Ok(())),
            ("owner a,c", "b", false, Err("team b")),
            ("owner a", "", true, Err("a team (what belongs to none is written by operators)")),
            ("operator", "a", true, Ok(())),
            ("operator", "", true, Ok(())),
            ("admin", "b", true, Ok(())),
        ] {
            let (principal, team) = (principal(who), team(of));
            assert_eq!(principal.sees(team.as_ref()), sees, "{who} sees {of}");
            let found = principal.writes_of(team.as_ref()).map_err(|missing| missing.to_string());
            assert_eq!(found, writes.map_err(str::to_owned), "{who} writes {of}");
        }
    }
}
