//! Endpoints that register themselves with a service, and renew their leases.
//!
//! None of this is a revision: nothing is planned, and nothing stands in the history.

use std::{collections::BTreeMap, net::IpAddr};

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    http::request::Parts,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    author::Author,
    body::Body,
    error::ApiError,
    page::{Page, PageParams},
    params::{NameInPath, Params},
};
use crate::{
    access::{changes::Refusal, owner},
    model::{
        Key, Kind, Name, Problems,
        endpoint::{EndpointId, Health, MAX_PER_SERVICE, RegisteredEndpoint},
        registration, registrations,
        service::Zone,
        wire::{RegistrationSpec, RegistrationsSpec},
    },
    store::{LeaseAction, LeaseWrite, Leased},
};

/// The endpoints that are registered with a service.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointList {
    /// The endpoints, by id.
    items: Vec<EndpointView>,
    /// Where the next page starts; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// An endpoint that registered itself.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointView {
    /// What it calls itself.
    #[schema(value_type = String)]
    id: EndpointId,
    /// Its address.
    #[schema(value_type = String)]
    address: IpAddr,
    /// Its port.
    port: u16,
    /// When it is used: 0 always, 1 while too few of those with 0 are healthy, and so on.
    priority: u32,
    /// Its share of the load.
    weight: u32,
    /// What tells it apart from others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    /// In which zone it is; empty if that is not said.
    #[serde(skip_serializing_if = "String::is_empty")]
    zone: String,
    /// In which region that is; empty if that is not said.
    #[serde(skip_serializing_if = "String::is_empty")]
    region: String,
    /// What it says of itself.
    health: Health,
    /// How long its lease is, in milliseconds.
    ttl_ms: u64,
    /// What is left of it, in milliseconds; 0 when it is to be removed any moment.
    remaining_ms: u64,
}

/// What became of endpoints.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EndpointsWritten {
    /// How many are registered now, or still.
    registered: usize,
    /// How many were renewed by their id alone.
    renewed: usize,
    /// How many are gone now, or were.
    deregistered: usize,
    /// The ids that were to be renewed and are not registered (any more): they have to be registered.
    #[schema(value_type = Vec<String>)]
    unknown: Vec<EndpointId>,
}

/// The `{name}` and `{id}` of a path.
#[derive(Debug)]
pub(super) struct EndpointInPath(Name, EndpointId);

impl<S: Send + Sync> FromRequestParts<S> for EndpointInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((name, id)) =
            path.map_err(|rejection| ApiError::Malformed(format!("path: {}", rejection.body_text())))?;
        let name = name.parse().map_err(|error| ApiError::Malformed(format!("path: name: {error}")))?;
        let id = id.parse().map_err(|error| ApiError::Malformed(format!("path: id {error}")))?;
        Ok(Self(name, id))
    }
}

/// List registered endpoints
///
/// All that are registered with the service, with what is left of their leases. Those in its spec are not among them.
#[utoipa::path(get, path = "/api/v1/services/{name}/endpoints", tag = "Endpoints", operation_id = "listEndpoints",
    params(("name" = String, Path, description = "The service", example = "checkout"), PageParams), responses((status = 200, body = EndpointList)))]
pub(super) async fn list(
    State(api): State<Api>,
    NameInPath(service): NameInPath,
    Params(params): Params<PageParams>,
    author: Author,
) -> Result<Json<EndpointList>, ApiError> {
    taking(&api, &author, &service)?;
    let leases = api.replica.store().leases(&service).await?;
    let (leases, next_cursor) = Page::from(params).of(leases, |leased| leased.id.to_string())?;
    Ok(Json(EndpointList { items: leases.into_iter().map(EndpointView::from).collect(), next_cursor }))
}

/// Register an endpoint, or renew its lease
///
/// It is in the database when this answers, and milliseconds later with the proxies. It stays until its lease is over; the same
/// request again renews that, at little cost. Where a lease has to be renewed, three times in its length is a good measure.
#[utoipa::path(put, path = "/api/v1/services/{name}/endpoints/{id}", tag = "Endpoints",
    operation_id = "registerEndpoint", request_body = RegistrationSpec, params(
    ("name" = String, Path, description = "The service", example = "checkout"),
    ("id" = String, Path, description = "What the endpoint calls itself", example = "checkout-7f9c")
), responses((status = 200, body = EndpointsWritten)))]
pub(super) async fn register(
    State(api): State<Api>,
    EndpointInPath(service, id): EndpointInPath,
    author: Author,
    body: Body,
) -> Result<Json<EndpointsWritten>, ApiError> {
    let value = body.value().await?;
    let mut problems = Problems::default();
    let Some((endpoint, ttl)) = registration(&value, &mut problems) else {
        return Err(ApiError::Problems(problems.into_vec()));
    };
    own(&api, &author, &Key::new(Kind::Service, service.clone()))?;
    taking(&api, &author, &service)?;
    has_room(&api, &service, std::iter::once(&id))?;
    let action = LeaseAction::Register { endpoint, ttl };
    api.registry.write(vec![LeaseWrite { service, id, action }]).await?;
    Ok(Json(EndpointsWritten { registered: 1, ..EndpointsWritten::default() }))
}

