//! The history: who changed what, when and why, and the way back.

use axum::{
    Json,
    extract::{Path, State},
    http::HeaderMap,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    author::Author,
    condition,
    error::ApiError,
    params::{Limit, Params, WriteParams},
    view::Written,
    write,
};
use crate::{
    access::{Missing, Role},
    commit::{Edit, Expect},
    model::{Document, Key, Kind, Name},
    store::{Change, HistoryQuery, Revision, RevisionSummary},
};

/// How many revisions are looked at for a reader who does not see everything.
const MOST_EXAMINED: u32 = 100;

/// Which revisions to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct RevisionParams {
    /// With `name`: only those that changed this resource.
    #[param(example = "Route")]
    kind: Option<String>,
    /// With `kind`: only those that changed this resource.
    #[param(example = "checkout")]
    name: Option<String>,
    /// At most so many, 1 to 1000; 100 by default.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Limit,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// A revision.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RevisionView {
    /// Its number, from 1, without gaps.
    number: u64,
    /// Who made it.
    author: String,
    /// Why.
    message: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    at: OffsetDateTime,
    /// How many resources it changed.
    change_count: u64,
    /// What it changed; absent in a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Vec<ChangeView>>,
}

/// What a revision did to one resource.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangeView {
    /// The kind.
    #[schema(value_type = String, examples("Route"))]
    kind: Kind,
    /// The name.
    #[schema(value_type = String, examples("checkout"))]
    name: Name,
    /// What it was; null if it was created.
    #[schema(value_type = Option<Object>)]
    before: Option<Document>,
    /// What it became; null if it was deleted.
    #[schema(value_type = Option<Object>)]
    after: Option<Document>,
}

/// A page of revisions.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RevisionList {
    /// The revisions, newest first.
    items: Vec<RevisionView>,
    /// Where the next page starts; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// List revisions
///
/// Newest first, all or those that changed one resource. With a token that does not allow to see every team, those that changed
/// something that it does: such a page looks at up to 100 revisions, so it may hold fewer than `limit`, or none, and have a
/// `nextCursor`.
#[utoipa::path(get, path = "/api/v1/revisions", tag = "Revisions", operation_id = "listRevisions", params(RevisionParams),
    responses((status = 200, body = RevisionList)))]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<RevisionParams>,
    author: Author,
) -> Result<Json<RevisionList>, ApiError> {
    let RevisionParams { kind, name, limit: Limit(limit), cursor } = params;
    let key = match (kind, name) {
        (Some(kind), Some(name)) => {
            let kind = kind.parse().map_err(|error| ApiError::Malformed(format!("query: kind: {error}")))?;
            let name = name.parse().map_err(|error| ApiError::Malformed(format!("query: name {error}")))?;
            Some(Key::new(kind, name))
        }
        (None, None) => None,
        _ => return Err(ApiError::Malformed("query: kind and name belong together".to_owned())),
    };
    let before = cursor.map(|cursor| number("query: cursor", &cursor)).transpose()?;
    let limit = if author.who.sees_all() { limit } else { limit.min(MOST_EXAMINED) };
    let query = HistoryQuery { key: key.clone(), before, limit: limit + 1 };
    let mut summaries = api.replica.store().history(query).await?;
    let more = summaries.len() > limit as usize;
    summaries.truncate(limit as usize);
    let next_cursor = summaries.last().filter(|_| more).map(|last| last.number.to_string());
    let mut items = Vec::with_capacity(summaries.len());
    for summary in summaries {
        if author.who.sees_all() {
            items.push(RevisionView::new(summary, None));
        } else if let Some(revision) = api.replica.store().revision(summary.number).await? {
            let Revision { mut summary, changes } = revision;
            let seen: Vec<_> = changes.iter().filter(|change| author.sees(change)).collect();
            if seen.iter().any(|change| key.as_ref().is_none_or(|key| change.key == *key)) {
                summary.change_count = seen.len() as u64;
                items.push(RevisionView::new(summary, None));
            }
        }
    }
    Ok(Json(RevisionList { items, next_cursor }))
}

