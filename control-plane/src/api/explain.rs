//! What becomes of a request before it is sent: `POST /api/v1/explain`.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Api, author::Author, body::Body, error::ApiError};
use crate::{
    access::{Missing, Role, owner},
    explain::{Explainer, Explanation, InvalidRequest, Request},
    model::{Catalog, Key, Kind, Name, Problems},
};

/// A request, and the fleet that it comes to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Question {
    /// The fleet.
    #[schema(value_type = String, examples("edge"))]
    fleet: Name,
    /// The method.
    #[schema(examples("GET"))]
    method: String,
    /// The URL. A port chooses the listener; a header `host` stands in the place of its host.
    #[schema(examples("https://checkout.example.com/api/x"))]
    url: String,
    /// The headers.
    #[serde(default)]
    headers: Vec<HeaderValue>,
}

/// A header of a request.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HeaderValue {
    /// Its name.
    #[schema(examples("x-beta"))]
    name: String,
    /// Its value.
    #[schema(examples("1"))]
    value: String,
}

impl From<HeaderValue> for (String, String) {
    fn from(header: HeaderValue) -> Self {
        (header.name, header.value)
    }
}

/// Say what becomes of a request
///
/// Which listener takes it, which host and rule it meets, what of the rules before did not match, and what the rule does: where the
/// request goes, under which limits, timeouts and retries. Each with the resource and the revision that it comes from. Nothing is sent.
#[utoipa::path(post, path = "/api/v1/explain", tag = "Explain", operation_id = "explain", request_body = Question,
    responses((status = 200, body = Explanation)))]
pub(super) async fn explain(State(api): State<Api>, author: Author, body: Body) -> Result<Json<Explanation>, ApiError> {
    let Question { fleet, method, url, headers } = read(&body.value().await?)?;
    let request = Request::new(&method, &url, headers.into_iter().map(Into::into)).map_err(|error| invalid(&error))?;
    let current = api.replica.current();
    author.find(&current.catalog, &Key::new(Kind::Fleet, fleet.clone()))?;
    let (at, of) = (current.clone(), fleet.clone());
    let explained =
        blocking("explaining a request", move || Explainer::new(&at.catalog, at.revision).explain(&of, &request));
    let explained = explained.await?.ok_or_else(|| ApiError::NotFound(format!("Fleet/{fleet}")))?;
    only_seen(&author, &current.catalog, &explained)?;
    Ok(Json(explained))
}

/// Refuses an answer that tells of what belongs to teams that `author` does not see.
pub(super) fn only_seen(author: &Author, catalog: &Catalog, answer: &impl Serialize) -> Result<(), ApiError> {
    if author.who.sees_all() {
        return Ok(());
    }
    let answer = serde_json::to_value(answer).map_err(|error| ApiError::Internal("an answer", error.into()))?;
    let hidden = |resource: &str| {
        let entry = Key::read(resource).and_then(|key| catalog.entry(&key));
        entry.is_some_and(|entry| !author.who.sees(owner(&entry.document)))
    };
    if names(&answer).into_iter().any(hidden) { Err(Missing::Role(Role::Operator).into()) } else { Ok(()) }
}

/// The resources that an answer names.
fn names(answer: &Value) -> Vec<&str> {
    match answer {
        Value::Object(fields) => {
            let own = fields.get("resource").and_then(Value::as_str);
            own.into_iter().chain(fields.values().flat_map(names)).collect()
        }
        Value::Array(items) => items.iter().flat_map(names).collect(),
        _ => Vec::new(),
    }
}

fn invalid(error: &InvalidRequest) -> ApiError {
    let mut problems = Problems::default();
    problems.at(error.field()).report(error.to_string());
    ApiError::Problems(problems.into_vec())
}

/// `value` as a `T`, or what is wrong with it.
pub(super) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, ApiError> {
    let mut problems = Problems::default();
    let read = problems.read(value);
    read.ok_or_else(|| ApiError::Problems(problems.into_vec()))
}

/// What `work` comes to, which takes its time, so a thread that may block does it.
pub(super) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::Internal(what, error.into()))
}
