//! Whether what was made of a message says all that the message says.
//!
//! This is what keeps an import honest: no list of fields that are understood could be trusted to be whole, while the translation
//! itself says what Envoy would be told. What it adds beside the source (bounds, timeouts) is how Chancery runs any listener or service.

use serde_json::Value;

/// Lists whose items are looked for by their type, in order, among more of them.
const AMONG_OTHERS: &str = "http_filters";

/// The paths of what `source` says and `made` does not; fields called as in `names` are not looked at.
pub(super) fn uncovered(source: &Value, made: &Value, names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    compare(source, Some(made), names, "", &mut found);
    found
}

fn compare(source: &Value, made: Option<&Value>, names: &[&str], path: &str, found: &mut Vec<String>) {
    match (source, made) {
        (Value::Object(source), Some(Value::Object(made))) => {
            for (name, value) in source.iter().filter(|(name, _)| !names.contains(&name.as_str())) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                compare(value, made.get(name), names, &path, found);
            }
        }
        (Value::Array(source), Some(Value::Array(made))) if path.ends_with(AMONG_OTHERS) => {
            let mut rest = made.as_slice();
            for (index, item) in source.iter().enumerate() {
                let of = |item: &Value| item.pointer("/typed_config/@type").cloned();
                let same = rest.iter().position(|made| of(made) == of(item));
                compare(item, same.map(|at| &rest[at]), names, &format!("{path}[{index}]"), found);
                rest = same.map_or(rest, |at| &rest[at + 1..]);
            }
        }
        (Value::Array(source), Some(Value::Array(made))) if source.len() == made.len() => {
            for (index, (source, made)) in source.iter().zip(made).enumerate() {
                compare(source, Some(made), names, &format!("{path}[{index}]"), found);
            }
        }
        (source, Some(made)) if source == made => {}
        _ => found.push(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_made_is_named() {
        let source = json!({ "name": "a", "a": { "b": 1, "c": [1, 2] }, "d": [1], "e": 1,
            "http_filters": [{ "typed_config": { "@type": "z" } }, { "typed_config": { "@type": "x" } }, { "typed_config": { "@type": "w" } }] });
        let made = json!({ "name": "b", "a": { "b": 2, "c": [1, 3], "more": 1 }, "d": [1, 2],
            "http_filters": [{ "typed_config": { "@type": "w" } }, { "typed_config": { "@type": "x" } }] });
        assert_eq!(
            uncovered(&source, &made, &["name"]),
            ["a.b", "a.c[1]", "d", "e", "http_filters[0]", "http_filters[2]"]
        );
        assert_eq!(uncovered(&made, &made, &[]), Vec::<String>::new());
    }
}
