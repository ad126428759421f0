//! An error as it leaves: problem details (RFC 9457), `application/problem+json`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::view::ResourceView;
use crate::model::Problem;

/// The media type of every error.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong, by RFC 9457.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemDetails {
    /// Identifies the kind of problem; stable, to be branched upon.
    #[schema(examples("https://chancery.dev/problems/invalid"))]
    pub r#type: String,
    /// The kind of problem in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// Everything that is wrong with a change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// What a token lacks for what was asked with it: a role, a scope, a team.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(examples(json!(["scope routes:write"])))]
    pub missing: Vec<String>,
    /// The line of a body that cannot be read, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column of a body that cannot be read, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// In a conflict, the revision that the change is based on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<u64>,
    /// In a conflict, the revision that is there: of the resource, or of the catalog; absent when the resource is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<u64>,
    /// In a conflict, the resource that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Box<ResourceView>>,
}

impl ProblemDetails {
    /// A problem of the kind `slug`, titled after its status.
    pub(super) fn new(status: StatusCode, slug: &str, detail: impl Into<String>) -> Self {
        Self {
            r#type: format!("https://chancery.dev/problems/{slug}"),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            problems: Vec::new(),
            missing: Vec::new(),
            line: None,
            column: None,
            expected_revision: None,
            current_revision: None,
            current: None,
        }
    }
}

/// In an answer: why, as the audit log has it.
#[derive(Clone, Debug)]
pub(super) struct Reason(pub(super) String);

impl ProblemDetails {
    /// Why, without a word of what was sent.
    fn reason(&self) -> String {
        let slug = self.r#type.rsplit('/').next().unwrap_or_default();
        match (self.status, self.missing.as_slice(), self.problems.len()) {
            (401, ..) => self.detail.clone(),
            (_, [], 0) => slug.to_owned(),
            (_, [], problems) => format!("{slug}: {problems} problems"),
            (_, missing, _) => format!("{slug}: needs {}", missing.join(", ")),
        }
    }
}

impl IntoResponse for ProblemDetails {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let reason = Reason(self.reason());
        let mut response = (status, Json(self)).into_response();
        response.extensions_mut().insert(reason);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        response
    }
}
