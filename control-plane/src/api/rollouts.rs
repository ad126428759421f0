//! How far revisions have come to fleets that get them in stages, and what people decide about that.

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{
    Api,
    author::Author,
    error::ApiError,
    page::{Page, PageParams},
    params::{NameInPath, Params},
};
use crate::{
    model::Name,
    replica::ReplicaError,
    rollout::{Decision, DecisionError, Failure, Phase, Rollout, Shown, Tried},
    store::{Action, NewEntry},
};

/// The rollouts of all fleets that get their revisions in stages.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RolloutList {
    /// One for each fleet that has `spec.rollout`.
    items: Vec<RolloutView>,
    /// Where the next page starts; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// How far revisions have come to a fleet.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RolloutView {
    /// The fleet.
    fleet: String,
    /// How far `revision` has come.
    phase: PhaseView,
    /// The revision that all its proxies have, but the canaries while they are ahead.
    stable_revision: u64,
    /// The last revision that the canaries were given, or that came to all because there was nobody to ask.
    revision: Option<u64>,
    /// The newest revision with something for the fleet, if it waits.
    waiting_revision: Option<u64>,
    /// When the canaries were given it.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    begun_at: Option<OffsetDateTime>,
    /// When `phase` began.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<OffsetDateTime>,
    /// Who the canaries are.
    canaries: Vec<CanaryView>,
    /// Why it has failed, if it has.
    failure: Option<FailureView>,
    /// Who gave it to all, if somebody did by hand.
    promoted_by: Option<String>,
}

/// How far a revision has come.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum PhaseView {
    /// There was none yet.
    Idle,
    /// Not all canaries have acknowledged it.
    Applying,
    /// They have, and have it alone for a while.
    Soaking,
    /// It has failed, and the canaries have it still.
    Held,
    /// It has failed, and the canaries have got back what the others have.
    Returned,
    /// All have it.
    Promoted,
}

/// A canary.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CanaryView {
    /// Its id.
    id: String,
    /// Whether it has acknowledged the revision and is there.
    acknowledged: bool,
}

/// Why a revision has failed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FailureView {
    /// Why: the proxy's own words, if one has rejected it.
    reason: String,
    /// The proxy that has rejected it.
    proxy: Option<String>,
    /// The type of what it has rejected, by short name.
    #[serde(rename = "type")]
    resource_type: Option<String>,
    /// What it has rejected.
    resources: Vec<String>,
    /// Who returned it, if somebody did by hand.
    by: Option<String>,
}

/// List rollouts
///
/// Of all fleets with `spec.rollout`.
#[utoipa::path(get, path = "/api/v1/rollouts", tag = "Rollouts", operation_id = "listRollouts",
    params(PageParams), responses((status = 200, body = RolloutList)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<PageParams>,
) -> Result<Json<RolloutList>, ApiError> {
    let shown = api.stages.list().await?;
    let views = shown.into_iter().map(RolloutView::from);
    let (items, next_cursor) = Page::from(params).of(views, |view| view.fleet.clone())?;
    Ok(Json(RolloutList { items, next_cursor }))
}

/// Read a rollout
#[utoipa::path(get, path = "/api/v1/rollouts/{name}", tag = "Rollouts", operation_id = "readRollout",
    params(("name" = String, Path, description = "The fleet", example = "edge")),
    responses((status = 200, body = RolloutView)))]
pub(super) async fn read(State(api): State<Api>, NameInPath(fleet): NameInPath) -> Result<Json<RolloutView>, ApiError> {
    let found = api.stages.list().await?.into_iter().find(|shown| shown.fleet == fleet);
    found.map(|shown| Json(shown.into())).ok_or_else(|| DecisionError::NotStaged(fleet).into())
}

/// Promote a revision
///
/// Gives what the canaries were given last to all proxies of the fleet at once, whatever speaks against it.
#[utoipa::path(post, path = "/api/v1/rollouts/{name}/promote", tag = "Rollouts", operation_id = "promoteRollout",
    params(("name" = String, Path, description = "The fleet", example = "edge")),
    responses((status = 200, body = RolloutView)))]
