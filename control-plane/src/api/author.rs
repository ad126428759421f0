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
use serde_json::json;
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
    access::{
        Grant, Missing, Principal, Role, Scope,
        operations::{self, Needs},
        owner,
    },
    audit::By,
    model::{Catalog, Entry, Key, Name},
    oidc::{self, Person},
    store::{Change, IdempotencyKey},
    tokens::Refused,
};

/// The name under which changes with the admin's token are recorded.
pub(super) const ADMIN: &str = "admin";

/// Who makes a request, from where, and under which key it is made once, if under one. Exists only behind [`authenticate`].
#[derive(Clone, Debug)]
pub(super) struct Author {
    /// Whose token it is; behind [`admitted`], with what the operation is done under.
    pub(super) who: Arc<Principal>,
    /// Until when the token is good; none: for ever.
    pub(super) until: Option<OffsetDateTime>,
    /// The address that it comes from.
    pub(super) from: Option<IpAddr>,
    /// What the request is made once under.
    pub(super) once: Option<Arc<IdempotencyKey>>,
    /// Where in which trace it is told of.
    pub(super) place: Place,
}

/// In an answer to somebody who is not let in: whose token it was that has ended, or allows nothing.
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
    /// The name that changes are recorded under; that of a person begins with `oidc:`.
    #[schema(examples("admin"))]
    name: String,
    /// The highest role.
    role: Role,
    /// The teams of the first of the grants: whose resources an owner writes, and an owner or a viewer sees; none: a viewer sees all.
    #[schema(value_type = Vec<String>)]
    teams: Vec<Name>,
    /// What the role is narrowed to, in the first of the grants; none: nothing is.
    #[schema(value_type = Vec<String>)]
    scopes: Vec<Scope>,
    /// All of its grants, the highest role first: one of a token, one or several of a person. What none of them allows by itself is not
    /// allowed.
    grants: Vec<Granted>,
    /// Until when the token is good; absent: for ever.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<OffsetDateTime>,
}

/// What somebody may do.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Granted {
    /// The role.
    role: Role,
    /// Whose resources an owner writes, and an owner or a viewer sees; none: a viewer sees all.
    #[schema(value_type = Vec<String>)]
    teams: Vec<Name>,
    /// What the role is narrowed to; none: nothing is.
    #[schema(value_type = Vec<String>)]
    scopes: Vec<Scope>,
}

impl From<&Grant> for Granted {
    fn from(grant: &Grant) -> Self {
        let Grant { role, teams, scopes } = grant.clone();
        Self { role, teams: teams.into_iter().collect(), scopes: scopes.into_iter().collect() }
    }
}

/// Who the token belongs to
#[utoipa::path(get, path = "/api/v1/whoami", tag = "Access", operation_id = "whoAmI",
    responses((status = 200, body = WhoAmI)))]
pub(super) async fn whoami(Author { who, until, .. }: Author) -> Result<Json<WhoAmI>, ApiError> {
    let grants: Vec<Granted> = who.grants().iter().map(Granted::from).collect();
    // Who has none is not let in.
    let Granted { role, teams, scopes } = grants.first().cloned().ok_or(Missing::Rule)?;
    Ok(Json(WhoAmI { name: who.name.clone(), role, teams, scopes, grants, expires_at: until }))
}

/// Lets pass who may ask for the operation, and what needs no token: everything outside of `/api`, the description of the API, the
/// schemas of documents, and operations that need nothing.
pub(super) async fn authenticate(State(api): State<Api>, request: Request, next: Next) -> Response {
    if is_open(&request) {
        return next.run(request).await;
    }
    let client = request.extensions().get().copied();
    let place = request.extensions().get::<Place>().cloned().unwrap_or_default();
    let mut step = place.begin("authorize");
    let known = match identify(&api, client, request.headers()).await {
        Ok(known) => known,
        Err(error) => {
            step.failed("not let in");
            return turned_away(&api, request.headers(), error);
        }
    };
    let author = Author { who: known.who, until: known.until, from: record::address(&request), once: None, place };
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let standing = api.guard.count(&author.who.name, request.method().as_str(), path);
    if let Some(standing) = standing.filter(|standing| standing.wait().is_some()) {
        return guard::refused(standing);
    }
    let subject = known.subject.as_deref();
    api.audit
        .signed_in(author.by(), subject, OffsetDateTime::now_utc(), || subject.map(|subject| told(&author, subject)));
    let mut response = admitted(request, next, &author, step).await;
    response.extensions_mut().insert(author);
    match standing {
        Some(standing) => guard::told(standing, response),
        None => response,
    }
}

