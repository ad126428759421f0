//! Enrolments: made, shown once, listed, revoked; and used, by machines that are nobody yet.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use chancery_runtime::SecretString;
use humantime_serde::re::humantime;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{
    Api,
    author::{Author, FormerOwner},
    body::Body,
    error::ApiError,
    guard::{Client, Source},
    lives::{chance, duration, moment},
    page::{Page, PageParams},
    params::Params,
};
use crate::{
    audit,
    enrolment::{EnrolmentError, Granted, NewEnrolment, Refused, actor},
    identity::request::RequestedKey,
    model::{Catalog, Key, Kind, Name, Problems},
    store::{EnrolmentRecord, EnrolmentUse},
};

/// How long the token of an enrolment is good where nothing else is said, and at most.
const TTL: (Duration, Duration) = (Duration::HOUR, Duration::days(7));

/// How long a certificate is good where nothing else is said, at least and at most.
const LIFE: (Duration, Duration, Duration) = (Duration::DAY, Duration::seconds(10), Duration::days(90));

/// An enrolment to be made.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EnrolmentRequest {
    /// The fleet that the proxy will be of.
    #[schema(value_type = String, examples("edge"))]
    fleet: Name,
    /// The id of the proxy; a proxy that has this id already is replaced. Not said: the machine chooses one that no other has.
    #[schema(value_type = Option<String>, examples("edge-1"))]
    proxy: Option<Name>,
    /// How long the token is good, 1m to 7d.
    #[schema(default = "1h", examples("30m"))]
    expires_in: Option<String>,
    /// How long each certificate is good, 10s to 90d; the proxy renews it when two thirds of that are over.
    #[schema(default = "24h", examples("12h"))]
    certificate_life: Option<String>,
}

/// An enrolment that was made.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EnrolmentSecret {
    /// Names it.
    id: String,
    /// The token, which is good for one proxy. It is not shown again.
    token: String,
    /// Until when it is good.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    expires_at: OffsetDateTime,
}

/// A page of enrolments.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EnrolmentList {
    /// The enrolments by id, without their tokens.
    items: Vec<EnrolmentView>,
    /// Where the next page starts; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// An enrolment, without its token.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Enrolment)]
pub(super) struct EnrolmentView {
    /// Names it.
    id: String,
    /// The fleet that the proxy is of.
    fleet: String,
    /// The id that the proxy will have; none: it chooses one.
    proxy: Option<String>,
    /// What has become of it.
    state: EnrolmentState,
    /// How long each certificate is good.
    certificate_life: String,
    /// Who made it.
    created_by: String,
    /// When.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    created_at: Option<OffsetDateTime>,
    /// Until when the token is good.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    expires_at: Option<OffsetDateTime>,
    /// The id of the proxy that has used it.
    used_by: Option<String>,
    /// The address that it came from.
    used_from: Option<String>,
    /// When it did.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = Option<String>, format = DateTime)]
    used_at: Option<OffsetDateTime>,
    /// Until when its newest certificate is good.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = Option<String>, format = DateTime)]
    certificate_until: Option<OffsetDateTime>,
    /// When it was revoked.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<OffsetDateTime>,
}

/// What has become of an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum EnrolmentState {
    /// Its token is good.
    Pending,
    /// Nobody used its token in time.
    Expired,
    /// It is that of a proxy, which may renew its certificate.
    Used,
    /// Somebody revoked it, or the proxy has enrolled anew.
    Revoked,
}

impl EnrolmentView {
    fn new(record: EnrolmentRecord, now: OffsetDateTime) -> Self {
        let state = match &record.used {
            _ if record.revoked_at.is_some() => EnrolmentState::Revoked,
            Some(_) => EnrolmentState::Used,
            None if now >= record.expires_at => EnrolmentState::Expired,
            None => EnrolmentState::Pending,
        };
        let used = record.used.as_ref();
        Self {
            state,
            certificate_life: humantime::format_duration(record.life.unsigned_abs()).to_string(),
            created_at: Some(record.created_at),
            expires_at: Some(record.expires_at),
            used_by: used.map(|used| used.proxy.clone()),
            used_from: used.map(|used| used.from.clone()),
            used_at: used.map(|EnrolmentUse { at, .. }| *at),
            certificate_until: used.map(|used| used.valid_until),
            revoked_at: record.revoked_at,
            id: record.id,
            fleet: record.fleet,
            proxy: record.proxy,
            created_by: record.created_by,
        }
    }
}

