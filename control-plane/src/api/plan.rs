//! What a change would do, told before it is made: `POST /api/v1/plan`.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::HeaderMap};
use chancery_proto::type_url::short_name;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    apply::{self, ApplyRequest},
    author::Author,
    body::Body,
    condition,
    error::ApiError,
    params::{Params, WriteParams},
    view::{ChangedResource, Written},
    write,
};
use crate::{
    commit::Planned,
    model::Name,
    proxies::ProxyStatus,
    translate::effect::{Drain, Effect, ResourceChange, effect},
};

/// How many resources of a fleet are listed.
const RESOURCES: usize = 500;

/// How many proxies of a fleet are named.
const NAMED: usize = 100;

/// What an apply would do.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Plan {
    /// What would be written.
    #[serde(flatten)]
    written: Written,
    /// The fleets whose proxies would get something new.
    fleets: Vec<FleetPlan>,
    /// What rate limiters would get.
    #[serde(skip_serializing_if = "Option::is_none")]
    limiters: Option<LimiterPlan>,
    /// Whether proxies and limiters of all replicas are counted: not while the database is away.
    complete: bool,
}

/// What a change would do to a fleet.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FleetPlan {
    /// Its name.
    #[schema(value_type = String, examples("edge"))]
    fleet: Name,
    /// How many of its proxies are connected: these would see it.
    connected: usize,
    /// Their ids, the first 100.
    proxies: Vec<String>,
    /// How many of them are canaries, and would see it first.
    canaries: usize,
    /// Whether the fleet gets its revisions in stages.
    staged: bool,
    /// What would become of their resources, by type and name; the first 500.
    resources: Vec<PlannedResource>,
    /// How many are left out.
    omitted: usize,
    /// The listeners that would drain connections.
    drains: Vec<PlannedDrain>,
}

/// What would become of a resource of Envoy's.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlannedResource {
    /// Its type, by its short name.
    #[schema(examples("virtualHost"))]
    r#type: String,
    /// Its name.
    #[schema(examples("web/checkout.example.com"))]
    name: String,
    /// What would happen to it.
    change: PlannedChange,
}

/// What happens to a resource of Envoy's.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum PlannedChange {
    /// It is new.
    Added,
    /// It is another.
    Changed,
    /// It is gone.
    Removed,
}

/// A listener that would drain connections.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PlannedDrain {
    /// Its name.
    listener: String,
    /// Why.
    reason: DrainReason,
    /// Which filter chains would drain; absent when all connections of the listener would.
    #[serde(skip_serializing_if = "Option::is_none")]
    filter_chains: Option<Vec<String>>,
}

/// Why a listener drains.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum DrainReason {
    /// It is removed.
    Removed,
    /// It moves to another address.
    Moved,
    /// More than its filter chains is another.
    Replaced,
    /// Filter chains of it are other ones, or gone; connections of others stay.
    FilterChains,
}

/// What a change would do to rate limiters.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LimiterPlan {
    /// The fleets whose limits would be other ones.
    #[schema(value_type = Vec<String>)]
    fleets: Vec<Name>,
    /// How many limiters are connected.
    connected: usize,
}

/// Say what an apply would do
///
/// Checks everything that `apply` checks and writes nothing. Says what would be created, changed and deleted, field by field; what
/// would become of the resources of proxies; which proxies would see it; and whose connections would drain. An `apply` with
/// `If-Match` and the `revision` of this answer does just that, or nothing.
#[utoipa::path(post, path = "/api/v1/plan", tag = "Changes", operation_id = "plan", params(
    WriteParams,
    ("If-Match" = Option<String>, Header, description = "Only if the catalog is at this revision, in quotes")
),
    request_body(content((ApplyRequest = "application/json"), (String = "application/yaml"))),
    responses((status = 200, body = Plan, description = "What an apply would do")))]
