//! Who somebody is to the API: a role, scopes and teams, and what follows from them.
//!
//! Some have that several times, as people who are in several groups. What one of their [`Grant`]s allows they may do; what two
//! allow only together they may not: a viewer of `a` who owns `b` does not write what is of `a`. So each operation is done under
//! the grants that allow it, and each resource is written under one of them.

use std::{collections::BTreeSet, fmt, sync::Arc};

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
            (Verb::Read, Area::Audit | Area::Enrolments) => Self::Operator,
            (Verb::Read, _) => Self::Viewer,
            (Verb::Write, Area::Resources(Kind::Service | Kind::RateLimit | Kind::Route) | Area::Endpoints) => {
                Self::Owner
            }
            (Verb::Write, _) => Self::Operator,
        }
    }
}

/// A role, for certain teams and narrowed to certain scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What may be done at all.
    pub role: Role,
    /// Whose resources an owner writes, and an owner or a viewer sees. A viewer without any sees all.
    pub teams: BTreeSet<Name>,
    /// What the role is narrowed to; none: nothing is.
    pub scopes: BTreeSet<Scope>,
}

/// Somebody who is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Under which its changes are recorded.
    pub name: String,
    /// What it may do: the highest role first, no two with the same role and the same scopes.
    grants: Vec<Grant>,
}

impl Principal {
    /// Somebody with these grants. Those with the same role and the same scopes become one, for the teams of all of them.
    pub fn new(name: String, grants: impl IntoIterator<Item = Grant>) -> Self {
        let mut merged: Vec<Grant> = Vec::new();
        for grant in grants {
            let like = |other: &&mut Grant| (other.role, &other.scopes) == (grant.role, &grant.scopes);
            match merged.iter_mut().find(like) {
                // Of a viewer, no teams are all teams.
                Some(other) if other.teams.is_empty() || grant.teams.is_empty() => other.teams.clear(),
                Some(other) => other.teams.extend(grant.teams),
                None => merged.push(grant),
            }
        }
        merged.sort_by(|a, b| (b.role, &a.teams, &a.scopes).cmp(&(a.role, &b.teams, &b.scopes)));
        Self { name, grants: merged }
    }

    /// An admin without bounds.
    pub fn admin(name: &str) -> Self {
        let grant = Grant { role: Role::Admin, teams: BTreeSet::new(), scopes: BTreeSet::new() };
        Self::new(name.to_owned(), [grant])
    }

    /// What it may do, the highest role first.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// Whether one of its grants allows something by itself.
    ///
    /// # Errors
    /// What the one with the highest role lacks.
    pub fn may(&self, allowed: impl Fn(&Grant) -> Result<(), Missing>) -> Result<(), Missing> {
        let mut missing = Err(Missing::Rule);
        for (index, grant) in self.grants.iter().enumerate() {
            match allowed(grant) {
                Ok(()) => return Ok(()),
                refused if index == 0 => missing = refused,
                _ => {}
            }
        }
        missing
    }

    /// The same, with those of its grants that allow something.
    ///
    /// # Errors
    /// None does; what the one with the highest role lacks.
    pub fn narrowed(self: &Arc<Self>, allowed: impl Fn(&Grant) -> Result<(), Missing>) -> Result<Arc<Self>, Missing> {
        self.may(&allowed)?;
        if self.grants.iter().all(|grant| allowed(grant).is_ok()) {
            return Ok(self.clone());
        }
        let grants = self.grants.iter().filter(|grant| allowed(grant).is_ok()).cloned().collect();
        Ok(Arc::new(Self { name: self.name.clone(), grants }))
    }

    /// Whether it sees what belongs to every team.
    pub fn sees_all(&self) -> bool {
        self.grants.iter().any(Grant::sees_all)
    }

    /// Whether it sees what belongs to `team`, or to none.
    pub fn sees(&self, team: Option<&Name>) -> bool {
        self.grants.iter().any(|grant| grant.sees(team))
    }
}

impl Grant {
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

