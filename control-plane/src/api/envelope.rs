//! A value from a request into a [`Document`]: `kind`, `name`, `team`, `labels`, `spec`.
//!
//! Every problem of the envelope is reported at once; what the `spec` means is the model's business.
//! `revision`, `updatedAt` and `updatedBy` are passed over: the server sets them, and what was read may be
//! written back as it is.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::model::{Document, Key, Kind, Name, Problems, Quoted};

const SERVER_FIELDS: [&str; 3] = ["revision", "updatedAt", "updatedBy"];

/// What is known of a resource before its body is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The kind, from the collection in the path.
    pub(super) kind: Option<Kind>,
    /// The name in the path.
    pub(super) name: Option<Name>,
    /// What to call the resource in a problem when its kind or name cannot be read: `resources[3]`.
    pub(super) place: String,
}

/// Reads `value` as a document that agrees with what is `known`.
pub(super) fn document(value: Value, known: &Known, problems: &mut Problems) -> Option<Document> {
    let mut place = problems.about(label(&value, known));
    let problems = &mut *place;
    let Value::Object(mut fields) = value else {
        problems.report(format!("must be an object with kind, name and spec, not {}", describe(&value)));
        return None;
    };
    let before = problems.count();
    nul_nowhere(&fields, problems);
    let kind = agreed(&mut fields, "kind", known.kind, problems);
    let name = agreed(&mut fields, "name", known.name.clone(), problems);
    let team = match fields.remove("team").unwrap_or_default() {
        Value::Null => None,
        team => parsed(&team, &mut problems.at("team")),
    };
    let labels = labels(fields.remove("labels").unwrap_or_default(), &mut problems.at("labels"));
    let spec = match fields.remove("spec") {
        Some(spec @ Value::Object(_)) => Some(spec),
        Some(other) => {
            problems.at("spec").report(format!("must be an object, not {}", describe(&other)));
            None
        }
        None => {
            problems.at("spec").report("is missing");
            None
        }
    };
    for field in fields.keys().filter(|field| !SERVER_FIELDS.contains(&field.as_str())) {
        problems.at(field).report("is not a field of a resource; there are kind, name, team, labels, spec");
    }
    if problems.count() > before {
        return None;
    }
    Some(Document { kind: kind?, name: name?, team, labels, spec: spec? })
}

/// `Route/checkout`, if that much can be read.
fn label(value: &Value, known: &Known) -> String {
    fn field<T: std::str::FromStr>(value: &Value, field: &str) -> Option<T> {
        value.get(field)?.as_str()?.parse().ok()
    }
    let kind = known.kind.or_else(|| field(value, "kind"));
    let name = known.name.clone().or_else(|| field(value, "name"));
    match (kind, name) {
        (Some(kind), Some(name)) => Key::new(kind, name).to_string(),
        _ => known.place.clone(),
    }
}

/// A field that the path may have said already: then it may be left out, and must agree.
fn agreed<T>(fields: &mut Map<String, Value>, field: &str, known: Option<T>, problems: &mut Problems) -> Option<T>
where
    T: std::str::FromStr<Err: std::fmt::Display> + std::fmt::Display + PartialEq,
{
    let problems = &mut *problems.at(field);
    match (fields.remove(field), known) {
        (None, Some(known)) => Some(known),
        (None, None) => {
            problems.report("is missing");
            None
        }
        (Some(given), None) => parsed(&given, problems),
        (Some(given), Some(known)) => {
            let given: T = parsed(&given, problems)?;
            if given != known {
                problems.report(format!("is {given}, but the path says {known}"));
            }
            Some(known)
        }
    }
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(value: &Value, problems: &mut Problems) -> Option<T> {
    match value {
        Value::String(text) => problems.ok(text.parse()),
        other => {
            problems.report(format!("must be a text, not {}", describe(other)));
            None
        }
    }
}

fn labels(value: Value, problems: &mut Problems) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(text) => drop(labels.insert(key, text)),
                    other => problems.at(&key).report(format!("must be a text, not {}", describe(&other))),
                }
            }
        }
        other => problems.report(format!("must be an object of texts, not {}", describe(&other))),
    }
    labels
}

/// Postgres cannot hold it, and nothing that we configure means it.
fn nul_nowhere(fields: &Map<String, Value>, problems: &mut Problems) {
    fn visit(value: &Value, problems: &mut Problems) {
        match value {
            Value::String(text) if text.contains('\0') => problems.report("must not contain U+0000"),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    visit(item, &mut problems.index(index));
                }
            }
            Value::Object(fields) => nul_nowhere(fields, problems),
            _ => {}
        }
    }
    for (key, value) in fields {
        let problems = &mut *problems.at(key);
        if key.contains('\0') {
            problems.report("must not contain U+0000");
        }
        visit(value, problems);
    }
}

/// A value in a few words.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => Quoted(text).to_string(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value, known: &Known) -> Result<Document, Vec<String>> {
        let mut problems = Problems::default();
        let document = document(value, known, &mut problems);
        document.ok_or_else(|| problems.into_vec().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_was_read_can_be_written_back() {
        let value = json!({
            "kind": "Route", "name": "a", "team": null, "labels": { "x": "y" }, "spec": {},
            "revision": 7, "updatedAt": "2026-01-01T00:00:00Z", "updatedBy": "admin",
        });
        let document = read(value, &Known::default()).unwrap();
        assert_eq!(document.key().to_string(), "Route/a");
        assert_eq!(document.labels["x"], "y");
    }

    #[test]
    fn the_path_says_kind_and_name() {
        let known = Known { kind: Some(Kind::Route), name: Some("a".parse().unwrap()), place: String::new() };
        assert_eq!(read(json!({ "spec": {} }), &known).unwrap().key().to_string(), "Route/a");
        assert_eq!(
            read(json!({ "kind": "Service", "name": "b", "spec": {} }), &known).unwrap_err(),
            ["Route/a: kind: is Service, but the path says Route", "Route/a: name: is b, but the path says a"]
        );
    }

    #[test]
    fn all_problems_at_once() {
        let known = Known { place: "resources[3]".to_owned(), ..Known::default() };
        let value = json!({ "kind": "Rout", "name": "../x", "team": 5, "labels": { "a": 1 }, "spec": [], "sepc": { "a": "\0" } });
        insta::assert_debug_snapshot!(read(value, &known).unwrap_err());
        assert_eq!(read(json!(5), &known).unwrap_err(), ["resources[3]: must be an object with kind, name and spec, not 5"]);
    }
}