/// List enrolments
///
/// Without their tokens. Those that are revoked, or whose time is over, are listed for 90 days more.
#[utoipa::path(get, path = "/api/v1/enrolments", tag = "Access", operation_id = "listEnrolments",
    params(PageParams), responses((status = 200, body = EnrolmentList)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<PageParams>,
) -> Result<Json<EnrolmentList>, ApiError> {
    let now = OffsetDateTime::now_utc();
    let page = Page::from(params);
    // One more than is shown: so it is known whether there is a next page.
    let records = api.enrolments.list(page.after::<String>()?.as_deref().unwrap_or_default(), page.reach()).await?;
    let (records, next_cursor) = page.of(records, |record| record.id.clone())?;
    let items = records.into_iter().map(|record| EnrolmentView::new(record, now)).collect();
    Ok(Json(EnrolmentList { items, next_cursor }))
}

/// Create an enrolment
///
/// The answer holds the token by which one machine becomes a proxy; it is not shown again.
#[utoipa::path(post, path = "/api/v1/enrolments", tag = "Access", operation_id = "createEnrolment",
    request_body = EnrolmentRequest, responses((status = 201, body = EnrolmentSecret)))]
pub(super) async fn create(
    State(api): State<Api>,
    author: Author,
    body: Body,
) -> Result<(StatusCode, Json<EnrolmentSecret>), ApiError> {
    let mut problems = Problems::default();
    let new = request(&body.value().await?, &api.replica.current().catalog, &mut problems);
    let Some(new) = new.filter(|_| problems.is_empty()) else { return Err(ApiError::Problems(problems.into_vec())) };
    let made = api.enrolments.create(new, author.by(), OffsetDateTime::now_utc(), &mut chance()).await?;
    let secret = EnrolmentSecret { id: made.id, token: made.token.expose().clone(), expires_at: made.expires_at };
    Ok((StatusCode::CREATED, Json(secret)))
}

/// Revoke an enrolment
///
/// Its token is worth nothing any more. Certificates of the proxy that has used it are not renewed; the one that it has is good
/// until its end.
#[utoipa::path(delete, path = "/api/v1/enrolments/{id}", tag = "Access", operation_id = "revokeEnrolment",
    params(("id" = String, Path, description = "The id of the enrolment")), responses((status = 200, body = EnrolmentView)))]
pub(super) async fn revoke(
    State(api): State<Api>,
    Path(id): Path<String>,
    author: Author,
) -> Result<Json<EnrolmentView>, ApiError> {
    let now = OffsetDateTime::now_utc();
    let revoked = api.enrolments.revoke(&id, author.by(), now).await?;
    Ok(Json(EnrolmentView::new(revoked, now)))
}

/// What a request asks for; `None` if `problems` now says why not.
fn request(value: &serde_json::Value, catalog: &Catalog, problems: &mut Problems) -> Option<NewEnrolment> {
    let EnrolmentRequest { fleet, proxy, expires_in, certificate_life } = problems.read(value)?;
    if catalog.fleet(&fleet).is_none() {
        problems.at("fleet").report(format!("{} does not exist", Key::new(Kind::Fleet, fleet.clone())));
    }
    let mut lasting = |field, text: Option<String>, default, least, most| match text {
        None => Some(default),
        Some(text) => problems.at(field).ok(duration(&text, least..=most)),
    };
    let ttl = lasting("expiresIn", expires_in, TTL.0, Duration::MINUTE, TTL.1);
    let life = lasting("certificateLife", certificate_life, LIFE.0, LIFE.1, LIFE.2);
    Some(NewEnrolment { fleet, proxy, life: life?, ttl: ttl? })
}

