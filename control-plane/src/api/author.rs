//! Who calls: the bearer token, whose it is, and whether they may ask for the operation at all.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Json,
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use chancery_runtime::traces::{Place, Step};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{
    Api,
    error::ApiError,
    guard::{self, Client},
    openapi, record, schemas,
};
use crate::{
    access::{Missing, Principal, Role, Scope, operations, owner},
    audit::By,
    model::{Catalog, Entry, Key, Name},
    store::{Change, IdempotencyKey},
    tokens::Refused,
};

/// The name under which changes with the admin's token are recorded.
pub(super) const ADMIN: &str = "admin";

/// Who makes a request, from where, and under which key it is made once, if under one. Exists only behind [`authenticate`].
#[derive(Clone, Debug)]
pub(super) struct Author {
    /// Whose token it is.
    pub(super) who: Arc<Principal>,
    /// The address that it comes from.
    pub(super) from: Option<IpAddr>,
    /// What the request is made once under.
    pub(super) once: Option<Arc<IdempotencyKey>>,
    /// Where in which trace it is told of.
    pub(super) place: Place,
}

/// In an answer to somebody who is not let in: whose token it was that has ended.
#[derive(Clone, Debug)]
pub(super) struct FormerOwner(pub(super) String);

impl Author {
    /// For the audit log.
    pub(super) fn by(&self) -> By<'_> {
        By { name: &self.who.name, address: self.from }
    }

    /// The same, making this request once.
    pub(super) fn under(self, key: IdempotencyKey) -> Self {
        Self { once: Some(Arc::new(key)), ..self }
    }

    /// A resource, unless it is hidden from them.
    pub(super) fn find<'c>(&self, catalog: &'c Catalog, key: &Key) -> Result<&'c Arc<Entry>, ApiError> {
        let found = catalog.entry(key).filter(|entry| self.who.sees(owner(&entry.document)));
        found.ok_or_else(|| ApiError::NotFound(key.to_string()))
    }

    /// Whether a change is of what they see, before and after.
    pub(super) fn sees(&self, change: &Change) -> bool {
        [&change.before, &change.after].into_iter().flatten().all(|document| self.who.sees(owner(document)))
    }
}

/// Who a token belongs to, and what it allows.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WhoAmI {
    /// The name that changes are recorded under.
    #[schema(examples("admin"))]
    name: String,
    /// The role.
    role: Role,
    /// Whose resources an owner writes, and an owner or a viewer sees; none: a viewer sees all.
    #[schema(value_type = Vec<String>)]
    teams: Vec<Name>,
    /// What the role is narrowed to; none: nothing is.
    #[schema(value_type = Vec<String>)]
    scopes: Vec<Scope>,
}

/// Who the token belongs to
#[utoipa::path(get, path = "/api/v1/whoami", tag = "Access", operation_id = "whoAmI",
    responses((status = 200, body = WhoAmI)))]
pub(super) async fn whoami(Author { who, .. }: Author) -> Json<WhoAmI> {
    let Principal { name, role, teams, scopes } = who.as_ref().clone();
    Json(WhoAmI { name, role, teams: teams.into_iter().collect(), scopes: scopes.into_iter().collect() })
}

/// Lets pass who may ask for the operation, and what needs no token: everything outside of `/api`, the description of the API, and
/// the schemas of documents.
pub(super) async fn authenticate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path.starts_with("/api") && path != openapi::PATH && !schemas::lie_at(path) {
        let client = request.extensions().get().copied();
        let place = request.extensions().get::<Place>().cloned().unwrap_or_default();
        let mut step = place.begin("authorize");
        let author = match identify(&api, client, request.headers()).await {
            Ok(who) => Author { who, from: record::address(&request), once: None, place },
            Err(error) => {
                step.failed("not let in");
                return turned_away(&api, request.headers(), error);
            }
        };
        let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let standing = api.guard.count(&author.who.name, request.method().as_str(), path);
        if let Some(standing) = standing.filter(|standing| standing.wait().is_some()) {
            return guard::refused(standing);
        }
        api.audit.signed_in(author.by(), OffsetDateTime::now_utc());
        request.extensions_mut().insert(author.clone());
        let mut response = admitted(request, next, &author.who, step).await;
        response.extensions_mut().insert(author);
        return match standing {
            Some(standing) => guard::told(standing, response),
            None => response,
        };
    }
    next.run(request).await
}

/// Lets pass who may ask for the operation.
async fn admitted(request: Request, next: Next, principal: &Principal, mut step: Step) -> Response {
    // Without one, nothing is there.
    if let Some(matched) = request.extensions().get::<MatchedPath>() {
        match operations::may(principal, request.method().as_str(), matched.as_str()) {
            Ok(()) => {}
            Err(Missing::Rule) => return no_such_method(matched.as_str()),
            Err(missing) => {
                step.failed(&missing.to_string());
                return ApiError::from(missing).into_response();
            }
        }
    }
    drop(step);
    next.run(request).await
}

/// The answer to whom is not let in; the audit log is told whose token it was, if it was one.
fn turned_away(api: &Api, headers: &HeaderMap, error: ApiError) -> Response {
    let owner = presented(headers).and_then(|token| api.tokens.owner_of_ended(token));
    let mut response = error.into_response();
    if let Some(owner) = owner {
        response.extensions_mut().insert(FormerOwner(owner));
    }
    response
}

/// Who the token belongs to, if tokens of `client` are looked at: whoever brings many wrong ones guesses.
async fn identify(api: &Api, client: Option<Client>, headers: &HeaderMap) -> Result<Arc<Principal>, ApiError> {
    let token = presented(headers).ok_or(ApiError::NoToken)?;
    let now = Instant::now();
    if let Some(client) = client {
        let looked_at = api.guard.looks_at(client, token, now);
        looked_at.map_err(|wait| ApiError::TooManyRequests { what: "wrong tokens", wait })?;
    }
    let found = if api.admin_token.matches(token) {
        Ok(Arc::new(Principal::admin(ADMIN)))
    } else {
        api.tokens.identify(token, OffsetDateTime::now_utc()).await
    };
    match (&found, client) {
        (Ok(_), Some(client)) => api.guard.good(client, token, now),
        (Err(Refused::Unknown), Some(client)) => api.guard.wrong(client, now),
        _ => {}
    }
    found.map_err(ApiError::Token)
}

/// What no rule speaks of is not done, whether the router knows it or not.
fn no_such_method(path: &str) -> Response {
    match operations::methods(path).join(",") {
        none if none.is_empty() => ApiError::from(Missing::Rule).into_response(),
        allow => (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, allow)]).into_response(),
    }
}

/// The token that a request carries.
pub(super) fn presented(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

impl<S: Sync> FromRequestParts<S> for Author {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or(ApiError::NoToken)
    }
}
