//! What answers look like on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::diff::{self, FieldChange};
use crate::{
    commit::{self, Changed},
    model::{Document, Entry, Kind, Name},
    proxies::Applied,
};

/// A resource: what the user wrote, and what the server knows about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Resource)]
pub struct ResourceView {
    /// The kind.
    #[schema(value_type = String, examples("Route"))]
    pub kind: Kind,
    /// The name, unique per kind.
    #[schema(value_type = String, examples("checkout"))]
    pub name: Name,
    /// Who owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, examples("payments"))]
    pub team: Option<Name>,
    /// Free labels to select by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What is wanted, by kind.
    #[schema(value_type = Object)]
    pub spec: Value,
    /// The revision that last changed it; its `ETag`.
    pub revision: u64,
    /// When that was.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: OffsetDateTime,
    /// Who did it.
    pub updated_by: String,
}

impl From<&Entry> for ResourceView {
    fn from(entry: &Entry) -> Self {
        let Document { kind, name, team, labels, spec } = entry.document.as_ref().clone();
        let Entry { revision, updated_at, .. } = *entry;
        Self { kind, name, team, labels, spec, revision, updated_at, updated_by: entry.updated_by.clone() }
    }
}

/// A page of resources.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResourceList {
    /// The resources, by name.
    pub(super) items: Vec<ResourceView>,
    /// Where the next page starts; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_cursor: Option<String>,
}

/// What a write did, or would do.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    /// The revision of the catalog with this change in it.
    pub(super) revision: u64,
    /// What changed; empty if everything was as wanted already.
    pub(super) changed: Vec<ChangedResource>,
    /// Present when nothing was written because that was asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) dry_run: bool,
    /// How the change arrived at the proxies, if that was waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) applied: Option<Applied>,
}

/// One resource that a write changed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChangedResource {
    /// The kind.
    #[schema(value_type = String, examples("Route"))]
    pub(super) kind: Kind,
    /// The name.
    #[schema(value_type = String, examples("checkout"))]
    pub(super) name: Name,
    /// What happened to it.
    pub(super) action: Action,
    /// When nothing is written: which fields would differ, the first 200 of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fields: Option<Vec<FieldChange>>,
}

/// What happens to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    /// It is new.
    Created,
    /// It is another.
    Updated,
    /// It is gone.
    Deleted,
}

impl From<commit::Action> for Action {
    fn from(action: commit::Action) -> Self {
        match action {
            commit::Action::Created => Self::Created,
            commit::Action::Updated => Self::Updated,
            commit::Action::Deleted => Self::Deleted,
        }
    }
}

impl ChangedResource {
    /// What `changed` says; `in_detail`, field by field.
    pub(super) fn new(changed: Changed, in_detail: bool) -> Self {
        let Changed { key, action, before, after } = changed;
        let fields = in_detail.then(|| diff::of_documents(before.as_deref(), after.as_deref()));
        Self { kind: key.kind, name: key.name, action: action.into(), fields }
    }
}
