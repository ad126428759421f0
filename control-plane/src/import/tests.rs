use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;
use crate::{
    api::text::{self, Format},
    model::{Catalog, Entry, Key, Problems, parse, parse_document},
    translate::{constraints, snapshot},
};

/// The documents of a YAML text.
pub(super) fn documents(yaml: &str) -> Vec<Value> {
    let documents = text::documents(Format::Yaml, yaml.as_bytes()).expect("YAML");
    documents.into_iter().map(|document| document.value).collect()
}

/// What an import has come to, to be read.
pub(super) fn told(import: &Import) -> String {
    let mut text = String::new();
    for resource in &import.resources {
        let _ = writeln!(text, "---\n{}", serde_norway::to_string(resource).expect("YAML").trim_end());
    }
    text + "=== without counterpart\n" + &unmatched(import)
}

/// What has no counterpart, a line each.
pub(super) fn unmatched(import: &Import) -> String {
    let line = |found: &Unmatched| {
        let Unmatched { document, object, path, reason, instead } = found;
        format!("[{document}] {object}: {path}: {reason}; {instead}\n")
    };
    import.unmatched.iter().map(line).collect()
}

/// The catalog of `documents`, which is consistent, and of which Envoy takes all that is made.
pub(super) fn catalog(documents: &[Value]) -> Catalog {
    let mut problems = Problems::default();
    let read = |value: &Value| {
        let document = parse_document(value, "", &mut problems)?;
        let resource = parse(&document, &mut problems)?;
        let document = Arc::new(document);
        let (updated_at, updated_by) = (OffsetDateTime::UNIX_EPOCH, "test".to_owned());
        Some(Entry { document, resource, revision: 1, updated_at, updated_by })
    };
    let entries: Vec<Option<Entry>> = documents.iter().map(read).collect();
    assert_eq!(problems.into_vec(), []);
    let changes: BTreeMap<Key, Option<Entry>> =
        entries.into_iter().flatten().map(|entry| (entry.document.key(), Some(entry))).collect();
    assert_eq!(changes.len(), documents.len(), "each name is given once");
    let catalog = Catalog::empty().apply(changes.into_iter().collect()).expect("a consistent catalog");
    assert_eq!(constraints::refused(&catalog, &snapshot::full(&catalog)), []);
    catalog
}

/// Puts all kinds of junk into all kinds of places of `whole`: every import of that ends, and gives out what the model takes.
pub(super) fn survives(whole: &[Value], import: impl Fn(&[Value]) -> Import) {
    let mut junk = [json!(7), json!("x"), json!([[]]), json!({ "": {} }), json!({ "kind": 1 })].into_iter().cycle();
    for (index, document) in whole.iter().enumerate() {
        // Each third, which is no divisor of the kinds of junk: enough, in little time.
        for pointer in pointers(document, String::new()).into_iter().step_by(3) {
            let mut changed = whole.to_vec();
            *changed[index].pointer_mut(&pointer).expect("a place") = junk.next().unwrap_or_default();
            let refused = import(&changed).resources.iter().flat_map(draft::refusals).next();
            assert_eq!(refused, None, "{pointer}");
        }
    }
}

/// All places in `value`, which is at `at`.
pub(super) fn pointers(value: &Value, at: String) -> Vec<String> {
    let below: Vec<String> = match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| pointers(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))))
            .collect(),
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(index, value)| pointers(value, format!("{at}/{index}"))).collect()
        }
        _ => Vec::new(),
    };
    [vec![at], below].concat()
}