fn is_open(request: &Request) -> bool {
    let path = request.uri().path();
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    !path.starts_with("/api")
        || path == openapi::PATH
        || schemas::lie_at(path)
        || operations::needs(request.method().as_str(), route) == Some(Needs::Nothing)
}

/// What the audit log is told of a person.
fn told(author: &Author, subject: &str) -> String {
    let grants: Vec<_> = author.who.grants().iter().map(Granted::from).collect();
    json!({ "subject": subject, "grants": grants }).to_string()
}

/// Lets pass who may ask for the operation, with the grants that allow it.
async fn admitted(mut request: Request, next: Next, author: &Author, mut step: Step) -> Response {
    // Without one, nothing is there.
    if let Some(matched) = request.extensions().get::<MatchedPath>() {
        match operations::may(&author.who, request.method().as_str(), matched.as_str()) {
            Ok(who) => _ = request.extensions_mut().insert(Author { who, ..author.clone() }),
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

/// The answer to whom is not let in; the audit log is told whose token it was, if that is known.
fn turned_away(api: &Api, headers: &HeaderMap, error: ApiError) -> Response {
    let owner = match &error {
        ApiError::Person(refused) => refused.owner().map(str::to_owned),
        _ => presented(headers).and_then(|token| api.tokens.owner_of_ended(token)),
    };
    let mut response = error.into_response();
    if let Some(owner) = owner {
        response.extensions_mut().insert(FormerOwner(owner));
    }
    response
}

/// Whose token it is.
struct Known {
    who: Arc<Principal>,
    until: Option<OffsetDateTime>,
    /// How an issuer calls them, if one has made the token.
    subject: Option<String>,
}

/// Who the token belongs to, if tokens of `client` are looked at: whoever brings many wrong ones guesses.
async fn identify(api: &Api, client: Option<Client>, headers: &HeaderMap) -> Result<Known, ApiError> {
    let token = presented(headers).ok_or(ApiError::NoToken)?;
    let now = Instant::now();
    if let Some(client) = client {
        let looked_at = api.guard.looks_at(client, token, now);
        looked_at.map_err(|wait| ApiError::TooManyRequests { what: "wrong tokens", wait })?;
    }
    let found = look_up(api, token, OffsetDateTime::now_utc()).await;
    let is_a_guess = match &found {
        Err(ApiError::Token(refused)) => *refused == Refused::Unknown,
        Err(ApiError::Person(refused)) => refused.is_a_guess(),
        _ => false,
    };
    match (&found, client) {
        (Ok(_), Some(client)) => api.guard.good(client, token, now),
        (Err(_), Some(client)) if is_a_guess => api.guard.wrong(client, now),
        _ => {}
    }
    found
}

async fn look_up(api: &Api, token: &str, now: OffsetDateTime) -> Result<Known, ApiError> {
    if api.admin_token.matches(token) {
        return Ok(Known { who: Arc::new(Principal::admin(ADMIN)), until: None, subject: None });
    }
    if let Some(sign_in) = api.sign_in.as_ref().filter(|_| oidc::is_of_an_issuer(token)) {
        let Person { principal, subject, until } = sign_in.identify(token, now).await.map_err(ApiError::Person)?;
        return Ok(Known { who: Arc::new(principal), until: Some(until), subject: Some(subject) });
    }
    let (who, until) = api.tokens.identify(token, now).await.map_err(ApiError::Token)?;
    Ok(Known { who, until: Some(until), subject: None })
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