pub(super) async fn plan(
    State(api): State<Api>,
    Params(mut params): Params<WriteParams>,
    headers: HeaderMap,
    author: Author,
    body: Body,
) -> Result<Json<Plan>, ApiError> {
    params.dry_run = true;
    let if_revision = condition::catalog_revision(&headers)?;
    let request = apply::request(body.documents().await?)?;
    let mut set = write::change_set(author, &params, request.message, request.edits, if_revision)?;
    set.prune = request.prune;
    let planned = api.commit.plan(&set).await?;
    let Planned { committed, before, after, changes } = planned;
    let (seen, complete) =
        seen(&api, changes.fleets.keys().next(), changes.fleets.len(), !changes.domains.is_empty()).await;
    let of_fleet = |fleet: &str| seen.get(fleet).map(Vec::as_slice).unwrap_or_default();
    let fleets = changes.fleets.iter().map(|(name, changes)| {
        let mut versions = [&before.catalog, &after].into_iter().filter_map(|catalog| catalog.fleet(name));
        let staged = versions.any(|fleet| fleet.rollout.is_some());
        FleetPlan::new(name.clone(), effect(&before.catalog, &after, name, changes), of_fleet(name.as_str()), staged)
    });
    let limiters = (!changes.domains.is_empty())
        .then(|| LimiterPlan { fleets: changes.domains.keys().cloned().collect(), connected: of_fleet("").len() });
    let changed = committed.changed.into_iter().map(|changed| ChangedResource::new(changed, true)).collect();
    let written = Written { revision: committed.revision, changed, dry_run: true, applied: None };
    Ok(Json(Plan { fleets: fleets.collect(), written, limiters, complete }))
}

/// Who is connected, by fleet, as far as it is asked for: `first` is one of `fleets` fleets, and limiters belong to none.
async fn seen(
    api: &Api,
    first: Option<&Name>,
    fleets: usize,
    limiters: bool,
) -> (BTreeMap<String, Vec<ProxyStatus>>, bool) {
    if fleets == 0 && !limiters {
        return (BTreeMap::new(), true);
    }
    let only = first.filter(|_| fleets == 1 && !limiters);
    let everywhere = api.proxies.everywhere(api.replica.store().as_ref(), only, None).await;
    let mut seen: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for proxy in everywhere.proxies.into_iter().filter(|proxy| proxy.connected) {
        seen.entry(proxy.fleet.clone()).or_default().push(proxy);
    }
    (seen, everywhere.complete)
}

impl FleetPlan {
    fn new(fleet: Name, effect: Effect, proxies: &[ProxyStatus], staged: bool) -> Self {
        let Effect { resources, drains } = effect;
        Self {
            fleet,
            connected: proxies.len(),
            proxies: proxies.iter().take(NAMED).map(|proxy| proxy.id.clone()).collect(),
            canaries: proxies.iter().filter(|proxy| proxy.canary).count(),
            staged,
            omitted: resources.len().saturating_sub(RESOURCES),
            resources: resources.into_iter().take(RESOURCES).map(PlannedResource::from).collect(),
            drains: drains.into_iter().map(PlannedDrain::from).collect(),
        }
    }
}

impl From<((&'static str, String), ResourceChange)> for PlannedResource {
    fn from(((type_url, name), change): ((&'static str, String), ResourceChange)) -> Self {
        let change = match change {
            ResourceChange::Added => PlannedChange::Added,
            ResourceChange::Changed => PlannedChange::Changed,
            ResourceChange::Removed => PlannedChange::Removed,
        };
        Self { r#type: short_name(type_url).to_owned(), name, change }
    }
}

impl From<(String, Drain)> for PlannedDrain {
    fn from((listener, drain): (String, Drain)) -> Self {
        let (reason, filter_chains) = match drain {
            Drain::Removed => (DrainReason::Removed, None),
            Drain::Moved => (DrainReason::Moved, None),
            Drain::Replaced => (DrainReason::Replaced, None),
            Drain::FilterChains(names) => (DrainReason::FilterChains, Some(names)),
        };
        Self { listener, reason, filter_chains }
    }
}
