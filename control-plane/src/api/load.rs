//! How much traffic services have.

use std::time::Instant;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    author::Author,
    error::ApiError,
    page::Page,
    params::{self, Limit, NameInPath, Params},
};
use crate::{
    load::ServiceLoad,
    model::{Key, Kind, Name},
};

/// Whose load.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct LoadParams {
    /// Only that on this fleet.
    fleet: Option<String>,
    /// At most so many, 1 to 1000; 1000 by default.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<Limit>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// The load of services.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LoadList {
    /// One for each service and fleet.
    items: Vec<LoadView>,
    /// Where the next page starts; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// The load of a service on a fleet, over the last minute, as the proxies that are connected to this replica report it. An
/// attempt of a retry counts by itself; a request for which there was no endpoint does not count.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LoadView {
    /// The service.
    service: String,
    /// The fleet.
    fleet: String,
    /// Requests that ended per second, over all proxies.
    requests_per_second: f64,
    /// The share of errors (5xx, timeouts, failed connections) among the requests that ended, 0 to 1; none without requests.
    error_rate: Option<f64>,
    /// Requests in progress.
    in_progress: u64,
    /// Requests that ended.
    requests: u64,
    /// Errors among them.
    errors: u64,
    /// Requests that were not sent, by a breaker or an overload policy.
    dropped: u64,
    /// How many proxies of the fleet report.
    proxies: usize,
    /// Since when `requests`, `errors` and `dropped` were counted; none if no proxy has reported.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<OffsetDateTime>,
}

/// List the load of services
///
/// Of the last minute, by service and fleet; services without requests are left out. Proxies report every few seconds.
#[utoipa::path(get, path = "/api/v1/load", tag = "Load", operation_id = "listLoad", params(LoadParams),
    responses((status = 200, body = LoadList)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<LoadParams>,
    author: Author,
) -> Result<Json<LoadList>, ApiError> {
    let fleet = params::fleet(params.fleet)?;
    let (clock, current) = (Clock::now(), api.replica.current());
    let mut loads = api.loads.of_services(fleet.as_ref());
    if !author.who.sees_all() {
        let seen = |service: &Name| author.find(&current.catalog, &Key::new(Kind::Service, service.clone())).is_ok();
        loads.retain(|(service, _), _| seen(service));
    }
    let items = loads.into_iter().map(|((service, fleet), load)| LoadView::new(&service, &fleet, load, &clock));
    LoadList::page(items, params.limit, params.cursor)
}

/// Read the load of a service
///
/// Of the last minute, by fleet: those that send to the service, and report. Proxies report every few seconds.
#[utoipa::path(get, path = "/api/v1/services/{name}/load", tag = "Load", operation_id = "readLoad",
    params(("name" = String, Path, description = "The service", example = "checkout"), LoadParams), responses((status = 200, body = LoadList)))]
pub(super) async fn read(
    State(api): State<Api>,
    NameInPath(name): NameInPath,
    Params(params): Params<LoadParams>,
    author: Author,
) -> Result<Json<LoadList>, ApiError> {
    let fleet = params::fleet(params.fleet)?;
    let current = api.replica.current();
    author.find(&current.catalog, &Key::new(Kind::Service, name.clone()))?;
    let clock = Clock::now();
    let mut loads = api.loads.of_service(&name, fleet.as_ref());
    loads.retain(|fleet, _| current.catalog.fleet_uses(fleet, &name));
    let items = loads.into_iter().map(|(fleet, load)| LoadView::new(&name, &fleet, load, &clock));
    LoadList::page(items, params.limit, params.cursor)
}

impl LoadList {
    fn page(
        items: impl Iterator<Item = LoadView>,
        limit: Option<Limit>,
        cursor: Option<String>,
    ) -> Result<Json<Self>, ApiError> {
        let place = |view: &LoadView| (view.service.clone(), view.fleet.clone());
        let (items, next_cursor) = Page::new(limit, cursor).of(items, place)?;
        Ok(Json(Self { items, next_cursor }))
    }
}

/// What the time is, for moments that were taken by a clock without a date.
struct Clock {
    instant: Instant,
    date: OffsetDateTime,
}

impl Clock {
    fn now() -> Self {
        Self { instant: Instant::now(), date: OffsetDateTime::now_utc() }
    }

    fn date(&self, moment: Instant) -> OffsetDateTime {
        self.date - self.instant.saturating_duration_since(moment)
    }
}

impl LoadView {
    fn new(service: &Name, fleet: &Name, load: ServiceLoad, clock: &Clock) -> Self {
        let ServiceLoad { counts, requests_per_second, in_progress, proxies, since } = load;
        Self {
            service: service.to_string(),
            fleet: fleet.to_string(),
            requests_per_second,
            error_rate: counts.error_rate(),
            in_progress,
            requests: counts.requests(),
            errors: counts.errors,
            dropped: counts.dropped,
            proxies,
            since: since.map(|since| clock.date(since)),
        }
    }
}
