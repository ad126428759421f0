//! What becomes of a request before it is sent: `POST /api/v1/explain`.

use axum::{Json, extract::State};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Api, body::Body, error::ApiError};
use crate::{
    explain::{Explainer, Explanation, InvalidRequest, Request},
    model::{Key, Kind, Name, Problems},
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
#[derive(Clone, Debug, Deserialize, serde::Serialize, ToSchema)]
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
pub(super) async fn explain(State(api): State<Api>, body: Body) -> Result<Json<Explanation>, ApiError> {
    let Question { fleet, method, url, headers } = read(body.value().await?)?;
    let request = Request::new(&method, &url, headers.into_iter().map(Into::into)).map_err(|error| invalid(&error))?;
    let current = api.replica.current();
    let key = Key::new(Kind::Fleet, fleet.clone());
    let explained = blocking("explaining a request", move || {
        Explainer::new(&current.catalog, current.revision).explain(&fleet, &request)
    });
    explained.await?.map(Json).ok_or_else(|| ApiError::NotFound(key.to_string()))
}

fn invalid(error: &InvalidRequest) -> ApiError {
    let mut problems = Problems::default();
    problems.at(error.field()).report(error.to_string());
    ApiError::Problems(problems.into_vec())
}

/// `value` as a `T`, or what is wrong with it.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let mut problems = Problems::default();
        problems.at_path(if path == "." { "" } else { &path }).report(error.into_inner().to_string());
        ApiError::Problems(problems.into_vec())
    })
}

/// What `work` comes to, which takes its time, so a thread that may block does it.
pub(super) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::Internal(what, error.into()))
}