/// Deregister an endpoint
///
/// Requests under way are finished. To deregister one that is not there does nothing.
#[utoipa::path(delete, path = "/api/v1/services/{name}/endpoints/{id}", tag = "Endpoints",
    operation_id = "deregisterEndpoint", params(
    ("name" = String, Path, description = "The service", example = "checkout"),
    ("id" = String, Path, description = "What the endpoint calls itself", example = "checkout-7f9c")
), responses((status = 200, body = EndpointsWritten)))]
pub(super) async fn deregister(
    State(api): State<Api>,
    EndpointInPath(service, id): EndpointInPath,
    author: Author,
) -> Result<Json<EndpointsWritten>, ApiError> {
    // That there is no such service, or that it takes none, is no obstacle.
    let key = Key::new(Kind::Service, service.clone());
    if api.replica.current().catalog.entry(&key).is_some() {
        own(&api, &author, &key)?;
    } else if !author.who.sees_all() {
        return Err(ApiError::NotFound(key.to_string()));
    }
    api.registry.write(vec![LeaseWrite { service, id, action: LeaseAction::Remove }]).await?;
    Ok(Json(EndpointsWritten { deregistered: 1, ..EndpointsWritten::default() }))
}

/// Register, renew and deregister many endpoints
///
/// All of them or none; for agents that speak for many. What is only renewed needs no more than its id.
#[utoipa::path(post, path = "/api/v1/services/{name}/endpoints", tag = "Endpoints", operation_id = "writeEndpoints",
    request_body = RegistrationsSpec, params(("name" = String, Path, description = "The service", example = "checkout")),
    responses((status = 200, body = EndpointsWritten)))]
pub(super) async fn write(
    State(api): State<Api>,
    NameInPath(service): NameInPath,
    author: Author,
    body: Body,
) -> Result<Json<EndpointsWritten>, ApiError> {
    let value = body.value().await?;
    let mut problems = Problems::default();
    let Some(wanted) = registrations(&value, &mut problems) else {
        return Err(ApiError::Problems(problems.into_vec()));
    };
    own(&api, &author, &Key::new(Kind::Service, service.clone()))?;
    taking(&api, &author, &service)?;
    has_room(&api, &service, wanted.register.iter().map(|(id, _)| id))?;
    let mut written = EndpointsWritten {
        registered: wanted.register.len(),
        renewed: wanted.renew.len(),
        deregistered: wanted.deregister.len(),
        unknown: Vec::new(),
    };
    let register = wanted.register.into_iter();
    let register = register.map(|(id, (endpoint, ttl))| (id, LeaseAction::Register { endpoint, ttl }));
    let renew = wanted.renew.into_iter().map(|id| (id, LeaseAction::Renew));
    let deregister = wanted.deregister.into_iter().map(|id| (id, LeaseAction::Remove));
    let all = register.chain(renew).chain(deregister);
    let writes: Vec<_> = all.map(|(id, action)| LeaseWrite { service: service.clone(), id, action }).collect();
    if !writes.is_empty() {
        written.unknown = api.registry.write(writes).await?;
        written.renewed -= written.unknown.len();
    }
    Ok(Json(written))
}

/// Whether endpoints of this service may be written by `author`.
fn own(api: &Api, author: &Author, service: &Key) -> Result<(), ApiError> {
    let current = api.replica.current();
    let entry = author.find(&current.catalog, service)?;
    author.who.may(|grant| grant.writes_of(owner(&entry.document))).map_err(|missing| {
        let key = Some(service.clone());
        ApiError::Forbidden(vec![Refusal { key, missing }])
    })
}

/// Whether endpoints register themselves with `service`, which `author` must see.
fn taking(api: &Api, author: &Author, service: &Name) -> Result<(), ApiError> {
    let key = Key::new(Kind::Service, service.clone());
    let current = api.replica.current();
    author.find(&current.catalog, &key)?;
    if current.catalog.service(service).is_some_and(|service| service.registered) {
        return Ok(());
    }
    let mut problems = Problems::default();
    let reason = "is not set, so the endpoints of this service do not register themselves";
    problems.about(key.to_string()).at("spec").at("registered").report(reason);
    Err(ApiError::Problems(problems.into_vec()))
}

/// Whether `service` may have endpoints with these ids beside those it has.
fn has_room<'a>(api: &Api, service: &Name, ids: impl Iterator<Item = &'a EndpointId>) -> Result<(), ApiError> {
    let count = api.registry.count_with(service, ids);
    if count <= MAX_PER_SERVICE {
        return Ok(());
    }
    let mut problems = Problems::default();
    let key = Key::new(Kind::Service, service.clone());
    let reason = format!("would have {count} registered endpoints; {MAX_PER_SERVICE} is the most");
    problems.about(key.to_string()).report(reason);
    Err(ApiError::Problems(problems.into_vec()))
}

impl From<Leased> for EndpointView {
    fn from(Leased { id, endpoint, ttl, remaining }: Leased) -> Self {
        let RegisteredEndpoint { address, port, priority, weight, labels, zone, health } = endpoint;
        let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let Zone { region, zone } = zone.unwrap_or_default();
        Self {
            id,
            address,
            port,
            priority,
            weight,
            labels,
            zone,
            region,
            health,
            ttl_ms: millis(ttl),
            remaining_ms: millis(remaining),
        }
    }
}
