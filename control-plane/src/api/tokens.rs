//! Tokens: made, shown once, listed, given another secret, revoked.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    author::{ADMIN, Author},
    body::Body,
    error::ApiError,
    lives::{chance, duration, moment},
    page::{Page, PageParams},
    params::Params,
};
use crate::{
    access::{Role, Scope},
    model::{Catalog, Key, Kind, Name, Problems},
    store::TokenRecord,
    tokens::{Grants, Made, NewToken, TokenError},
};

/// How long a secret is good where nothing else is said, and at most.
const TTL: (Duration, Duration) = (Duration::days(90), Duration::days(366));

/// How long the secret before is good where nothing else is said, and at most.
const GRACE: (Duration, Duration) = (Duration::HOUR, Duration::days(7));

/// The most teams, and the most scopes, of one token.
const MOST: usize = 64;

/// A token to be made.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TokenRequest {
    /// Whose it is: changes are recorded under this name. Of tokens that are not revoked, no two have the same.
    #[schema(value_type = String, examples("payments-ci"))]
    name: Name,
    /// What it may do at all.
    role: Role,
    /// Whose resources an owner writes, and an owner or a viewer sees. Each must be a `Team`; an owner needs one, operators and
    /// admins take none.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 64, examples(json!(["payments"])))]
    teams: Vec<Name>,
    /// What the role is narrowed to: `area:read` or `area:write`; `*` is every area. None: all that the role may do.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 64, examples(json!(["routes:write"])))]
    scopes: Vec<Scope>,
    /// How long its secret is good, 1m to 366d.
    #[schema(default = "90d", examples("30d"))]
    expires_in: Option<String>,
}

/// A token that was made, or has another secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenSecret {
    /// Names it.
    id: String,
    /// The token itself. It is not shown again.
    token: String,
    /// Until when it is good.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    expires_at: OffsetDateTime,
}

impl From<Made> for TokenSecret {
    fn from(Made { id, token, expires_at }: Made) -> Self {
        Self { id, token: token.expose().clone(), expires_at }
    }
}

/// A page of tokens.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenList {
    /// The tokens by id, without their secrets.
    items: Vec<TokenView>,
    /// Where the next page starts; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A token, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Token)]
pub(super) struct TokenView {
    /// Names it.
    id: String,
    /// Whose it is.
    name: String,
    /// What it may do at all; none, if a newer version has written what this one cannot read: it is not taken here.
    role: Option<Role>,
    /// Whose resources.
    #[schema(value_type = Vec<String>)]
    teams: Vec<Name>,
    /// What the role is narrowed to.
    #[schema(value_type = Vec<String>)]
    scopes: Vec<Scope>,
    /// Whether it is good.
    state: TokenState,
    /// Who made it.
    created_by: String,
    /// When.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    created_at: Option<OffsetDateTime>,
    /// Until when its secret is good.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    expires_at: Option<OffsetDateTime>,
    /// Until when the secret before is good, if there was one.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = Option<String>, format = DateTime)]
    previous_until: Option<OffsetDateTime>,
    /// When it was used last, give or take a minute.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<OffsetDateTime>,
    /// When it was revoked.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<OffsetDateTime>,
}

/// Whether a token is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum TokenState {
    /// It is.
    Active,
    /// It was, until its time was over.
    Expired,
    /// It was, until somebody revoked it.
    Revoked,
}

impl TokenView {
    fn new(record: TokenRecord, now: OffsetDateTime) -> Self {
        let TokenRecord { id, name, grants, created_by, .. } = record;
        let state = match record.revoked_at {
            Some(_) => TokenState::Revoked,
            None if now >= record.expires_at => TokenState::Expired,
            None => TokenState::Active,
        };
        let (role, teams, scopes) = match serde_json::from_str(&grants) {
            Ok(Grants { role, teams, scopes }) => (Some(role), teams, scopes),
            Err(_) => (None, Vec::new(), Vec::new()),
        };
        Self {
            id,
            name,
            role,
            teams,
            scopes,
            state,
            created_by,
            created_at: Some(record.created_at),
            expires_at: Some(record.expires_at),
            previous_until: record.previous.map(|(_, until)| until),
            last_used_at: record.last_used_at,
            revoked_at: record.revoked_at,
        }
    }
}

/// List tokens
///
/// Without their secrets. Those that are revoked or have expired are listed for 90 days more.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "Access", operation_id = "listTokens",
    params(PageParams), responses((status = 200, body = TokenList)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<PageParams>,
) -> Result<Json<TokenList>, ApiError> {
    let now = OffsetDateTime::now_utc();
    let records = api.tokens.list().await?;
    let (records, next_cursor) = Page::from(params).of(records, |record| record.id.clone())?;
    let items = records.into_iter().map(|record| TokenView::new(record, now)).collect();
    Ok(Json(TokenList { items, next_cursor }))
}

