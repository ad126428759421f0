//! Who wrote each field of a resource, when, and why.
//!
//! The versions of a resource are gone through from the oldest on: a field keeps its origin as long as its value stays. Items of
//! a list are followed as [`Aligned`] has it, so one that moves because another came before it keeps its origin.

use std::collections::BTreeMap;

use axum::{Extension, Json, extract::State};
use serde::Serialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::{Api, diff::Aligned, error::ApiError, params::NameInPath};
use crate::{
    model::{Document, Key, Kind, Name},
    store::{Revision, RevisionSummary},
};

/// How many revisions of the resource are gone through, the newest.
const REVISIONS: usize = 500;

/// How many of them are read at once.
const PAGE: u32 = 100;

/// How many fields are told.
const FIELDS: usize = 2000;

/// Where the fields of a resource come from.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Blame {
    /// The kind.
    #[schema(value_type = String, examples("Route"))]
    kind: Kind,
    /// The name.
    #[schema(value_type = String, examples("checkout"))]
    name: Name,
    /// Its fields, in order; the first 2000.
    fields: Vec<FieldOrigin>,
    /// How many fields are left out.
    omitted: usize,
}

/// Where one field comes from.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct FieldOrigin {
    /// Where it is, as a JSON path.
    #[schema(examples("spec.rules[0].timeout"))]
    path: String,
    /// What it is.
    value: Value,
    /// The revision that wrote it; absent, with all that follows, if that is more than 500 revisions of the resource ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    /// Who made that.
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// When.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    at: Option<OffsetDateTime>,
}

/// Say who wrote each field of a resource
///
/// The revision that gave it the value that it has, with author, time and message.
#[utoipa::path(get, path = "/{name}/blame", operation_id = "blame", params(("name" = String, Path, description = "What it is called", example = "checkout")),
    responses((status = 200, body = Blame)))]
pub(super) async fn blame(
    State(api): State<Api>,
    Extension(kind): Extension<Kind>,
    NameInPath(name): NameInPath,
) -> Result<Json<Blame>, ApiError> {
    let key = Key::new(kind, name);
    let revisions = versions(&api, &key).await?;
    let newest = revisions.first().and_then(|newest| newest.changes.first()?.after.clone());
    let document = newest.ok_or_else(|| ApiError::NotFound(key.to_string()))?;
    let origin = origins(&revisions);
    let mut fields = Vec::new();
    let value = fields_of(&document);
    let omitted = tell(&mut String::new(), &value, &origin, &revisions, &mut fields);
    Ok(Json(Blame { kind: key.kind, name: key.name, fields, omitted }))
}

/// The revisions that made the resource what it is, newest first: from its creation on, or the last [`REVISIONS`].
async fn versions(api: &Api, key: &Key) -> Result<Vec<Revision>, ApiError> {
    let mut versions: Vec<Revision> = Vec::new();
    loop {
        let before = versions.last().map(|revision| revision.summary.number);
        let page = api.replica.store().changes_of(key, before, PAGE).await?;
        let read = page.len();
        for revision in page {
            let created = revision.changes.first().is_none_or(|change| change.before.is_none());
            versions.push(revision);
            if created || versions.len() == REVISIONS {
                return Ok(versions);
            }
        }
        if read < PAGE as usize {
            return Ok(versions);
        }
    }
}

/// Where the parts of a value come from: places in the list of revisions, none for what is older than all of them.
#[derive(Clone, Debug, PartialEq)]
enum Origin {
    Field(Option<usize>),
    Object(BTreeMap<String, Origin>),
    List(Vec<Origin>),
}

