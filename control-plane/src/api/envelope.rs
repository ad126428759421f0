//! A value from a request into a [`Document`], in agreement with what the path has said already.

use serde_json::{Map, Value};

use crate::model::{Document, Kind, Name, Problems, Quoted, parse_document};

/// What is known of a resource before its body is read.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The kind, from the collection in the path; the body may leave it out.
    pub(super) kind: Option<Kind>,
    /// The name in the path; the body may leave it out.
    pub(super) name: Option<Name>,
    /// What to call the resource in a problem when its kind or name cannot be read: `resources[3]`.
    pub(super) place: String,
}

/// Reads `value` as a document that agrees with what is `known`.
pub(super) fn document(mut value: Value, known: &Known, problems: &mut Problems) -> Option<Document> {
    let before = problems.count();
    if let Value::Object(fields) = &mut value {
        let mut problems = problems.about(match (known.kind, &known.name) {
            (Some(kind), Some(name)) => format!("{kind}/{name}"),
            _ => known.place.clone(),
        });
        agree(fields, "kind", known.kind.map(Kind::as_str), &mut problems);
        agree(fields, "name", known.name.as_ref().map(Name::as_str), &mut problems);
        nul_nowhere(fields, &mut problems);
    }
    let document = parse_document(&value, &known.place, problems)?;
    (problems.count() == before).then_some(document)
}

/// Fills in a field that the path has said, which may be left out, and must agree if it is given.
fn agree(fields: &mut Map<String, Value>, field: &str, known: Option<&str>, problems: &mut Problems) {
    let Some(known) = known else { return };
    match fields.insert(field.to_owned(), known.into()) {
        None => {}
        Some(Value::String(given)) if given == known => {}
        Some(given) => problems.at(field).report(format!("is {}, but the path says {known}", describe(&given))),
    }
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
    fn the_path_says_kind_and_name() {
        let known = Known { kind: Some(Kind::Route), name: Some("a".parse().unwrap()), place: String::new() };
        assert_eq!(read(json!({ "spec": {} }), &known).unwrap().key().to_string(), "Route/a");
        assert_eq!(
            read(json!({ "kind": "Service", "name": 5, "spec": {} }), &known).unwrap_err(),
            ["Route/a: kind: is \"Service\", but the path says Route", "Route/a: name: is 5, but the path says a"]
        );
    }

    #[test]
    fn nul_has_no_place() {
        let value = json!({ "kind": "Route", "name": "a", "spec": { "b\0": [{ "c": "\0" }] } });
        let known = Known { place: "resources[3]".to_owned(), ..Known::default() };
        assert_eq!(
            read(value, &known).unwrap_err(),
            [
                "resources[3]: spec[\"b\\0\"]: must not contain U+0000",
                "resources[3]: spec[\"b\\0\"][0].c: must not contain U+0000"
            ]
        );
    }
}
