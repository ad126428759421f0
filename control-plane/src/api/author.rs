//! Who calls: the bearer token, and the name under which a change is recorded.

use axum::{
    Json,
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, error::ApiError, openapi};

/// Who makes a request. Exists only behind [`authenticate`].
#[derive(Clone, Debug)]
pub(super) struct Author(pub(super) String);

/// Who a token belongs to.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WhoAmI {
    /// The name that changes are recorded under.
    #[schema(examples("admin"))]
    name: String,
}

/// Who the token belongs to
#[utoipa::path(get, path = "/api/v1/whoami", tag = "Access", operation_id = "whoAmI",
    responses((status = 200, body = WhoAmI)))]
pub(super) async fn whoami(Author(name): Author) -> Json<WhoAmI> {
    Json(WhoAmI { name })
}

/// Lets pass what carries the token, and what needs none: everything outside of `/api`, and the description of the API.
pub(super) async fn authenticate(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path.starts_with("/api") && path != openapi::PATH {
        match presented(request.headers()) {
            None => return ApiError::NoToken.into_response(),
            Some(token) if !api.admin_token.matches(token) => return ApiError::InvalidToken.into_response(),
            Some(_) => drop(request.extensions_mut().insert(Author("admin".to_owned()))),
        }
    }
    next.run(request).await
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
