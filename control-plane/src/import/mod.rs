//! What people already have, as resources: each source in a module of its own. Pure: values in, documents out.
//!
//! An import makes documents in the language of the users and nothing else, so that they are read, planned and applied as if somebody
//! had written them. Whatever a source says and a document cannot is listed, with its place: a field that nobody asks for is found
//! by whoever reads its object (`fields`), and what the model would refuse is not given out (`draft`).
//!
//! Invariant: each document that comes out is one that [`crate::model::parse`] takes.

mod draft;
pub mod envoy;
mod fields;
pub mod gateway_api;
pub mod openapi;

use serde::Serialize;
use serde_json::Value;

/// What an import has come to.
#[derive(Debug, Default)]
pub struct Import {
    /// Documents, in an order in which each refers only to those before it.
    pub resources: Vec<Value>,
    /// What has no counterpart in them, in the order in which it was met.
    pub unmatched: Vec<Unmatched>,
}

/// Something in a source that has no counterpart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unmatched {
    /// Which of the documents it stands in, from 0.
    pub document: usize,
    /// What it is part of, `HTTPRoute shop/web`; empty where that is not known.
    pub object: String,
    /// Where in the document, as a JSON path; empty for all of it.
    pub path: String,
    /// Why it has none, to be read after the path.
    pub reason: String,
    /// What can be done instead.
    pub instead: String,
}

#[cfg(test)]
mod tests;
