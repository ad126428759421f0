//! Many resources as one transaction and one revision: `POST /api/v1/apply`; and what it asks for, which `plan` is asked as well.

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
    model::{Document, Key, Problems, Selector, parse},
};

/// Many resources, wanted as they stand here.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApplyRequest {
    /// Why the change is made; kept with the revision.
    message: Option<String>,
    /// Deletes what is not among the resources, of those that have this team and these labels.
    prune: Option<Prune>,
    /// The resources, each whole, in any order.
    resources: Vec<ResourceView>,
}

/// Which resources are deleted unless they are listed: those that have all of this. One of the two must be given.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Prune {
    /// Whose they are.
    #[schema(examples("payments"))]
    team: Option<String>,
    /// Labels that they carry.
    labels: Option<BTreeMap<String, String>>,
}

/// Apply many resources
///
/// All of them or none, as one revision, in any order; with `prune`, what is not among them is deleted in the same revision, of
/// the resources with a team or labels. Takes `{message, prune, resources}` as JSON, or YAML documents separated
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
    let Request { message, edits, prune } = request(body.documents().await?)?;
    let mut set = write::change_set(author, &params, message, edits, if_revision)?;
    set.prune = prune;
    write::commit_set(&api, &params, set).await.map(Json)
}

/// What a request asks for.
pub(super) struct Request {
    /// Why.
    pub(super) message: Option<String>,
    /// The resources.
    pub(super) edits: Vec<Edit>,
    /// What is deleted unless it is among them.
    pub(super) prune: Option<Selector>,
}

/// Either `{message, prune, resources}`, or every document a resource.
pub(super) fn request(texts: Vec<TextDocument>) -> Result<Request, ApiError> {
    let mut problems = Problems::default();
    let mut values: Vec<Value> = texts.into_iter().map(|document| document.value).collect();
    let (mut message, mut prune) = (None, None);
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
        prune = selector(fields.remove("prune").unwrap_or_default(), &mut problems.at("prune"));
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
    Ok(Request { message, edits: edits(values, problems)?, prune })
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

/// What may be deleted: never all there is.
pub(super) fn selector(value: Value, problems: &mut Problems) -> Option<Selector> {
    let mut fields = match value {
        Value::Null | Value::Bool(false) => return None,
        Value::Object(fields) => fields,
        other => {
            let given = envelope::describe(&other);
            problems
                .report(format!("must say what may be deleted, as {{\"labels\": {{\"app\": \"shop\"}}}}, not {given}"));
            return None;
        }
    };
    let before = problems.count();
    let mut selector = Selector::default();
    match fields.remove("team").unwrap_or_default() {
        Value::Null => {}
        Value::String(team) => match team.parse() {
            Ok(team) => selector.team = Some(team),
            Err(error) => problems.at("team").report(error.to_string()),
        },
        other => problems.at("team").report(format!("must be a name, not {}", envelope::describe(&other))),
    }
    match fields.remove("labels").unwrap_or_default() {
        Value::Null => {}
        Value::Object(labels) => {
            for (key, value) in labels {
                match value {
                    Value::String(value) => selector.labels.push((key, value)),
                    other => {
                        let given = envelope::describe(&other);
                        problems.at("labels").at(&key).report(format!("must be a text, not {given}"));
                    }
                }
            }
        }
        other => problems.at("labels").report(format!("must be an object, not {}", envelope::describe(&other))),
    }
    for field in fields.keys() {
        problems.at(field).report("is not a field of it; there are team, labels");
    }
    if selector.is_empty() && problems.count() == before {
        problems.report("needs a team or a label: it is not for everything there is");
    }
    Some(selector)
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
