//! What is wrong with a message, and where.

use std::{fmt, fmt::Write as _};

/// How many violations are kept of one message.
const MOST: usize = 100;

/// One thing that is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Where: `filter_chains[0].filters[0].typed_config.stat_prefix`. The message in an `Any` begins where the `Any` is.
    pub path: String,
    /// Why, to be read after the path.
    pub reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.path, self.reason) }
    }
}

/// One step on the way to a place in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// To a field, by name.
    Field(String),
    /// The same, of a type that is never dropped.
    Known(&'static str),
    /// To an entry of a list.
    Index(usize),
    /// To an entry of a map.
    Key(String),
}

/// The violations found so far, and the place that is being looked at.
#[derive(Debug, Default)]
pub(super) struct Findings {
    path: Vec<Step>,
    found: Vec<Violation>,
}

impl Findings {
    pub(super) fn enter(&mut self, step: Step) {
        self.path.push(step);
    }

    pub(super) fn leave(&mut self) {
        self.path.pop();
    }

    pub(super) fn depth(&self) -> usize {
        self.path.len()
    }

    /// Says what is wrong with the current place. The path is written only now: most places are fine.
    pub(super) fn report(&mut self, reason: impl Into<String>) {
        if self.found.len() < MOST {
            self.found.push(Violation { path: written(&self.path), reason: reason.into() });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(super) fn into_found(self) -> Vec<Violation> {
        self.found
    }
}

/// `a.b[0]["key"]`.
pub(super) fn written(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        let name = match step {
            Step::Field(name) => name.as_str(),
            Step::Known(name) => name,
            // Writing to a String cannot fail.
            Step::Index(index) => {
                let _ = write!(path, "[{index}]");
                continue;
            }
            Step::Key(key) => {
                let _ = write!(path, "[{key:?}]");
                continue;
            }
        };
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
    }
    path
}