    /// Whether whoever has it may hand out `scopes` (none: all): nobody gives what they have not got.
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
    pub(in crate::access) fn grant(text: &str) -> Grant {
        let mut words = text.split(' ');
        let role = words.next().unwrap();
        let mut listed = || words.next().unwrap_or("-").split(',').filter(|word| *word != "-");
        let teams = listed().map(|team| team.parse().unwrap()).collect();
        let scopes = listed().map(|scope| scope.parse().unwrap()).collect();
        let role = serde_json::from_value(role.into()).unwrap();
        Grant { role, teams, scopes }
    }

    /// Grants with ` + ` between them.
    pub(in crate::access) fn principal(text: &str) -> Principal {
        Principal::new("ci".to_owned(), text.split(" + ").map(grant))
    }

    #[test]
    fn grants_of_one_kind_are_one_and_the_highest_comes_first() {
        for (given, merged) in [
            ("viewer + owner b + owner a", vec!["owner a,b", "viewer"]),
            ("viewer a + viewer", vec!["viewer"]),
            ("viewer a + viewer b", vec!["viewer a,b"]),
            ("owner a routes:write + owner b", vec!["owner a routes:write", "owner b"]),
            ("owner a + admin + owner a", vec!["admin", "owner a"]),
        ] {
            let merged: Vec<_> = merged.into_iter().map(grant).collect();
            assert_eq!(principal(given).grants(), merged, "{given}");
        }
    }

    #[test]
    fn what_no_grant_allows_by_itself_is_not_allowed() {
        let team = |text: &str| text.parse::<Name>().ok();
        let writes = |who: &str, area: Area, of: &str| {
            let both = |grant: &Grant| {
                grant.may(Verb::Write, area)?;
                grant.writes_of(team(of).as_ref())
            };
            principal(who).may(both).map_err(|missing| missing.to_string())
        };
        let (routes, services) = (Area::Resources(Kind::Route), Area::Resources(Kind::Service));
        let scoped = "owner a routes:write + owner b services:write";
        assert_eq!(writes(scoped, routes, "a"), Ok(()));
        assert_eq!(writes(scoped, services, "b"), Ok(()));
        assert_eq!(writes(scoped, services, "a"), Err("scope services:write".to_owned()));
        assert_eq!(writes("owner a + viewer b", routes, "b"), Err("team b".to_owned()));
        let who = Arc::new(principal("owner a + viewer"));
        assert!(who.sees_all() && who.sees(team("b").as_ref()));
        let writer = who.narrowed(|grant| grant.may(Verb::Write, routes)).unwrap();
        assert!(!writer.sees(team("b").as_ref()) && writer.sees(team("a").as_ref()));
        assert_eq!(writer.name, who.name);
        let nobody = Principal::new("ada".to_owned(), []);
        assert_eq!(nobody.may(|_| Ok(())), Err(Missing::Rule));
    }

    #[test]
    fn each_role_may_do_more_than_the_one_before() {
        use Kind::{EnvoyPatch, Fleet, Listener, RateLimit, Route, Service, Team};
        let resources = |kinds: &[Kind]| kinds.iter().map(|kind| Area::Resources(*kind)).collect::<Vec<_>>();
        let owners = [resources(&[Service, RateLimit, Route]), vec![Area::Endpoints]].concat();
        let operators = [
            resources(&[Fleet, Listener, EnvoyPatch]),
            vec![Area::Revisions, Area::Proxies, Area::Rollouts, Area::Quarantine, Area::Load, Area::Events],
            vec![Area::Audit, Area::Enrolments],
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
                Area::Audit | Area::Enrolments => Role::Operator,
                _ => Role::Viewer,
            };
            for role in ["viewer", "owner", "operator", "admin"].map(grant) {
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
            let found = grant(who).may(verb, area).map_err(|missing| missing.to_string());
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
            let found = grant(who).may_grant(&scopes).map_err(|missing| missing.to_string());
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
            let (grant, team) = (grant(who), team(of));
            assert_eq!(grant.sees(team.as_ref()), sees, "{who} sees {of}");
            let found = grant.writes_of(team.as_ref()).map_err(|missing| missing.to_string());
            assert_eq!(found, writes.map_err(str::to_owned), "{who} writes {of}");
        }
    }
}
