//! Which requests would go elsewhere after a change: `POST /api/v1/plan/traffic`.
//!
//! Requests come in batches, so that neither a body nor the work for it has to grow with a log.

use std::time::{Duration, Instant};

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Api,
    apply::{self, Prune},
    author::Author,
    body::Body,
    error::ApiError,
    explain::{HeaderValue, blocking, only_seen, read},
    seen,
    view::ResourceView,
};
use crate::{
    commit::{ChangeSet, Planned},
    explain::{Destination, Explainer, Goal, Moved, Request, Source, moved},
    model::{Catalog, Name, Problems},
    seen::SeenRequest as Kept,
};

/// How many distinct requests one question may be about.
const MOST_REQUESTS: usize = 5000;

/// How long they may be looked at; nobody waits for an answer longer.
const TIME_LIMIT: Duration = Duration::from_secs(25);

/// A change, and requests that were seen.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TrafficQuestion {
    /// The fleet that the requests come to; without it, every fleet that has their hosts.
    #[serde(default)]
    #[schema(value_type = Option<String>, examples("edge"))]
    fleet: Option<Name>,
    /// Deletes what is not among the resources, as in `plan`.
    #[serde(default)]
    #[schema(value_type = Option<Prune>)]
    prune: Value,
    /// The resources of the change, each whole.
    #[schema(value_type = Vec<ResourceView>)]
    resources: Vec<Value>,
    /// The requests, at most 5000; not with `seen`.
    #[serde(default)]
    requests: Option<Vec<SeenRequest>>,
    /// In place of `requests`: those that proxies have told this replica of.
    #[serde(default)]
    seen: Option<SeenBy>,
}

/// What a fleet has seen lately, as `GET /api/v1/traffic` lists it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SeenBy {
    /// The fleet.
    #[schema(value_type = String, examples("edge"))]
    fleet: Name,
}

/// A request that was seen, and how often.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SeenRequest {
    /// The method.
    #[schema(examples("GET"))]
    method: String,
    /// The host that it named.
    #[schema(examples("checkout.example.com"))]
    authority: String,
    /// Path and query.
    #[schema(examples("/api/x?debug=1"))]
    path: String,
    /// The headers, as far as they are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<HeaderValue>,
    /// How often it was seen.
    #[serde(default = "once")]
    count: u64,
}

fn once() -> u64 {
    1
}

/// Which requests would go elsewhere.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TrafficPlan {
    /// The revision that the change was compared with.
    revision: u64,
    /// How many requests were looked at, each as often as it was seen.
    requests: u64,
    /// How many of them would go elsewhere.
    moved_requests: u64,
    /// How many are no requests that a proxy would read.
    unreadable: u64,
    /// What would go elsewhere, in the order of the requests.
    moved: Vec<MovedRequest>,
}

/// A request that would go elsewhere, at one listener.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct MovedRequest {
    /// The request.
    request: SeenRequest,
    /// The listener.
    #[schema(examples("Listener/web"))]
    listener: String,
    /// Where it goes now; absent if the listener is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<GoalView>,
    /// Where it would go; absent if the listener would not be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<GoalView>,
}

/// Where a request goes, and by which rule.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct GoalView {
    /// The rule that matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Source>,
    /// Where it sends the request.
    destination: Destination,
}

/// Say which requests would go elsewhere
///
/// Checks a change as `plan` does, without asking Envoy, and writes nothing. Each request is looked at before the change and after it: those
/// that another rule takes, or that go to other services, by other shares, or are answered otherwise, are listed.
#[utoipa::path(post, path = "/api/v1/plan/traffic", tag = "Changes", operation_id = "planTraffic", request_body = TrafficQuestion,
    responses((status = 200, body = TrafficPlan)))]
pub(super) async fn plan(State(api): State<Api>, author: Author, body: Body) -> Result<Json<TrafficPlan>, ApiError> {
    let TrafficQuestion { fleet, prune, resources, requests, seen } = read(&body.value().await?)?;
    let mut problems = Problems::default();
    let (fleet, requests) = match (requests, seen) {
        (Some(requests), None) if requests.len() <= MOST_REQUESTS => (fleet, requests),
        (None, Some(seen)) => {
            let kept = seen::of_fleet(&api, &author, &seen.fleet)?;
            (fleet.or(Some(seen.fleet)), kept.newest().map(SeenRequest::from).collect())
        }
        (Some(requests), None) => {
            problems.at("requests").report(format!("must be at most {MOST_REQUESTS}, not {}", requests.len()));
            return Err(ApiError::Problems(problems.into_vec()));
        }
        (Some(_), Some(_)) | (None, None) => {
            problems.report("needs exactly one of requests and seen");
            return Err(ApiError::Problems(problems.into_vec()));
        }
    };
    let prune = apply::selector(prune, &mut problems.at("prune"));
    let edits = apply::edits(resources, problems)?;
    let set = ChangeSet {
        author: author.who.clone(),
        from: author.from,
        message: String::new(),
        edits,
        prune,
        if_revision: None,
        dry_run: true,
        once: None,
        place: author.place.clone(),
    };
    let Planned { before, after, .. } = api.commit.preview(&set)?;
    let current = before.clone();
    let compare = move || compare(&current.catalog, current.revision, &after, fleet.as_ref(), requests);
    let compared = blocking("comparing traffic", compare).await??;
    only_seen(&author, &before.catalog, &compared)?;
    Ok(Json(compared))
}

impl From<Kept> for SeenRequest {
    fn from(Kept { request, count, last: _ }: Kept) -> Self {
        let (authority, path) = (request.authority.clone(), request.path.clone());
        Self { method: request.method.to_owned(), authority, path, headers: Vec::new(), count }
    }
}

fn compare(
    before: &Catalog,
    revision: u64,
    after: &Catalog,
    fleet: Option<&Name>,
    requests: Vec<SeenRequest>,
) -> Result<TrafficPlan, ApiError> {
    let began = Instant::now();
    let (before, after) = (Explainer::new(before, revision), Explainer::new(after, revision + 1));
    let mut plan = TrafficPlan { revision, requests: 0, moved_requests: 0, unreadable: 0, moved: Vec::new() };
    for seen in requests {
        if began.elapsed() > TIME_LIMIT {
            return Err(ApiError::Timeout);
        }
        let SeenRequest { method, authority, path, headers, count } = &seen;
        let headers = headers.iter().cloned().map(Into::into);
        let Ok(request) = Request::logged(method, authority, path, headers) else {
            plan.unreadable = plan.unreadable.saturating_add(*count);
            continue;
        };
        plan.requests = plan.requests.saturating_add(*count);
        let moved = moved(&before, &after, fleet, &request);
        if !moved.is_empty() {
            plan.moved_requests = plan.moved_requests.saturating_add(*count);
        }
        plan.moved.extend(moved.into_iter().map(|moved| MovedRequest::new(&seen, moved)));
    }
    Ok(plan)
}

impl MovedRequest {
    fn new(request: &SeenRequest, moved: Moved) -> Self {
        let Moved { listener, before, after } = moved;
        let view = |Goal { rule, destination }| GoalView { rule, destination };
        Self {
            request: request.clone(),
            listener: format!("Listener/{listener}"),
            before: before.map(view),
            after: after.map(view),
        }
    }
}
