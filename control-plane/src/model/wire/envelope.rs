//! What all resources have in common, as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::NameText;
use crate::model::Kind;

/// The fields that the server sets.
pub const READ_ONLY: [&str; 3] = ["revision", "updatedAt", "updatedBy"];

/// A resource as it is written.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Resource)]
pub struct Envelope {
    /// What it is.
    pub kind: Kind,
    /// What it is called, unique per kind.
    pub name: NameText,
    /// The team that owns it.
    pub team: Option<NameText>,
    /// At most 64 free labels to select by: keys of 1 to 63 and values of at most 255 characters.
    pub labels: Option<BTreeMap<String, String>>,
    /// What is wanted, by kind.
    #[schema(value_type = Object)]
    pub spec: Value,
    /// The revision that last changed it. Set by the server; ignored when it is written.
    #[schema(read_only)]
    pub revision: Option<Value>,
    /// When it was last changed. Set by the server; ignored when it is written.
    #[schema(read_only)]
    pub updated_at: Option<Value>,
    /// Who last changed it. Set by the server; ignored when it is written.
    #[schema(read_only)]
    pub updated_by: Option<Value>,
}