/// Create a token
///
/// The answer holds the token; it is not shown again. Nobody can give a scope that they have not got.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "Access", operation_id = "createToken", request_body = TokenRequest,
    responses((status = 201, body = TokenSecret)))]
pub(super) async fn create(
    State(api): State<Api>,
    author: Author,
    body: Body,
) -> Result<(StatusCode, Json<TokenSecret>), ApiError> {
    let mut problems = Problems::default();
    let new = request(&body.value().await?, &api.replica.current().catalog, &mut problems);
    let Some(new) = new.filter(|_| problems.is_empty()) else { return Err(ApiError::Problems(problems.into_vec())) };
    author.who.may(|grant| grant.may_grant(&new.grants.scopes))?;
    let made = api.tokens.create(new, author.by(), OffsetDateTime::now_utc(), &mut chance()).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// Which secret comes in its place.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct RotateParams {
    /// How long the secret before is good still, 0s to 7d; `1h` by default.
    #[param(example = "1h")]
    grace: Option<String>,
}

/// Rotate a token
///
/// Gives it another secret, which is good as long as the first one was. The one before is good for `grace`, and not longer than it was.
#[utoipa::path(post, path = "/api/v1/tokens/{id}/rotate", tag = "Access", operation_id = "rotateToken",
    params(("id" = String, Path, description = "The id of the token"), RotateParams), responses((status = 200, body = TokenSecret)))]
pub(super) async fn rotate(
    State(api): State<Api>,
    Path(id): Path<String>,
    Params(params): Params<RotateParams>,
    author: Author,
) -> Result<Json<TokenSecret>, ApiError> {
    let (default, most) = GRACE;
    let grace = match params.grace {
        None => default,
        Some(text) => duration(&text, Duration::ZERO..=most)
            .map_err(|reason| ApiError::Malformed(format!("query: grace {reason}")))?,
    };
    // Whoever rotates a token has it afterwards.
    let records = api.tokens.list().await?;
    let record = records.into_iter().find(|record| record.id == id).ok_or_else(|| TokenError::Unknown(id.clone()))?;
    let scopes = serde_json::from_str(&record.grants).map_or_else(|_| Vec::new(), |Grants { scopes, .. }| scopes);
    author.who.may(|grant| grant.may_grant(&scopes))?;
    let made = api.tokens.rotate(&id, grace, author.by(), OffsetDateTime::now_utc(), &mut chance()).await?;
    Ok(Json(made.into()))
}

/// Revoke a token
///
/// With all of its secrets. Every replica of the control plane refuses it within a second, most often at once.
#[utoipa::path(delete, path = "/api/v1/tokens/{id}", tag = "Access", operation_id = "revokeToken",
    params(("id" = String, Path, description = "The id of the token")), responses((status = 200, body = TokenView)))]
pub(super) async fn revoke(
    State(api): State<Api>,
    Path(id): Path<String>,
    author: Author,
) -> Result<Json<TokenView>, ApiError> {
    let now = OffsetDateTime::now_utc();
    api.tokens.revoke(&id, author.by(), now).await?;
    let records = api.tokens.list().await?;
    let record = records.into_iter().find(|record| record.id == id).ok_or(TokenError::Unknown(id))?;
    Ok(Json(TokenView::new(record, now)))
}

/// What a request asks for; `None` if `problems` now says why not.
fn request(value: &serde_json::Value, catalog: &Catalog, problems: &mut Problems) -> Option<NewToken> {
    let TokenRequest { name, role, teams, scopes, expires_in } = problems.read(value)?;
    if name.as_str() == ADMIN {
        problems.at("name").report("is that of the admin's token");
    }
    {
        let mut problems = problems.at("teams");
        match role {
            Role::Owner if teams.is_empty() => problems.report("needs one at least: an owner owns something"),
            Role::Operator | Role::Admin if !teams.is_empty() => {
                problems.report(format!("must be empty: role {role} is for every team"));
            }
            _ => {}
        }
        at_most(teams.len(), &mut problems);
        problems.each_once(&teams);
        for (index, team) in teams.iter().enumerate() {
            if catalog.team(team).is_none() {
                let team = Key::new(Kind::Team, team.clone());
                problems.index(index).report(format!("{team} does not exist"));
            }
        }
    }
    at_most(scopes.len(), &mut problems.at("scopes"));
    problems.at("scopes").each_once(&scopes);
    let (default, most) = TTL;
    let ttl = match expires_in {
        None => Some(default),
        Some(text) => problems.at("expiresIn").ok(duration(&text, Duration::MINUTE..=most)),
    };
    Some(NewToken { name, grants: Grants { role, teams, scopes }, ttl: ttl? })
}

fn at_most(count: usize, problems: &mut Problems) {
    if count > MOST {
        problems.report(format!("must have at most {MOST} entries, not {count}"));
    }
}