impl Origin {
    /// All of `value` from one place.
    fn whole(value: &Value, from: Option<usize>) -> Self {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                Self::Object(fields.iter().map(|(key, value)| (key.clone(), Self::whole(value, from))).collect())
            }
            Value::Array(items) if !items.is_empty() => {
                Self::List(items.iter().map(|item| Self::whole(item, from)).collect())
            }
            _ => Self::Field(from),
        }
    }

    /// That of `new`, which was `old`, of this origin, before `at` made it what it is.
    fn after(&self, old: &Value, new: &Value, at: usize) -> Self {
        if old == new {
            return self.clone();
        }
        match (self, old, new) {
            (Self::Object(origins), Value::Object(old), Value::Object(new)) if !new.is_empty() => {
                let field = |(key, value): (&String, &Value)| {
                    let origin = match (origins.get(key), old.get(key)) {
                        (Some(origin), Some(old)) => origin.after(old, value, at),
                        _ => Self::whole(value, Some(at)),
                    };
                    (key.clone(), origin)
                };
                Self::Object(new.iter().map(field).collect())
            }
            (Self::List(origins), Value::Array(old), Value::Array(new)) if !new.is_empty() => {
                let aligned = Aligned::new(old, new);
                let item = |(index, value): (usize, &Value)| {
                    let before = aligned.place_before(index, old.len(), new.len());
                    match before.and_then(|index| Some((origins.get(index)?, old.get(index)?))) {
                        Some((origin, old)) => origin.after(old, value, at),
                        None => Self::whole(value, Some(at)),
                    }
                };
                Self::List(new.iter().enumerate().map(item).collect())
            }
            _ => Self::whole(new, Some(at)),
        }
    }
}

/// The origin of what the newest of `revisions` has made, all of which are about one resource.
fn origins(revisions: &[Revision]) -> Origin {
    let mut origin = Origin::Field(None);
    let mut old = Value::Null;
    for (at, change) in revisions.iter().enumerate().rev().filter_map(|(at, one)| Some((at, one.changes.first()?))) {
        if at + 1 == revisions.len()
            && let Some(before) = &change.before
        {
            old = fields_of(before);
            origin = Origin::whole(&old, None);
        }
        let new = change.after.as_deref().map_or(Value::Null, fields_of);
        origin = origin.after(&old, &new, at);
        old = new;
    }
    origin
}

/// What is written into a resource; its kind and name are what it is.
fn fields_of(document: &Document) -> Value {
    let Document { kind: _, name: _, team, labels, spec } = document;
    let mut fields = Map::new();
    fields.extend(team.as_ref().map(|team| ("team".to_owned(), team.as_str().into())));
    if !labels.is_empty() {
        fields.insert(
            "labels".to_owned(),
            labels.iter().map(|(key, value)| (key.clone(), Value::from(&**value))).collect(),
        );
    }
    fields.insert("spec".to_owned(), spec.clone());
    Value::Object(fields)
}

/// Adds the fields of `value`, and says for how many there was no room.
fn tell(
    path: &mut String,
    value: &Value,
    origin: &Origin,
    revisions: &[Revision],
    fields: &mut Vec<FieldOrigin>,
) -> usize {
    let length = path.len();
    let mut omitted = 0;
    match (value, origin) {
        (Value::Object(parts), Origin::Object(origins)) => {
            for ((key, value), origin) in parts.iter().zip(origins.values()) {
                if length > 0 {
                    path.push('.');
                }
                path.push_str(key);
                omitted += tell(path, value, origin, revisions, fields);
                path.truncate(length);
            }
        }
        (Value::Array(items), Origin::List(origins)) => {
            for (index, (value, origin)) in items.iter().zip(origins).enumerate() {
                path.push_str(&format!("[{index}]"));
                omitted += tell(path, value, origin, revisions, fields);
                path.truncate(length);
            }
        }
        (value, Origin::Field(from)) if fields.len() < FIELDS => {
            let summary = from.and_then(|from| Some(revisions.get(from)?.summary.clone()));
            fields.push(FieldOrigin::new(path.clone(), value.clone(), summary));
        }
        _ => omitted = 1,
    }
    omitted
}