pub(super) async fn promote(
    State(api): State<Api>,
    author: Author,
    NameInPath(fleet): NameInPath,
) -> Result<Json<RolloutView>, ApiError> {
    decide(api, author, fleet, Decision::Promote).await
}

/// Return a revision
///
/// Gives the canaries of the fleet back what the others have. The revision is not tried again; a later one is.
#[utoipa::path(post, path = "/api/v1/rollouts/{name}/return", tag = "Rollouts", operation_id = "returnRollout",
    params(("name" = String, Path, description = "The fleet", example = "edge")),
    responses((status = 200, body = RolloutView)))]
pub(super) async fn give_back(
    State(api): State<Api>,
    author: Author,
    NameInPath(fleet): NameInPath,
) -> Result<Json<RolloutView>, ApiError> {
    decide(api, author, fleet, Decision::Return).await
}

async fn decide(api: Api, author: Author, fleet: Name, decision: Decision) -> Result<Json<RolloutView>, ApiError> {
    let audit = api.audit.clone();
    audit
        .carried_through(decide_now(api, author, fleet, decision))
        .await
        .map_err(|error| ApiError::Internal("deciding on a rollout", error.into()))?
}

async fn decide_now(api: Api, author: Author, fleet: Name, decision: Decision) -> Result<Json<RolloutView>, ApiError> {
    let (action, at) = match decision {
        Decision::Promote => (Action::Promote, OffsetDateTime::now_utc()),
        Decision::Return => (Action::Return, OffsetDateTime::now_utc()),
    };
    let view = RolloutView::from(api.stages.decide(&fleet, decision, &author.who.name).await?);
    let after = json!({ "stableRevision": view.stable_revision, "revision": view.revision, "phase": view.phase });
    let entry = author.by().done(action, at).about("Rollout", fleet.as_str());
    api.audit.done(NewEntry { after: Some(after.to_string()), ..entry }).await;
    Ok(Json(view))
}

impl From<DecisionError> for ApiError {
    fn from(error: DecisionError) -> Self {
        match error {
            DecisionError::NotStaged(fleet) => Self::NotFound(format!("fleet {fleet} with a rollout policy")),
            error @ (DecisionError::Undecidable(_) | DecisionError::Overtaken) => Self::Superseded(error.to_string()),
            DecisionError::Replica(ReplicaError::Store(error)) => Self::Store(error),
            DecisionError::Replica(error) => Self::Behind(error),
        }
    }
}

impl From<Shown> for RolloutView {
    fn from(Shown { fleet, rollout, waiting }: Shown) -> Self {
        let Rollout { stable, last } = rollout;
        let mut view = Self {
            fleet: fleet.to_string(),
            phase: PhaseView::Idle,
            stable_revision: stable,
            revision: None,
            waiting_revision: waiting,
            begun_at: None,
            since: None,
            canaries: Vec::new(),
            failure: None,
            promoted_by: None,
        };
        let Some(Tried { revision, begun_at, canaries, phase, .. }) = last else { return view };
        view.revision = Some(revision);
        view.begun_at = Some(begun_at);
        let canary = |(id, acknowledged): (Name, bool)| CanaryView { id: id.to_string(), acknowledged };
        view.canaries = canaries.into_iter().map(canary).collect();
        let (shown, since) = match phase {
            Phase::Applying => (PhaseView::Applying, begun_at),
            Phase::Soaking { since } => (PhaseView::Soaking, since),
            Phase::Promoted { at, by } => {
                view.promoted_by = by;
                (PhaseView::Promoted, at)
            }
            Phase::Held { failure } => (PhaseView::Held, view.failed(failure)),
            Phase::Returned { failure } => (PhaseView::Returned, view.failed(failure)),
        };
        (view.phase, view.since) = (shown, Some(since));
        view
    }
}

impl RolloutView {
    /// Takes in why it has failed, and says when.
    fn failed(&mut self, failure: Failure) -> OffsetDateTime {
        let Failure { at, reason, proxy, resource_type, resources, by } = failure;
        self.failure = Some(FailureView { reason, proxy, resource_type, resources, by });
        at
    }
}