/// Read a revision
///
/// With everything it changed, before and after, as far as the token allows to see it.
#[utoipa::path(get, path = "/api/v1/revisions/{number}", tag = "Revisions", operation_id = "readRevision",
    params(("number" = u64, Path, description = "The revision", example = 42)), responses((status = 200, body = RevisionView)))]
pub(super) async fn read(
    State(api): State<Api>,
    Path(number): Path<String>,
    author: Author,
) -> Result<Json<RevisionView>, ApiError> {
    let Revision { mut summary, mut changes } = revision(&api, &number, &author).await?;
    changes.retain(|change| author.sees(change));
    summary.change_count = changes.len() as u64;
    Ok(Json(RevisionView::new(summary, Some(changes))))
}

/// Revert a revision
///
/// A new revision that undoes what this one did. Refused when a later one changed the same resource. One that changed
/// resources of several teams is reverted by operators.
#[utoipa::path(post, path = "/api/v1/revisions/{number}/revert", tag = "Revisions", operation_id = "revertRevision",
    params(
        ("number" = u64, Path, description = "The revision", example = 42),
        WriteParams,
        ("If-Match" = Option<String>, Header, description = "Only if the catalog is at this revision, in quotes")
    ), responses((status = 200, body = Written, description = "It is undone")))]
pub(super) async fn revert(
    State(api): State<Api>,
    Path(number): Path<String>,
    Params(params): Params<WriteParams>,
    headers: HeaderMap,
    author: Author,
) -> Result<Json<Written>, ApiError> {
    let if_revision = condition::catalog_revision(&headers)?;
    let Revision { summary, changes } = revision(&api, &number, &author).await?;
    if !changes.iter().all(|change| author.sees(change)) {
        return Err(Missing::Role(Role::Operator).into());
    }
    let current = api.replica.current();
    let mut edits = Vec::with_capacity(changes.len());
    for Change { key, before, after } in changes {
        let current = current.catalog.entry(&key);
        if current.map(|entry| entry.document.as_ref()) != after.as_deref() {
            return Err(ApiError::Superseded(format!("{key} was changed again after revision {}", summary.number)));
        }
        let expect = current.map_or(Expect::Absent, |entry| Expect::Revision(entry.revision));
        edits.extend(match (before, current) {
            (Some(before), _) => Some(Edit::Put { document: before.as_ref().clone(), expect }),
            (None, Some(_)) => Some(Edit::Delete { key, expect }),
            (None, None) => None,
        });
    }
    let message = params.message.is_none().then(|| format!("Revert revision {}", summary.number));
    write::commit(&api, author, &params, message, edits, if_revision).await.map(Json)
}

/// A revision that changed something which its reader sees.
async fn revision(api: &Api, text: &str, reader: &Author) -> Result<Revision, ApiError> {
    let number = number("path: number", text)?;
    let found = api.replica.store().revision(number).await?;
    let found = found.filter(|revision| revision.changes.iter().any(|change| reader.sees(change)));
    found.ok_or_else(|| ApiError::NotFound(format!("revision {number}")))
}

/// A revision's number, within what a database can hold.
pub(super) fn number(what: &str, text: &str) -> Result<u64, ApiError> {
    match text.parse() {
        Ok(number) if i64::try_from(number).is_ok() => Ok(number),
        _ => Err(ApiError::Malformed(format!("{what} must be the number of a revision"))),
    }
}

impl RevisionView {
    fn new(summary: RevisionSummary, changes: Option<Vec<Change>>) -> Self {
        let RevisionSummary { number, author, message, at, change_count } = summary;
        let changes = changes.map(|changes| changes.into_iter().map(ChangeView::from).collect());
        Self { number, author, message, at, change_count, changes }
    }
}

impl From<Change> for ChangeView {
    fn from(change: Change) -> Self {
        let Change { key, before, after } = change;
        let owned = |document: std::sync::Arc<Document>| document.as_ref().clone();
        Self { kind: key.kind, name: key.name, before: before.map(owned), after: after.map(owned) }
    }
}