impl FieldOrigin {
    fn new(path: String, value: Value, summary: Option<RevisionSummary>) -> Self {
        let (mut revision, mut author, mut message, mut at) = (None, None, None, None);
        if let Some(summary) = summary {
            (revision, author) = (Some(summary.number), Some(summary.author));
            (message, at) = (Some(summary.message), Some(summary.at));
        }
        Self { path, value, revision, author, message, at }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::store::Change;

    /// What each field of the last of `versions` comes from: the place of a version.
    fn told(versions: &[Value]) -> Vec<(String, Option<u64>)> {
        told_without(versions, 0)
    }

    /// As [`told`], if the first few were forgotten.
    fn told_without(versions: &[Value], forgotten: usize) -> Vec<(String, Option<u64>)> {
        let document = |spec: &Value| {
            let document = json!({ "kind": "Service", "name": "a", "spec": spec });
            std::sync::Arc::new(serde_json::from_value::<Document>(document).unwrap())
        };
        let key = Key::new(Kind::Service, "a".parse().unwrap());
        let revision = |number: usize| Revision {
            summary: RevisionSummary {
                number: number as u64,
                author: "ada".to_owned(),
                message: String::new(),
                at: OffsetDateTime::UNIX_EPOCH,
                change_count: 1,
            },
            changes: vec![Change {
                key: key.clone(),
                before: number.checked_sub(1).map(|before| document(&versions[before])),
                after: Some(document(&versions[number])),
            }],
        };
        let revisions: Vec<_> = (forgotten..versions.len()).rev().map(revision).collect();
        let mut fields = Vec::new();
        let value = fields_of(&document(versions.last().unwrap()));
        assert_eq!(tell(&mut String::new(), &value, &origins(&revisions), &revisions, &mut fields), 0);
        fields.into_iter().map(|field| (field.path.replace("spec.", ""), field.revision)).collect()
    }

    fn are(expected: &[(&str, u64)]) -> Vec<(String, Option<u64>)> {
        expected.iter().map(|(path, revision)| ((*path).to_owned(), Some(*revision))).collect()
    }

    #[test]
    fn a_field_is_that_of_the_revision_that_gave_it_its_value() {
        let versions = [
            json!({ "a": 1, "b": { "c": 1, "d": 1 } }),
            json!({ "a": 2, "b": { "c": 1, "d": 1 } }),
            json!({ "a": 2, "b": { "c": 1, "d": 2, "e": [] } }),
            json!({ "a": 1, "b": { "c": 1, "d": 2, "e": [] } }),
        ];
        assert_eq!(told(&versions), are(&[("a", 3), ("b.c", 0), ("b.d", 2), ("b.e", 2)]));
        assert_eq!(told(&versions[..1]), are(&[("a", 0), ("b.c", 0), ("b.d", 0)]));
    }

    #[test]
    fn an_item_that_only_moves_keeps_its_origin() {
        let versions = [
            json!({ "l": [{ "x": 1 }, { "x": 2, "y": 0 }] }),
            json!({ "l": [{ "x": 9 }, { "x": 1 }, { "x": 2, "y": 0 }] }),
            json!({ "l": [{ "x": 9 }, { "x": 1 }, { "x": 2, "y": 5 }] }),
            json!({ "l": [{ "x": 1 }, { "x": 2, "y": 5 }] }),
        ];
        assert_eq!(told(&versions[..2]), are(&[("l[0].x", 1), ("l[1].x", 0), ("l[2].x", 0), ("l[2].y", 0)]));
        assert_eq!(told(&versions), are(&[("l[0].x", 0), ("l[1].x", 0), ("l[1].y", 2)]));
    }

    #[test]
    fn a_value_of_another_shape_is_new_and_what_is_forgotten_has_no_origin() {
        let versions = [json!({ "a": 1, "b": 1 }), json!({ "a": { "x": 1 }, "b": 1 }), json!({ "a": [1], "b": 1 })];
        assert_eq!(told(&versions[..2]), are(&[("a.x", 1), ("b", 0)]));
        assert_eq!(told(&versions), are(&[("a[0]", 2), ("b", 0)]));
        assert_eq!(told_without(&versions, 1), [("a[0]".to_owned(), Some(2)), ("b".to_owned(), None)]);
    }
}
