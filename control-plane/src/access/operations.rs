//! What each operation of the API needs before its handler is asked. What is not listed here nobody may do.
//!
//! A test holds the table against the description of the API, so an operation without a rule does not pass.

use std::sync::Arc;

use super::{Area, Grant, Missing, Principal, Verb};
use crate::model::Kind;

/// What an operation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing, not even to be somebody.
    Nothing,
    /// To be somebody.
    Anybody,
    /// The right to do this; handlers leave out what belongs to teams that are not seen.
    To(Verb, Area),
    /// That, and to see what belongs to every team: the answer cannot be told apart by team.
    ToAll(Verb, Area),
    /// The right to write something; what each resource needs that the change touches is seen when it is made.
    EveryChange,
}

use Needs::{Anybody, EveryChange, Nothing, To, ToAll};
use Verb::{Read, Write};

/// By method and path, the collections of resources aside.
const OPERATIONS: &[(&str, &str, Needs)] = &[
    ("GET", "sign-in", Nothing),
    ("GET", "whoami", Anybody),
    ("POST", "apply", EveryChange),
    ("POST", "plan", EveryChange),
    ("GET", "revisions", To(Read, Area::Revisions)),
    ("GET", "revisions/{number}", To(Read, Area::Revisions)),
    ("POST", "revisions/{number}/revert", EveryChange),
    ("GET", "revisions/{number}/diff", ToAll(Read, Area::Revisions)),
    // What belongs to teams that are not seen may decide; handlers refuse to tell of that.
    ("POST", "explain", To(Read, Area::Resources(Kind::Route))),
    ("POST", "plan/traffic", EveryChange),
    ("GET", "export", ToAll(Read, Area::Revisions)),
    ("GET", "services/{name}/endpoints", To(Read, Area::Endpoints)),
    ("POST", "services/{name}/endpoints", To(Write, Area::Endpoints)),
    ("PUT", "services/{name}/endpoints/{id}", To(Write, Area::Endpoints)),
    ("DELETE", "services/{name}/endpoints/{id}", To(Write, Area::Endpoints)),
    ("GET", "proxies", To(Read, Area::Proxies)),
    ("GET", "proxies/{id}", To(Read, Area::Proxies)),
    ("GET", "proxies/{id}/config", ToAll(Read, Area::Proxies)),
    ("GET", "events", To(Read, Area::Events)),
    ("GET", "quarantine", ToAll(Read, Area::Quarantine)),
    ("POST", "quarantine/release", ToAll(Write, Area::Quarantine)),
    ("GET", "rollouts", To(Read, Area::Rollouts)),
    ("GET", "rollouts/{name}", To(Read, Area::Rollouts)),
    ("POST", "rollouts/{name}/promote", To(Write, Area::Rollouts)),
    ("POST", "rollouts/{name}/return", To(Write, Area::Rollouts)),
    ("GET", "load", To(Read, Area::Load)),
    ("GET", "services/{name}/load", To(Read, Area::Load)),
    ("GET", "traffic", ToAll(Read, Area::Load)),
    ("GET", "audit", ToAll(Read, Area::Audit)),
    ("GET", "audit/verify", ToAll(Read, Area::Audit)),
    ("GET", "tokens", To(Read, Area::Tokens)),
    ("POST", "tokens", To(Write, Area::Tokens)),
    ("DELETE", "tokens/{id}", To(Write, Area::Tokens)),
    ("POST", "tokens/{id}/rotate", To(Write, Area::Tokens)),
    ("GET", "enrolments", To(Read, Area::Enrolments)),
    ("POST", "enrolments", To(Write, Area::Enrolments)),
    ("DELETE", "enrolments/{id}", To(Write, Area::Enrolments)),
    // The token in the body says all.
    ("POST", "enrol", Nothing),
];

/// What an operation needs; `path` as the router has it, with `{…}`. None: there is no rule.
pub fn needs(method: &str, path: &str) -> Option<Needs> {
    let path = path.strip_prefix("/api/v1/")?;
    // What answers GET answers HEAD.
    let method = if method == "HEAD" { "GET" } else { method };
    let listed = OPERATIONS.iter().find(|(verb, place, _)| (*verb, *place) == (method, path));
    listed.map(|(_, _, needs)| *needs).or_else(|| of_a_kind(method, path))
}

/// The handlers that serve every kind.
fn of_a_kind(method: &str, path: &str) -> Option<Needs> {
    let (collection, rest) = path.split_once('/').unwrap_or((path, ""));
    let kind = Kind::ALL.into_iter().find(|kind| kind.collection() == collection)?;
    match (method, rest) {
        ("GET", "" | "{name}") => Some(To(Read, Area::Resources(kind))),
        ("GET", "{name}/blame") => Some(ToAll(Read, Area::Revisions)),
        ("POST", "") | ("PUT" | "PATCH" | "DELETE", "{name}") => Some(To(Write, Area::Resources(kind))),
        _ => None,
    }
}

