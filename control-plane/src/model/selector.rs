//! Which resources are meant, by what stands on them.

use super::{Document, Name};

/// A choice of resources; those that have all of it. Without anything it chooses all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    /// Whose they are.
    pub team: Option<Name>,
    /// Labels, each with its value.
    pub labels: Vec<(String, String)>,
}

impl Selector {
    /// Whether it chooses all.
    pub fn is_empty(&self) -> bool {
        self.team.is_none() && self.labels.is_empty()
    }

    /// Whether it chooses this one.
    pub fn selects(&self, document: &Document) -> bool {
        (self.team.is_none() || document.team == self.team)
            && self.labels.iter().all(|(key, value)| document.labels.get(key) == Some(value))
    }
}
