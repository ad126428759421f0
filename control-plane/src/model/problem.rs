//! What is wrong with a change, and where: every refusal of input is a list of [`Problem`]s.
//!
//! Parsing and checking never stop at the first fault. They carry a [`Problems`], which knows the resource and
//! the JSON path that are being looked at, so code that finds a fault only says what it is:
//!
//! ```
//! # use chancery_control_plane::model::Problems;
//! let mut problems = Problems::default();
//! problems.about("Route/checkout").at("spec").at("rules").index(3).report("needs one of to, redirect, respond");
//! assert_eq!(
//!     problems.into_vec()[0].to_string(),
//!     "Route/checkout: spec.rules[3]: needs one of to, redirect, respond"
//! );
//! ```
//!
//! Invariant: the number of problems kept is bounded, however large and wrong the input is.

use std::{
    fmt,
    fmt::Write as _,
    ops::{Deref, DerefMut},
};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// One thing that is wrong with a change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Which resource, `Route/checkout`; `resources[3]` when its kind or name cannot be read; empty when none is meant.
    #[schema(examples("Route/checkout"))]
    pub resource: String,
    /// Where in it, as a JSON path; empty for the whole resource.
    #[schema(examples("spec.rules[0].match.path.regex"))]
    pub path: String,
    /// What is wrong, to be read after the path.
    #[schema(examples("is not a regular expression: unclosed group (at character 4)"))]
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.resource, &self.path] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.reason)
    }
}

/// The problems found so far, and the place that is being looked at.
#[derive(Debug, Default)]
pub struct Problems {
    found: Vec<Problem>,
    left_out: usize,
    resource: String,
    path: String,
}

impl Problems {
    /// How many problems are kept; further ones are only counted.
    pub const LIMIT: usize = 500;

    /// Looks at another resource, from its root, until the returned place is dropped.
    pub fn about(&mut self, resource: impl Into<String>) -> Place<'_> {
        let resource = std::mem::replace(&mut self.resource, resource.into());
        let path = std::mem::take(&mut self.path);
        Place { back: Back::Resource { resource, path }, problems: self }
    }

    /// Looks at a field of the current place.
    pub fn at(&mut self, field: &str) -> Place<'_> {
        let back = Back::Path { length: self.path.len() };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if field.bytes().all(plain) && !field.is_empty() && field.len() <= 64 {
            if !self.path.is_empty() {
                self.path.push('.');
            }
            self.path.push_str(field);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(self.path, "[{}]", Quoted(field));
        }
        Place { back, problems: self }
    }

    /// Looks at a place below the current one by its path.
    pub fn at_path(&mut self, path: &str) -> Place<'_> {
        let back = Back::Path { length: self.path.len() };
        if !self.path.is_empty() && !path.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(path);
        Place { back, problems: self }
    }

    /// Looks at an entry of the list at the current place.
    pub fn index(&mut self, index: usize) -> Place<'_> {
        let back = Back::Path { length: self.path.len() };
        let _ = write!(self.path, "[{index}]");
        Place { back, problems: self }
    }

    /// Says what is wrong with the current place.
    pub fn report(&mut self, reason: impl Into<String>) {
        if self.found.len() < Self::LIMIT {
            self.found.push(Problem {
                resource: self.resource.clone(),
                path: self.path.clone(),
                reason: reason.into(),
            });
        } else {
            self.left_out += 1;
        }
    }

    /// What `value` says, or why it does not say it, reported at its place.
    pub fn read<T: DeserializeOwned>(&mut self, value: &serde_json::Value) -> Option<T> {
        let read = serde_path_to_error::deserialize(value).map_err(|error| match error.path().to_string().as_str() {
            "." => self.report(error.inner().to_string()),
            path => self.at_path(path).report(error.inner().to_string()),
        });
        read.ok()
    }

    /// The value, or its error reported at the current place.
    pub fn ok<T>(&mut self, result: Result<T, impl fmt::Display>) -> Option<T> {
        result.map_err(|error| self.report(error.to_string())).ok()
    }

    /// Parses every entry of a list at its own place; the whole list, if all are good.
    pub fn each<T, U>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut parse: impl FnMut(T, &mut Problems) -> Option<U>,
    ) -> Option<Vec<U>> {
        let parsed: Vec<Option<U>> =
            items.into_iter().enumerate().map(|(index, item)| parse(item, &mut self.index(index))).collect();
        parsed.into_iter().collect()
    }

    /// Says of every item of the list at the current place which earlier one it is the same as.
    pub fn each_once<T: PartialEq>(&mut self, items: &[T]) {
        for (index, item) in items.iter().enumerate() {
            if let Some(earlier) = items[..index].iter().position(|earlier| earlier == item) {
                self.index(index).report(format!("is the same as [{earlier}]"));
            }
        }
    }

    /// What was read of the only field that was given, of `fields` (`a, b and c`), if it is the only one.
    pub fn only_one<T>(&mut self, mut given: Vec<Option<T>>, fields: &str) -> Option<T> {
        if given.len() != 1 {
            self.report(format!("needs exactly one of {fields}"));
            return None;
        }
        given.pop().flatten()
    }

    /// How many were found, left out ones included.
    pub fn count(&self) -> usize {
        self.found.len() + self.left_out
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// As [`Problems::into_vec`], sorted, each once.
    pub fn into_sorted_vec(mut self) -> Vec<Problem> {
        self.found.sort_unstable();
        self.found.dedup();
        self.into_vec()
    }

    /// All problems in the order in which they were found; the last says how many were left out, if any.
    pub fn into_vec(self) -> Vec<Problem> {
        let mut all = self.found;
        if self.left_out > 0 {
            let reason = format!("{} more problems are left out", self.left_out);
            all.push(Problem { resource: String::new(), path: String::new(), reason });
        }
        all
    }
}

