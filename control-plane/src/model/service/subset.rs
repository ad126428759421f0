//! Parts of a service by the labels of its endpoints. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// Names and values that tell endpoints apart.
pub type Labels = BTreeMap<String, String>;

/// By which labels rules may choose among the endpoints of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subsets {
    /// The sets of names that rules choose by, each once, with what becomes of requests for nobody.
    pub selectors: BTreeMap<BTreeSet<String>, SubsetFallback>,
    /// Who gets them with [`SubsetFallback::Default`]; given exactly then.
    pub default: Labels,
}

/// What becomes of a request for a subset without endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubsetFallback {
    /// It is answered with 503.
    #[default]
    None,
    /// Any endpoint gets it.
    Any,
    /// The default subset gets it.
    Default,
}

impl Subsets {
    /// Whether rules may choose by the names of these labels.
    pub fn has(&self, labels: &Labels) -> bool {
        self.selectors.keys().any(|names| names.iter().eq(labels.keys()))
    }
}