/// The methods for which there is a rule at `path`.
pub fn methods(path: &str) -> Vec<&'static str> {
    const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
    METHODS.into_iter().filter(|method| needs(method, path).is_some()).collect()
}

/// Whether `principal` may ask for an operation; it does so with those of its grants that allow that.
///
/// # Errors
/// What is missing.
pub fn may(principal: &Arc<Principal>, method: &str, path: &str) -> Result<Arc<Principal>, Missing> {
    match needs(method, path).ok_or(Missing::Rule)? {
        Nothing | Anybody => Ok(principal.clone()),
        EveryChange => principal.narrowed(Grant::may_write_something),
        To(verb, area) => principal.narrowed(|grant| grant.may(verb, area)),
        ToAll(verb, area) => principal.narrowed(|grant| {
            grant.may(verb, area)?;
            if grant.sees_all() { Ok(()) } else { Err(Missing::Role(super::Role::Operator)) }
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{access::principal::tests::principal, api};

    /// Every operation of the API, by method and path.
    fn operations() -> BTreeSet<(String, String)> {
        let description = serde_json::to_value(api::openapi()).unwrap();
        let paths = description["paths"].as_object().unwrap();
        let of = |(path, item): (&String, &serde_json::Value)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        };
        paths.iter().flat_map(of).collect()
    }

    #[test]
    fn every_operation_has_a_rule_and_every_rule_an_operation() {
        let operations = operations();
        let without: Vec<_> = operations.iter().filter(|(method, path)| needs(method, path).is_none()).collect();
        assert!(without.is_empty(), "nothing says who may do {without:?}");
        for (method, path, _) in OPERATIONS {
            let operation = ((*method).to_owned(), format!("/api/v1/{path}"));
            assert!(operations.contains(&operation), "{operation:?} has a rule, but there is no such thing");
        }
    }

    #[test]
    fn what_has_no_rule_nobody_may() {
        for (method, path) in [
            ("GET", "/api/v1/secrets"),
            ("PATCH", "/api/v1/tokens/{id}"),
            ("DELETE", "/api/v1/routes"),
            ("GET", "/api/v1/routes/{name}/more"),
            ("GET", "/api/v2/routes"),
        ] {
            let found = may(&Arc::new(Principal::admin("admin")), method, path);
            assert_eq!(found, Err(Missing::Rule), "{method} {path}");
        }
    }

    #[test]
    fn an_operation_is_done_under_the_grants_that_allow_it() {
        let who = Arc::new(principal("viewer a routes:read + viewer b services:read"));
        let [a, b] = ["a", "b"].map(|team| team.parse().ok());
        let reader = may(&who, "GET", "/api/v1/routes").unwrap();
        assert!(reader.sees(a.as_ref()) && !reader.sees(b.as_ref()));
        assert_eq!(may(&who, "GET", "/api/v1/whoami").unwrap(), who);
    }

    #[test]
    fn what_cannot_be_told_apart_by_team_is_for_those_who_see_all() {
        for (who, method, path, expected) in [
            ("viewer", "GET", "/api/v1/proxies/{id}/config", Ok(())),
            ("viewer a", "GET", "/api/v1/proxies/{id}/config", Err("role operator")),
            ("owner a", "GET", "/api/v1/proxies/{id}/config", Err("role operator")),
            ("owner a", "HEAD", "/api/v1/quarantine", Err("role operator")),
            ("owner a", "GET", "/api/v1/proxies/{id}", Ok(())),
            ("operator", "POST", "/api/v1/quarantine/release", Ok(())),
            ("viewer", "POST", "/api/v1/quarantine/release", Err("role operator")),
            ("viewer - routes:read", "GET", "/api/v1/routes", Ok(())),
            ("viewer - routes:read", "GET", "/api/v1/services", Err("scope services:read")),
            ("viewer - routes:read", "GET", "/api/v1/whoami", Ok(())),
            ("operator", "GET", "/api/v1/tokens", Err("role admin")),
            ("viewer", "POST", "/api/v1/apply", Err("role owner")),
            ("owner a *:read", "POST", "/api/v1/apply", Err("scope services:write")),
            ("owner a *:read,fleets:write", "POST", "/api/v1/apply", Err("scope services:write")),
            ("owner a *:read,routes:write", "POST", "/api/v1/plan", Ok(())),
            ("owner a + viewer", "GET", "/api/v1/quarantine", Ok(())),
            ("owner a + viewer b", "GET", "/api/v1/quarantine", Err("role operator")),
            ("owner a + viewer", "PUT", "/api/v1/fleets/{name}", Err("role operator")),
            ("owner a", "PUT", "/api/v1/fleets/{name}", Err("role operator")),
            ("owner a", "DELETE", "/api/v1/routes/{name}", Ok(())),
        ] {
            let found = may(&Arc::new(principal(who)), method, path).map_err(|missing| missing.to_string());
            assert_eq!(found.map(drop), expected.map_err(str::to_owned), "{who} {method} {path}");
        }
    }
}
