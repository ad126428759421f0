//! Configuration as text, JSON or YAML, read into values, and written: every body of the API and every file of the command line.
//!
//! A value that comes out of here is safe to walk: no mapping had a key twice, nothing is nested deeper than
//! [`MAX_DEPTH`], and what it takes in memory is bounded by [`MAX_SIZE`], aliases expanded. The general
//! deserializers promise none of the three: the last of two equal keys wins, and a small text of aliases
//! fills any memory. YAML is read event by event, so a hostile text is left where it crosses a bound.

mod json;
mod yaml;

use serde::Serialize;
use serde_json::Value;

/// How deeply sequences and mappings may be nested.
pub const MAX_DEPTH: usize = 100;

/// What the values of one text may take: 32 bytes for each node, and its text.
pub const MAX_SIZE: usize = 64 << 20;

const NODE_SIZE: usize = 32;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON (RFC 8259), one value.
    Json,
    /// YAML 1.2 with the core schema, any number of documents.
    Yaml,
}

/// One document of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextDocument {
    /// The line it starts at, from 1.
    pub line: usize,
    /// What it holds.
    pub value: Value,
}

/// Why a text could not be read, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct TextError {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub reason: String,
}

/// Reads every document of `bytes`. Empty documents are left out.
pub fn documents(format: Format, bytes: &[u8]) -> Result<Vec<TextDocument>, TextError> {
    let text = std::str::from_utf8(bytes).map_err(|error| not_utf8(bytes, error.valid_up_to()))?;
    match format {
        Format::Json => Ok(vec![TextDocument { line: 1, value: json::value(text)? }]),
        Format::Yaml => yaml::documents(text),
    }
}

/// `value` as a YAML document without its `---`, in the order of its fields. Reading it gives `value`: what YAML 1.2 reads otherwise
/// than our writer writes it (U+2028, say, which is no line break any more) is written as JSON, which is YAML too.
pub fn yaml(value: &impl Serialize) -> String {
    let text = serde_norway::to_string(value).unwrap_or_default();
    let expected = serde_json::to_value(value).unwrap_or_default();
    match documents(Format::Yaml, text.as_bytes()).as_deref() {
        Ok([document]) if document.value == expected => text,
        _ => serde_json::to_string_pretty(value).unwrap_or_default() + "\n",
    }
}

fn not_utf8(bytes: &[u8], valid_up_to: usize) -> TextError {
    let valid = String::from_utf8_lossy(&bytes[..valid_up_to]);
    let line = valid.matches('\n').count() + 1;
    let column = valid.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    TextError { line, column, reason: "the text is not UTF-8".to_owned() }
}

/// What is left of [`MAX_SIZE`].
#[derive(Debug)]
struct Budget(usize);

/// The values of a text would take more than [`MAX_SIZE`].
#[derive(Debug, thiserror::Error)]
#[error("the values of this text take more than {} MiB", MAX_SIZE >> 20)]
struct TooLarge;

impl Budget {
    fn new() -> Self {
        Self(MAX_SIZE)
    }

    fn take(&mut self, size: usize) -> Result<(), TooLarge> {
        self.0 = self.0.checked_sub(size).ok_or(TooLarge)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
