//! The envelope of every resource, as users write it and the store keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Key, Kind, Name};

/// A resource as it is written: `kind`, `name`, `team`, `labels`, `spec`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    /// The kind.
    pub kind: Kind,
    /// The name, unique per kind.
    pub name: Name,
    /// Who owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<Name>,
    /// Free labels to select by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What is wanted, by kind.
    pub spec: serde_json::Value,
}

impl Document {
    /// What identifies it.
    pub fn key(&self) -> Key {
        Key::new(self.kind, self.name.clone())
    }
}
