//! Many resources as one transaction and one revision: `POST /api/v1/apply`, and `plan`, which only says what would change.

use std::collections::BTreeMap;

use axum::{Json, extract::State, http::HeaderMap};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Api,
    author::Author,
    body::Body,
    condition,
    envelope::{self, Known},
    error::ApiError,
    params::{Params, WriteParams},
    text::TextDocument,
    view::{ResourceView, Written},
    write,
};
use crate::{
    commit::{Edit, Expect},
    model::{Document, Key, Problems, parse},
};

/// Many resources, wanted as they stand here.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApplyRequest {
    /// Why the change is made; kept with the revision.
    message: Option<String>,
    /// Deletes what is not listed. Not supported yet: must be false or absent.
    prune: Option<bool>,
    /// The resources, each whole, in any order.
    resources: Vec<ResourceView>,
}

/// Apply many resources
///
/// All of them or none, as one revision, in any order. Takes `{message, resources}` as JSON, or YAML documents separated
/// by `---`. `If-Match: "<revision>"` applies only if the catalog is at this revision.
#[utoipa::path(post, path = "/api/v1/apply", tag = "Changes", operation_id = "apply", params(
    WriteParams,
    ("If-Match" = Option<String>, Header, description = "Only if the catalog is at this revision, in quotes")
),
    request_body(content((ApplyRequest = "application/json"), (String = "application/yaml"))),
    responses((status = 200, body = Written, description = "All is as wanted now")))]
pub(super) async fn apply(
    State(api): State<Api>,
    Params(params): Params<WriteParams>,
    headers: HeaderMap,
    author: Author,
    body: Body,
) -> Result<Json<Written>, ApiError> {
    let if_revision = condition::catalog_revision(&headers)?;
    let Request { message, edits } = request(body.documents().await?)?;
    write::commit(&api, author, &params, message, edits, if_revision).await.map(Json)
}

/// Say what an apply would change
///
/// Checks everything that `apply` checks and writes nothing. Fields that differ are listed for each resource.
#[utoipa::path(post, path = "/api/v1/plan", tag = "Changes", operation_id = "plan", params(
    WriteParams,
    ("If-Match" = Option<String>, Header, description = "Only if the catalog is at this revision, in quotes")
),
    request_body(content((ApplyRequest = "application/json"), (String = "application/yaml"))),
    responses((status = 200, body = Written, description = "What an apply would change")))]
pub(super) async fn plan(
    State(api): State<Api>,
    Params(mut params): Params<WriteParams>,
    headers: HeaderMap,
    author: Author,
    body: Body,
) -> Result<Json<Written>, ApiError> {
    params.dry_run = true;
    let if_revision = condition::catalog_revision(&headers)?;
    let Request { message, edits } = request(body.documents().await?)?;
    write::commit(&api, author, &params, message, edits, if_revision).await.map(Json)
}

struct Request {
    message: Option<String>,
    edits: Vec<Edit>,
}

/// Either `{message, prune, resources}`, or every document a resource.
fn request(texts: Vec<TextDocument>) -> Result<Request, ApiError> {
    let mut problems = Problems::default();
    let mut values: Vec<Value> = texts.into_iter().map(|document| document.value).collect();
    let mut message = None;
    if let [Value::Object(fields)] = values.as_mut_slice()
        && !fields.contains_key("kind")
    {
        let mut fields = std::mem::take(fields);
        message = match fields.remove("message").unwrap_or_default() {
            Value::Null => None,
            Value::String(message) => Some(message),
            other => {
                problems.at("message").report(format!("must be a text, not {}", envelope::describe(&other)));
                None
            }
        };
        match fields.remove("prune").unwrap_or_default() {
            Value::Null | Value::Bool(false) => {}
            Value::Bool(true) => problems.at("prune").report("is not supported yet"),
            other => problems.at("prune").report(format!("must be true or false, not {}", envelope::describe(&other))),
        }
        values = match fields.remove("resources") {
            Some(Value::Array(resources)) => resources,
            Some(other) => {
                problems.at("resources").report(format!("must be a list, not {}", envelope::describe(&other)));
                return Err(ApiError::Problems(problems.into_vec()));
            }
            None => {
                problems.at("resources").report("is missing");
                return Err(ApiError::Problems(problems.into_vec()));
            }
        };
        for field in fields.keys() {
            problems.at(field).report("is not a field of this request; there are message, prune, resources");
        }
    }
    Ok(Request { message, edits: edits(values, problems)? })
}

/// The edits that put `values`, each a resource; or what is wrong with them, beside the `problems` that are known.
pub(super) fn edits(values: Vec<Value>, mut problems: Problems) -> Result<Vec<Edit>, ApiError> {
    if values.is_empty() {
        problems.at("resources").report("must not be empty");
    }
    let documents = documents(values, &mut problems);
    if !problems.is_empty() {
        // This change goes no further, so what is wrong in the others is said here.
        for document in &documents {
            parse(document, &mut problems);
        }
        return Err(ApiError::Problems(problems.into_vec()));
    }
    Ok(documents.into_iter().map(|document| Edit::Put { document, expect: Expect::Any }).collect())
}

fn documents(values: Vec<Value>, problems: &mut Problems) -> Vec<Document> {
    let mut seen: BTreeMap<Key, usize> = BTreeMap::new();
    let mut documents = Vec::with_capacity(values.len());
    for (index, value) in values.into_iter().enumerate() {
        let known = Known { place: place(index), ..Known::default() };
        let Some(document) = envelope::document(value, &known, problems) else { continue };
        if let Some(first) = seen.insert(document.key(), index) {
            let reason = format!("is given twice, as {} and {}", place(first), known.place);
            problems.about(document.key().to_string()).report(reason);
        }
        documents.push(document);
    }
    documents
}

fn place(index: usize) -> String {
    format!("resources[{index}]")
}
