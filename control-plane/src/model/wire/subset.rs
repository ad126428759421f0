//! Parts of a service by labels, as they are written.

use serde::Deserialize;
use utoipa::ToSchema;

/// Names of labels by which rules choose among the endpoints of a service.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubsetsSpec {
    /// The names: a rule gives a value for each of them.
    #[schema(min_items = 1, max_items = 8, examples(json!(["version"])))]
    pub by: Vec<String>,
    /// What becomes of a request for values that no endpoint has; it is answered with 503 if it is not given.
    pub fallback: Option<SubsetFallbackSpec>,
}

/// What becomes of a request for a subset without endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SubsetFallbackSpec {
    /// It is answered with 503.
    None,
    /// Any endpoint gets it.
    Any,
    /// The endpoints with the labels of `defaultSubset` get it.
    Default,
}
