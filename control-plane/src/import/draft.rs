//! Documents in the making: names that are free, and what the model says of them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::model::{Kind, Name, Problem, Problems, Resource, parse, parse_document};

/// The longest name of a resource.
const MAX_NAME: usize = 63;

/// The names that are given out, by kind.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeSet<(Kind, String)>);

impl Names {
    /// A name as like `wanted` as can be that no other document of the kind has.
    pub(super) fn free(&mut self, kind: Kind, wanted: &str) -> String {
        let label = label(wanted);
        let mut name = label.clone();
        let mut number = 2;
        while !self.0.insert((kind, name.clone())) {
            let suffix = format!("-{number}");
            name = label.chars().take(MAX_NAME - suffix.len()).collect::<String>() + &suffix;
            number += 1;
        }
        name
    }
}

/// `text` as a name: lower case, with hyphens for what names do not have.
pub(super) fn label(text: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let label: String = text.chars().map(allowed).skip_while(|c| *c == '-').take(MAX_NAME).collect();
    match label.trim_end_matches('-') {
        "" => "unnamed".to_owned(),
        label => label.to_owned(),
    }
}

/// A document, in whose spec null says nothing.
pub(super) fn document(kind: Kind, name: &str, team: Option<&Name>, spec: Value) -> Value {
    exact_document(kind, name, team, dense(spec))
}

/// A document with this very spec, in which null may be a value.
pub(super) fn exact_document(kind: Kind, name: &str, team: Option<&Name>, spec: Value) -> Value {
    let mut document = dense(json!({ "kind": kind.as_str(), "name": name, "team": team.map(Name::as_str) }));
    document["spec"] = spec;
    document
}

/// What the model has against a document; nothing if it is fine.
pub(super) fn refusals(document: &Value) -> Vec<Problem> {
    let mut problems = Problems::default();
    if let Some(document) = parse_document(document, "", &mut problems) {
        parse(&document, &mut problems);
    }
    problems.into_vec()
}

/// `spec` without the fields in which the model has something against it.
pub(super) fn without_refused(kind: Kind, spec: Value) -> Value {
    let refused = refusals(&document(kind, "a", None, spec.clone()));
    let fields = refused.iter().filter_map(|problem| problem.path.strip_prefix("spec.")?.split(['.', '[']).next());
    let mut spec = spec;
    for field in fields {
        spec.as_object_mut().map(|spec| spec.remove(field));
    }
    spec
}

/// The resource that a document describes, if the model has nothing against it.
pub(super) fn resource(document: &Value) -> Option<Resource> {
    let mut problems = Problems::default();
    let document = parse_document(document, "", &mut problems)?;
    parse(&document, &mut problems)
}

/// What the model has against a rule of a route, with paths from the rule on.
pub(super) fn refusals_of_rule(rule: &Value) -> Vec<Problem> {
    let spec = json!({ "listeners": ["a/b"], "hosts": ["*"], "rules": [rule] });
    let mut refusals = refusals(&document(Kind::Route, "a", None, spec));
    for refusal in &mut refusals {
        let path = refusal.path.strip_prefix("spec.rules[0]").unwrap_or(&refusal.path);
        refusal.path = path.trim_start_matches('.').to_owned();
    }
    refusals
}

/// What the model has against a host that a route claims.
pub(super) fn refusal_of_host(host: &str) -> Option<String> {
    let spec = json!({ "listeners": ["a/b"], "hosts": [host], "rules": [{ "respond": { "status": 200 } }] });
    refusals(&document(Kind::Route, "a", None, spec)).into_iter().next().map(|problem| problem.reason)
}

/// `value` without the fields that are null.
pub(super) fn dense(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let given = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(given.map(|(name, value)| (name, dense(value))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(dense).collect()),
        other => other,
    }
}

/// `value` if it says anything.
pub(super) fn given(value: Value) -> Option<Value> {
    let value = dense(value);
    let empty = value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
    (!empty && !value.is_null()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_and_free() {
        let mut names = Names::default();
        let long = "x".repeat(80);
        for (wanted, given) in [
            ("Shop.Web_1", "shop-web-1"),
            ("shop-web-1", "shop-web-1-2"),
            ("--", "unnamed"),
            ("é-a-", "a"),
            (&long, &long[..63]),
            (&long, &(long[..61].to_owned() + "-2")),
        ] {
            let name = names.free(Kind::Route, wanted);
            assert_eq!(name, given, "{wanted}");
            assert!(name.parse::<Name>().is_ok(), "{name}");
        }
        assert_eq!(names.free(Kind::Service, "shop-web-1"), "shop-web-1");
    }

    #[test]
    fn the_model_has_the_last_word() {
        assert_eq!(refusals_of_rule(&json!({ "to": [{ "service": "a" }] })), []);
        let refused = refusals_of_rule(&json!({ "match": { "path": { "exact": "x" } }, "to": [{ "service": "a" }] }));
        assert_eq!(refused[0].path, "match.path.exact");
        assert!(refusal_of_host("*.example.com").is_none());
        assert!(refusal_of_host("a.*.com").is_some());
    }
}
