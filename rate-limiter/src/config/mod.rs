//! Rules from outside become [`DomainSpec`](crate::model::rule::DomainSpec)s, or a list of everything that is wrong with them.
//!
//! One form, one file: [`yaml`] reads envoyproxy/ratelimit's format, [`files`] finds and watches it on disk,
//! [`limitconfig`] reads the same rules as they come over xDS, [`ads`] is where they come from, with Chancery's own, and
//! [`rulebook`] puts the sources together. What makes a set of rules wrong whatever its form is
//! said once, by [`Rules::build`](crate::model::rule::Rules::build); here it is put back on the line it came from.

use std::fmt;

use crate::model::rule;

pub mod ads;
pub mod files;
pub mod limitconfig;
pub mod rulebook;
pub mod yaml;

/// Problems that one reading lists; the rest are counted. A broken generator makes the same mistake ten thousand times.
pub const MOST_PROBLEMS: usize = 100;

/// Something wrong with a configuration, and where.
///
/// Shown as `FILE:LINE:COLUMN: PATH: REASON`, which editors and CI systems turn into a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file or resource.
    pub file: String,
    /// Its line, from 1; 0 where the whole of it is meant.
    pub line: usize,
    /// The column, from 1, in characters; 0 where the whole file is meant.
    pub column: usize,
    /// Where in the rules: `descriptors[0].rate_limit.unit`; empty for the whole.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for Problem {}

impl From<rule::Problem> for Problem {
    fn from(problem: rule::Problem) -> Self {
        let rule::Problem { origin, path, reason } = problem;
        Self { file: origin, line: 0, column: 0, path, reason }
    }
}

/// Problems as they are found, never more than [`MOST_PROBLEMS`].
#[derive(Debug, Default)]
struct Problems {
    listed: Vec<Problem>,
    found: usize,
}

impl Problems {
    fn push(&mut self, problem: Problem) {
        self.found += 1;
        if self.listed.len() < MOST_PROBLEMS {
            self.listed.push(problem);
        }
    }

    /// In the order of files and lines.
    fn into_result<T>(mut self, value: T) -> Result<T, Vec<Problem>> {
        if self.listed.is_empty() {
            return Ok(value);
        }
        self.listed.sort();
        let more = self.found - self.listed.len();
        if let (1.., Some(last)) = (more, self.listed.last()) {
            let reason = format!("and {more} more problems, here or in what follows");
            self.listed.push(Problem { line: 0, column: 0, path: String::new(), reason, ..last.clone() });
        }
        Err(self.listed)
    }
}
