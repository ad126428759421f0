//! How people sign in, for whom nobody is known yet.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, error::ApiError};
use crate::oidc::sign_in::Offer;

/// What a client needs to sign somebody in with the issuer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct HowToSignIn {
    /// URL of the OpenID Connect issuer; it tells more of itself at `/.well-known/openid-configuration` below it.
    #[schema(examples("https://login.example.com"))]
    issuer: String,
    /// The client id: the ID token has to be for it.
    #[schema(examples("chancery"))]
    client_id: String,
    /// The scopes to ask the issuer for.
    #[schema(examples(json!(["openid", "profile", "email", "offline_access"])))]
    scopes: Vec<String>,
}

/// How people sign in
///
/// The ID token that the issuer gives is then the bearer token of every other request.
#[utoipa::path(get, path = "/api/v1/sign-in", tag = "Access", operation_id = "howToSignIn", security(()),
    responses((status = 200, body = HowToSignIn)))]
pub(super) async fn read(State(api): State<Api>) -> Result<Json<HowToSignIn>, ApiError> {
    let sign_in = api.sign_in.ok_or(ApiError::NoSignIn)?;
    let Offer { issuer, client_id, scopes } = sign_in.offer().clone();
    Ok(Json(HowToSignIn { issuer: issuer.to_string(), client_id, scopes }))
}