/// What a machine asks with.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EnrolRequest {
    /// The token of an enrolment.
    #[schema(value_type = String)]
    token: SecretString,
    /// A certificate signing request (PKCS#10), PEM, for a key of EC P-256 or P-384, or RSA of 2048 to 4096 bits. Names in it are not
    /// looked at.
    csr: String,
    /// The id that the proxy wants to have; needed if the enrolment names none.
    #[schema(value_type = Option<String>, examples("edge-1"))]
    proxy: Option<Name>,
}

/// What a machine is given.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity {
    /// The SPIFFE ID in the certificate.
    #[schema(examples("spiffe://chancery.local/fleet/edge/proxy/edge-1"))]
    identity: String,
    /// The fleet.
    #[schema(value_type = String)]
    fleet: Name,
    /// The id of the proxy.
    #[schema(value_type = String)]
    proxy: Name,
    /// The certificate and the intermediates of its authority, PEM.
    certificate: String,
    /// The authorities by which the proxy knows its control plane, PEM.
    ca: String,
    /// When the certificate ends.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    not_after: Option<OffsetDateTime>,
    /// When to ask for the next, over the xDS port.
    #[serde(serialize_with = "moment")]
    #[schema(value_type = String, format = DateTime)]
    renew_after: Option<OffsetDateTime>,
}

impl From<Granted> for Identity {
    fn from(Granted { fleet, proxy, certified, renew_after }: Granted) -> Self {
        Self {
            identity: certified.uri,
            fleet,
            proxy,
            certificate: certified.certificate_pem,
            ca: certified.ca_pem,
            not_after: Some(certified.not_after),
            renew_after: Some(renew_after),
        }
    }
}

/// Enrol
///
/// Makes whoever has the token of an enrolment a proxy. Needs no other token. The token is good for one key: whoever lost the answer
/// asks again with the same key and is answered again.
#[utoipa::path(post, path = "/api/v1/enrol", tag = "Access", operation_id = "enrol", security(()), request_body = EnrolRequest,
    responses((status = 200, body = Identity)))]
pub(super) async fn enrol(
    State(api): State<Api>,
    client: Option<axum::Extension<Client>>,
    source: Option<axum::Extension<Source>>,
    body: Body,
) -> Result<Response, ApiError> {
    let client = client.map(|axum::Extension(client)| client);
    if let Some(client) = client {
        let counted = api.guard.enrols(client);
        counted.map_err(|wait| ApiError::TooManyRequests { what: "enrolments", wait })?;
    }
    let mut problems = Problems::default();
    let asked: Option<EnrolRequest> = problems.read(&body.value().await?);
    let key = asked.as_ref().and_then(|asked| problems.at("csr").ok(RequestedKey::of(&asked.csr)));
    let (Some(EnrolRequest { token, proxy, .. }), Some(key)) = (asked, key) else {
        return Err(ApiError::Problems(problems.into_vec()));
    };
    let from = audit::shown(source.map(|axum::Extension(Source(address))| address));
    let now = Instant::now();
    if let Some(client) = client {
        let looked_at = api.guard.looks_at(client, token.expose(), now);
        looked_at.map_err(|wait| ApiError::TooManyRequests { what: "wrong tokens", wait })?;
    }
    let enrolment = match (api.enrolments.of_token(token.expose()).await, client) {
        (Ok(enrolment), _) => enrolment,
        (Err(error), client) => {
            if let (EnrolmentError::Refused(Refused::Unknown), Some(client)) = (&error, client) {
                api.guard.wrong(client, now);
            }
            return Err(error.into());
        }
    };
    let who = actor(&enrolment.id);
    let enrolled = match enrolment.fleet.parse() {
        Ok(fleet) if api.publisher.has(&fleet) => {
            api.enrolments.enrol(enrolment, &key, proxy, from, OffsetDateTime::now_utc()).await
        }
        _ => Err(Refused::NoFleet(enrolment.fleet).into()),
    };
    match enrolled {
        Ok(granted) => Ok(Json(Identity::from(granted)).into_response()),
        Err(error) => {
            let mut refused = ApiError::from(error).into_response();
            refused.extensions_mut().insert(FormerOwner(who));
            Ok(refused)
        }
    }
}
