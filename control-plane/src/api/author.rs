//! Who calls: the bearer token, whose it is, and whether they may ask for the operation at all.

use std::sync::Arc;

use axum::{
    Json,
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{Api, error::ApiError, openapi, schemas};
use crate::{
    access::{Missing, Principal, Role, Scope, operations, owner},
    model::{Catalog, Entry, Key, Name},
    store::Change,
};

/// The name under which changes with the admin's token are recorded.
pub(super) const ADMIN: &str = "admin";

/// Who makes a request. Exists only behind [`authenticate`].
#[derive(Clone, Debug)]
pub(super) struct Author(pub(super) Arc<Principal>);

impl Author {
    /// A resource, unless it is hidden from them.
    pub(super) fn find<'c>(&self, catalog: &'c Catalog, key: &Key) -> Result<&'c Arc<Entry>, ApiError> {
        let found = catalog.entry(key).filter(|entry| self.0.sees(owner(&entry.document)));
        found.ok_or_else(|| ApiError::NotFound(key.to_string()))
    }

    /// Whether a change is of what they see, before and after.
    pub(super) fn sees(&self, change: &Change) -> bool {
        [&change.before, &change.after].into_iter().flatten().all(|document| self.0.sees(owner(document)))
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
pub(super) async fn whoami(Author(principal): Author) -> Json<WhoAmI> {
    let Principal { name, role, teams, scopes } = principal.as_ref().clone();
    Json(WhoAmI { name, role, teams: teams.into_iter().collect(), scopes: scopes.into_iter().collect() })
}

/// Lets pass who may ask for the operation, and what needs no token: everything outside of `/api`, the description of the API, and
/// the schemas of documents.
pub(super) async fn authenticate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path.starts_with("/api") && path != openapi::PATH && !schemas::lie_at(path) {
        let principal = match identify(&api, request.headers()).await {
            Ok(principal) => principal,
            Err(error) => return error.into_response(),
        };
        // Without one, nothing is there.
        if let Some(matched) = request.extensions().get::<MatchedPath>() {
            match operations::may(&principal, request.method().as_str(), matched.as_str()) {
                Ok(()) => {}
                Err(Missing::Rule) => return no_such_method(matched.as_str()),
                Err(missing) => return ApiError::from(missing).into_response(),
            }
        }
        request.extensions_mut().insert(Author(principal));
    }
    next.run(request).await
}

async fn identify(api: &Api, headers: &HeaderMap) -> Result<Arc<Principal>, ApiError> {
    let token = presented(headers).ok_or(ApiError::NoToken)?;
    if api.admin_token.matches(token) {
        return Ok(Arc::new(Principal::admin(ADMIN)));
    }
    api.tokens.identify(token, OffsetDateTime::now_utc()).await.map_err(ApiError::Token)
}

/// What no rule speaks of is not done, whether the router knows it or not.
fn no_such_method(path: &str) -> Response {
    match operations::methods(path).join(",") {
        none if none.is_empty() => ApiError::from(Missing::Rule).into_response(),
        allow => (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, allow)]).into_response(),
    }
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

impl<S: Sync> FromRequestParts<S> for Author {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get().cloned().ok_or(ApiError::NoToken)
    }
}
