//! What fleets are not served because a proxy has rejected it.

use std::collections::HashSet;

use axum::{Json, extract::State};
use chancery_proto::type_url::short_name;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    author::Author,
    error::ApiError,
    page::Page,
    params::{self, Limit, Params},
};
use crate::{
    model::Kind,
    publish::{Cause, Place, Quarantined},
    store::Action,
};

/// Of which fleet.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct QuarantineParams {
    /// Only of this fleet.
    fleet: Option<String>,
}

/// Which of what is quarantined to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only of this fleet.
    fleet: Option<String>,
    /// At most so many, 1 to 1000; 1000 by default.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<Limit>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// What is quarantined.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QuarantineList {
    /// One for each fleet and resource of Envoy.
    items: Vec<QuarantineView>,
    /// Where the next page starts; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A resource of Envoy that a fleet is not served as its newest revision has it, because a proxy has rejected that. It is served
/// the last version that a proxy has acknowledged, until a revision changes the resource.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QuarantineView {
    /// The fleet.
    fleet: String,
    /// The type of the resource, by short name.
    #[serde(rename = "type")]
    resource_type: String,
    /// The resource.
    name: String,
    /// The version that was rejected.
    version: String,
    /// The version that is served; none if there never was a good one.
    served_version: Option<String>,
    /// The revision that brought the rejected version.
    revision: u64,
    /// The proxy that rejected it.
    proxy: String,
    /// Its words.
    reason: String,
    /// When it said them.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    since: OffsetDateTime,
}

/// List the quarantine
///
/// A resource that a proxy rejects before another has acknowledged it is taken back for the whole fleet: all others keep what they
/// have, and everything else keeps flowing.
#[utoipa::path(get, path = "/api/v1/quarantine", tag = "Proxies", operation_id = "listQuarantine",
    params(ListParams), responses((status = 200, body = QuarantineList)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<ListParams>,
) -> Result<Json<QuarantineList>, ApiError> {
    let ListParams { fleet, limit, cursor } = params;
    let all = shown(quarantined(&api, fleet)?);
    let place = |view: &QuarantineView| {
        (view.fleet.clone(), view.resource_type.clone(), format!("{} {}", view.name, view.version))
    };
    let (items, next_cursor) = Page::new(limit, cursor).of(all, place)?;
    Ok(Json(QuarantineList { items, next_cursor }))
}

/// Release the quarantine
///
/// Serves what is quarantined once more, as after an upgrade of the proxies: what they reject again is taken back again. Answers
/// with what was released.
#[utoipa::path(post, path = "/api/v1/quarantine/release", tag = "Proxies", operation_id = "releaseQuarantine",
    params(QuarantineParams), responses((status = 200, body = QuarantineList)))]
pub(super) async fn release(
    State(api): State<Api>,
    Params(params): Params<QuarantineParams>,
    author: Author,
) -> Result<Json<QuarantineList>, ApiError> {
    let audit = api.audit.clone();
    audit
        .carried_through(release_now(api, params.fleet, author))
        .await
        .map_err(|error| ApiError::Internal("releasing the quarantine", error.into()))?
}

async fn release_now(api: Api, fleet: Option<String>, author: Author) -> Result<Json<QuarantineList>, ApiError> {
    let mut entry = author.by().done(Action::ReleaseQuarantine, OffsetDateTime::now_utc());
    if let Some(fleet) = &fleet {
        entry = entry.about(Kind::Fleet.as_str(), fleet);
    }
    let mut released = quarantined(&api, fleet)?;
    released.retain(|(place, _)| api.publisher.release(place));
    api.publisher.quarantine_changed().notify_one();
    let items = shown(released);
    let places = items.iter().map(|one| format!("{}: {} {}", one.fleet, one.resource_type, one.name));
    entry.before = Some(serde_json::Value::from_iter(places).to_string());
    api.audit.done(entry).await;
    Ok(Json(QuarantineList { items, next_cursor: None }))
}

/// What is the same for proxies that take their routes in one form and in another is shown once.
fn shown(mut quarantined: Vec<(Place, Quarantined)>) -> Vec<QuarantineView> {
    let mut seen = HashSet::new();
    quarantined.retain(|(place, what)| seen.insert((place.fleet.clone(), place.id.clone(), what.rejected.version())));
    quarantined.into_iter().map(view).collect()
}

fn quarantined(api: &Api, fleet: Option<String>) -> Result<Vec<(Place, Quarantined)>, ApiError> {
    let fleet = params::fleet(fleet)?;
    let mut quarantined = api.publisher.quarantined();
    quarantined.retain(|(place, _)| fleet.as_ref().is_none_or(|fleet| place.fleet == *fleet));
    Ok(quarantined)
}

fn view((place, quarantined): (Place, Quarantined)) -> QuarantineView {
    let Quarantined { rejected, good, cause: Cause { proxy, words, at, revision }, served: _ } = quarantined;
    QuarantineView {
        fleet: place.fleet.to_string(),
        resource_type: short_name(&place.id.0).to_owned(),
        name: place.id.1.to_string(),
        version: rejected.version().to_string(),
        served_version: good.map(|good| good.version().to_string()),
        revision,
        proxy,
        reason: words,
        since: at.into(),
    }
}
