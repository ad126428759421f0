//! What was refused goes into the audit log: who wanted what, and why they did not get it. Never what they sent.

use std::net::IpAddr;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::Response,
};
use time::OffsetDateTime;

use super::{
    Api,
    author::{Author, FormerOwner},
    guard::Source,
    problem::Reason,
};
use crate::{
    audit::By,
    enrolment,
    model::{Kind, Name},
    store::{Action, NewEntry, Outcome},
};

/// Where a request comes from, if that is known.
pub(super) fn address(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Source>().map(|Source(address)| *address)
}

/// Notes what is refused of the API: to anybody who is not let in, and of writes also what contradicts or is wrong.
pub(super) async fn refusals(State(api): State<Api>, request: Request, next: Next) -> Response {
    if !request.uri().path().starts_with("/api") {
        return next.run(request).await;
    }
    let address = address(&request);
    let asked = Asked::of(&request);
    let response = next.run(request).await;
    let (author, former) = (response.extensions().get::<Author>(), response.extensions().get::<FormerOwner>());
    let action = match response.status() {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if asked.action == Action::Enrol => Action::Enrol,
        StatusCode::UNAUTHORIZED => Action::SignIn,
        // Who is known, and may nothing at all, was not let in either.
        StatusCode::FORBIDDEN if author.is_none() => Action::SignIn,
        StatusCode::FORBIDDEN => asked.action,
        StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY if asked.action != Action::Read => asked.action,
        _ => return response,
    };
    let name = author.map(|author| &author.who.name).or(former.map(|FormerOwner(name)| name));
    let by = By { name: name.map_or("", String::as_str), address };
    let mut entry = by.done(action, OffsetDateTime::now_utc());
    if author.is_some() {
        entry = entry.about(asked.kind, asked.name.as_deref().unwrap_or_default());
    }
    let detail = response.extensions().get::<Reason>().map(|Reason(reason)| reason.clone()).unwrap_or_default();
    api.audit.refused(NewEntry { outcome: Outcome::Refused, detail, ..entry });
    response
}

/// What a request is about, as far as its path says.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    action: Action,
    kind: &'static str,
    name: Option<String>,
}

impl Asked {
    fn of(request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let dry_run = request.uri().query().is_some_and(|query| query.split('&').any(|param| param == "dryRun=true"));
        Self::by(request.method(), route, request.uri().path(), dry_run)
    }

    fn by(method: &Method, route: &str, path: &str, dry_run: bool) -> Self {
        let route: Vec<_> = route.trim_start_matches("/api/v1/").split('/').collect();
        let collection = Kind::ALL.into_iter().find(|kind| kind.collection() == route[0]);
        let kind = match (route[0], collection) {
            ("tokens", _) => "Token",
            ("enrolments" | "enrol", _) => enrolment::KIND,
            ("rollouts", _) => "Rollout",
            (_, Some(kind)) => kind.as_str(),
            _ => "",
        };
        let action = match (method.as_str(), route.as_slice()) {
            ("GET" | "HEAD", _) | (_, ["plan" | "explain", ..]) => Action::Read,
            _ if dry_run => Action::Read,
            (_, ["tokens"]) => Action::CreateToken,
            (_, ["tokens", _, "rotate"]) => Action::RotateToken,
            (_, ["tokens", ..]) => Action::RevokeToken,
            (_, ["enrolments"]) => Action::CreateEnrolment,
            (_, ["enrolments", ..]) => Action::RevokeEnrolment,
            (_, ["enrol"]) => Action::Enrol,
            (_, ["quarantine", ..]) => Action::ReleaseQuarantine,
            (_, ["rollouts", _, "promote"]) => Action::Promote,
            (_, ["rollouts", ..]) => Action::Return,
            (_, ["services", _, "endpoints", ..]) => Action::Register,
            _ => Action::Write,
        };
        let named = !kind.is_empty() && route.get(1).is_some_and(|part| part.starts_with('{'));
        let name = path.trim_start_matches("/api/v1/").split('/').nth(1).filter(|_| named);
        Self { action, kind, name: name.and_then(|name| name.parse::<Name>().ok()).map(|name| name.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_is_asked() {
        for (method, route, path, action, kind, name) in [
            ("PUT", "routes/{name}", "routes/shop", Action::Write, "Route", "shop"),
            ("GET", "routes/{name}", "routes/shop", Action::Read, "Route", "shop"),
            ("POST", "apply", "apply", Action::Write, "", ""),
            ("POST", "plan/traffic", "plan/traffic", Action::Read, "", ""),
            ("POST", "tokens", "tokens", Action::CreateToken, "Token", ""),
            ("POST", "tokens/{id}/rotate", "tokens/07ab/rotate", Action::RotateToken, "Token", "07ab"),
            ("DELETE", "tokens/{id}", "tokens/%0A", Action::RevokeToken, "Token", ""),
            ("POST", "enrolments", "enrolments", Action::CreateEnrolment, "Enrolment", ""),
            ("DELETE", "enrolments/{id}", "enrolments/07ab", Action::RevokeEnrolment, "Enrolment", "07ab"),
            ("POST", "enrol", "enrol", Action::Enrol, "Enrolment", ""),
            ("POST", "rollouts/{name}/promote", "rollouts/edge/promote", Action::Promote, "Rollout", "edge"),
            ("POST", "rollouts/{name}/return", "rollouts/edge/return", Action::Return, "Rollout", "edge"),
            ("PUT", "services/{name}/endpoints/{id}", "services/a/endpoints/b", Action::Register, "Service", "a"),
            ("POST", "quarantine/release", "quarantine/release", Action::ReleaseQuarantine, "", ""),
            ("PUT", "", "/what/ever", Action::Write, "", ""),
        ] {
            let at = |path: &str| format!("/api/v1/{path}");
            let method: Method = method.parse().unwrap();
            let name = Some(name.to_owned()).filter(|name| !name.is_empty());
            let found = Asked::by(&method, &at(route), &at(path), false);
            assert_eq!(found, Asked { action, kind, name }, "{method} {path}");
        }
        let dry = Asked::by(&Method::PUT, "/api/v1/routes/{name}", "/api/v1/routes/a", true);
        assert_eq!(dry.action, Action::Read);
    }
}
