//! What differs between two revisions, resource by resource and field by field.

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api,
    diff::{self, FieldChange},
    error::ApiError,
    params::{Limit, Params},
    revisions::{ChangeView, number},
    view::Action,
};
use crate::{
    model::Key,
    store::{Change, SpanQuery},
};

/// Which revisions to compare.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct CompareParams {
    /// The revision to compare with; the newest by default. It may be the older one.
    to: Option<u64>,
    /// Look at so many resources at most, 1 to 1000; 100 by default.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Limit,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// A page of what differs between two revisions.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Comparison {
    /// The one revision.
    from: u64,
    /// The other.
    to: u64,
    /// The resources that differ, in the order of kind and name.
    items: Vec<Difference>,
    /// Where the next page starts; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A resource that differs.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Difference {
    /// What it was, and what it is.
    #[serde(flatten)]
    change: ChangeView,
    /// What has happened to it in between, all in all.
    action: Action,
    /// Which fields differ, the first 200 of them.
    fields: Vec<FieldChange>,
}

/// Compare two revisions
///
/// What is different at `to`, all in all: what was changed and changed back is not told. Revision 0 has nothing in it. A page may have
/// fewer resources than `limit` and not be the last one.
#[utoipa::path(get, path = "/api/v1/revisions/{number}/diff", tag = "Revisions", operation_id = "compareRevisions",
    params(("number" = u64, Path, description = "The revision", example = 42), CompareParams), responses((status = 200, body = Comparison)))]
pub(super) async fn compare(
    State(api): State<Api>,
    Path(from): Path<String>,
    Params(params): Params<CompareParams>,
) -> Result<Json<Comparison>, ApiError> {
    let CompareParams { to, limit: Limit(limit), cursor } = params;
    let head = api.replica.current().revision;
    let (from, to) = (number("path: number", &from)?, to.unwrap_or(head));
    if let Some(missing) = [from, to].into_iter().find(|number| *number > head) {
        return Err(ApiError::NotFound(format!("revision {missing}")));
    }
    let after = cursor.map(|cursor| key("query: cursor", &cursor)).transpose()?;
    let span = SpanQuery { from: from.min(to), to: from.max(to), after, limit: limit + 1 };
    let mut changes = api.replica.store().changes_between(span).await?;
    let more = changes.len() > limit as usize;
    changes.truncate(limit as usize);
    let next_cursor = changes.last().filter(|_| more).map(|last| last.key.to_string());
    let items = changes.into_iter().filter_map(|change| difference(if from <= to { change } else { reversed(change) }));
    Ok(Json(Comparison { from, to, items: items.collect(), next_cursor }))
}

fn difference(change: Change) -> Option<Difference> {
    let action = match (&change.before, &change.after) {
        (None, None) => return None,
        (Some(before), Some(after)) if before == after => return None,
        (None, Some(_)) => Action::Created,
        (Some(_), Some(_)) => Action::Updated,
        (Some(_), None) => Action::Deleted,
    };
    let fields = diff::of_documents(change.before.as_deref(), change.after.as_deref());
    Some(Difference { change: change.into(), action, fields })
}

fn reversed(change: Change) -> Change {
    let Change { key, before, after } = change;
    Change { key, before: after, after: before }
}

/// A resource as it is written in a problem: `Route/checkout`.
fn key(what: &str, text: &str) -> Result<Key, ApiError> {
    Key::read(text).ok_or_else(|| ApiError::Malformed(format!("{what} must name a resource, as Route/checkout")))
}