/// A [`Problems`] that looks at one place; dropping it goes back to the place before.
#[derive(Debug)]
pub struct Place<'a> {
    problems: &'a mut Problems,
    back: Back,
}

#[derive(Debug)]
enum Back {
    Path { length: usize },
    Resource { resource: String, path: String },
}

impl Deref for Place<'_> {
    type Target = Problems;

    fn deref(&self) -> &Problems {
        self.problems
    }
}

impl DerefMut for Place<'_> {
    fn deref_mut(&mut self) -> &mut Problems {
        self.problems
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        match &mut self.back {
            Back::Path { length } => self.problems.path.truncate(*length),
            Back::Resource { resource, path } => {
                self.problems.resource = std::mem::take(resource);
                self.problems.path = std::mem::take(path);
            }
        }
    }
}

/// A text of the user within a reason: quoted, escaped, and cut when it is long.
pub struct Quoted<'a>(pub &'a str);

impl Quoted<'_> {
    const CHARACTERS: usize = 64;
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(Self::CHARACTERS) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(problems: Problems) -> Vec<String> {
        problems.into_vec().into_iter().map(|problem| format!("{}#{}", problem.resource, problem.path)).collect()
    }

    #[test]
    fn a_place_ends_where_it_is_dropped() {
        let mut problems = Problems::default();
        {
            let mut route = problems.about("Route/a");
            {
                let mut rules = route.at("rules");
                rules.index(0).at("match").report("x");
                rules.index(12).report("x");
            }
            route.at("hosts").report("x");
            route.about("Route/b").at("spec").report("x");
            route.at("labels").at("a.b").at("").report("x");
        }
        problems.report("x");
        assert_eq!(
            paths(problems),
            [
                "Route/a#rules[0].match",
                "Route/a#rules[12]",
                "Route/a#hosts",
                "Route/b#spec",
                "Route/a#labels[\"a.b\"][\"\"]",
                "#"
            ]
        );
    }

    #[test]
    fn further_problems_are_counted_not_kept() {
        let mut problems = Problems::default();
        for _ in 0..Problems::LIMIT + 7 {
            problems.report("x");
        }
        assert_eq!(problems.count(), Problems::LIMIT + 7);
        let all = problems.into_vec();
        assert_eq!(all.len(), Problems::LIMIT + 1);
        assert_eq!(all[Problems::LIMIT].to_string(), "7 more problems are left out");
    }

    #[test]
    fn long_texts_are_cut() {
        let quoted = Quoted(&"é".repeat(1000)).to_string();
        assert_eq!(quoted.chars().count(), 64 + 3);
        assert_eq!(Quoted("a\n\"b").to_string(), r#""a\n\"b""#);
    }
}
