//! The envelope of a document.

use std::collections::BTreeMap;

use serde_json::Value;

use super::text;
use crate::model::{
    Document, Key, Kind, Name,
    problem::Problems,
    wire::{Envelope, Wire},
};

/// How many labels a resource may have.
const MAX_LABELS: usize = 64;

/// The longest key of a label, in characters.
const MAX_LABEL_KEY: usize = 63;

/// The longest value of a label, in characters.
const MAX_LABEL_VALUE: usize = 255;

/// The document that `value` is; `None` if `problems` now says why not.
///
/// `place` names the resource in problems as long as its own kind and name cannot be read: `resources[3]`. What the
/// server adds to a document it gives out (`revision`, `updatedAt`, `updatedBy`) is accepted and dropped.
pub fn parse_document(value: &Value, place: &str, problems: &mut Problems) -> Option<Document> {
    let key = key(value);
    let mut problems = problems.about(key.as_ref().map_or_else(|| place.to_owned(), Key::to_string));
    let Envelope { kind, name, team, labels, spec, revision: _, updated_at: _, updated_by: _ } =
        Envelope::read(value, &mut problems)?;
    let before = problems.count();
    let name = problems.at("name").ok(text::name(&name));
    let team = team.map(|team| problems.at("team").ok(text::name(&team)));
    let labels = labels.unwrap_or_default();
    check_labels(&labels, &mut problems.at("labels"));
    if problems.count() > before {
        return None;
    }
    Some(Document { kind, name: name?, team: team.flatten(), labels, spec })
}

/// Names and values of labels.
pub(super) fn check_labels(labels: &BTreeMap<String, String>, problems: &mut Problems) {
    if labels.len() > MAX_LABELS {
        problems.report(format!("must have at most {MAX_LABELS} entries, not {}", labels.len()));
        return;
    }
    for (key, value) in labels {
        let mut problems = problems.at(key);
        if key.is_empty() || key.chars().count() > MAX_LABEL_KEY || key.contains(char::is_control) {
            problems.report(format!("needs a key of 1 to {MAX_LABEL_KEY} printable characters"));
        }
        if value.chars().count() > MAX_LABEL_VALUE || value.contains(char::is_control) {
            problems.report(format!("must have at most {MAX_LABEL_VALUE} printable characters"));
        }
    }
}

/// What identifies the resource, if so much can be read.
fn key(value: &Value) -> Option<Key> {
    let kind: Kind = value.get("kind")?.as_str()?.parse().ok()?;
    let name: Name = value.get("name")?.as_str()?.parse().ok()?;
    Some(Key::new(kind, name))
}
