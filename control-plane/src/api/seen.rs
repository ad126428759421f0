//! Which requests proxies have seen lately, where their listeners tell the control plane.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    author::Author,
    error::ApiError,
    params::{self, Params},
};
use crate::{
    access::{Area, Missing, Role, Verb},
    model::{Key, Kind, Name},
    seen::{Requests, SeenRequest as Kept},
};

/// Whose requests.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SeenParams {
    /// The fleet.
    fleet: String,
}

/// The last requests that a fleet has seen, as its proxies have told this replica. Listeners do so that have it among their
/// `accessLogs`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SeenTraffic {
    /// The fleet.
    fleet: String,
    /// How many requests it has told of, those that are not listed included.
    requests: u64,
    /// How many of them are not kept: their host or path is too long, or their method is an unusual one.
    left_out: u64,
    /// Since when; none if it has told of none.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<OffsetDateTime>,
    /// The last 1000 that differ, the newest first.
    items: Vec<KeptRequest>,
}

/// A request that was seen: what a client asked for, before any rule changed it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeptRequest {
    /// The method.
    method: &'static str,
    /// The host that it named.
    authority: String,
    /// The path, without the query.
    path: String,
    /// How often it was told of, since it is kept. Where only a share is logged, it is so many of that.
    count: u64,
    /// When last.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    last_seen: OffsetDateTime,
}

/// Read the last requests that a fleet has seen
///
/// Without queries and headers. Each replica keeps what its own proxies tell it, in memory.
#[utoipa::path(get, path = "/api/v1/traffic", tag = "Load", operation_id = "readTraffic", params(SeenParams),
    responses((status = 200, body = SeenTraffic)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<SeenParams>,
    author: Author,
) -> Result<Json<SeenTraffic>, ApiError> {
    let Some(fleet) = params::fleet(Some(params.fleet))? else {
        return Err(ApiError::Malformed("query: fleet is missing".to_owned()));
    };
    let seen = of_fleet(&api, &author, &fleet)?;
    Ok(Json(SeenTraffic {
        fleet: fleet.to_string(),
        requests: seen.total(),
        left_out: seen.left_out(),
        since: seen.since(),
        items: seen.newest().map(KeptRequest::from).collect(),
    }))
}

/// What `fleet` has seen. It cannot be told apart by team.
pub(super) fn of_fleet(api: &Api, author: &Author, fleet: &Name) -> Result<Requests, ApiError> {
    author.who.may(|grant| {
        grant.may(Verb::Read, Area::Load)?;
        if grant.sees_all() { Ok(()) } else { Err(Missing::Role(Role::Operator)) }
    })?;
    author.find(&api.replica.current().catalog, &Key::new(Kind::Fleet, fleet.clone()))?;
    Ok(api.seen.of(fleet))
}

impl From<Kept> for KeptRequest {
    fn from(Kept { request, count, last }: Kept) -> Self {
        let (authority, path) = (request.authority.clone(), request.path.clone());
        Self { method: request.method, authority, path, count, last_seen: last }
    }
}
