//! Paths and methods as conditions of rules.
//!
//! OpenAPI looks at paths without variables first. Of two with variables that are for the same request it leaves the choice open; here
//! the one goes first that has text where the other has a variable, read from the left.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::resolved;
use crate::import::{
    draft,
    fields::{Fields, Node},
};

/// The methods of OpenAPI.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// What our templates allow: so many variables, with names of such a length.
const MAX_VARIABLES: usize = 5;
const MAX_VARIABLE: usize = 16;

/// What a description says of an operation that is between clients and the service.
const CONTRACT: [&str; 9] = [
    "tags",
    "summary",
    "description",
    "externalDocs",
    "operationId",
    "parameters",
    "requestBody",
    "responses",
    "security",
];

/// The conditions of all rules, in order.
pub(super) fn rules(root: &Value, paths: Option<Fields<'_>>, base: &str) -> Vec<Value> {
    let Some(mut paths) = paths else { return Vec::new() };
    paths.place.lacks("describes parameters, bodies and answers, which no proxy checks", "let the service check them");
    let mut known: BTreeMap<Order, Value> = BTreeMap::new();
    for (path, node) in paths.rest() {
        let place = node.place.clone();
        if path.starts_with("x-") {
            place.lacks("has no counterpart", "see what reads it");
            continue;
        }
        let Some(methods) = resolved(root, node).map(methods) else { continue };
        if methods.is_empty() {
            continue;
        }
        let condition = condition(&format!("{base}{path}"));
        let matches = json!({ "path": condition, "methods": methods });
        let rule = json!({ "match": matches, "respond": { "status": 200 } });
        if let Some(refusal) = draft::refusals_of_rule(&rule).first() {
            let reason = format!("makes a rule that is refused: {}: {}", refusal.path, refusal.reason);
            place.lacks(reason, "write the rule by hand");
            continue;
        }
        if known.insert(order(path), matches).is_some() {
            place.lacks("differs from another path in the names of variables alone", "put them into one path");
        }
    }
    known.into_values().collect()
}

/// Where a path goes: without variables first, then by segments, text before variable.
type Order = (bool, Vec<(bool, String)>);

fn order(path: &str) -> Order {
    // The names of variables make no difference.
    let shape = |segment: &str| pieces(segment).map(|(text, variable)| if variable { "{}" } else { text }).collect();
    let segments: Vec<(bool, String)> = path.split('/').map(|text| (text.contains('{'), shape(text))).collect();
    (segments.iter().any(|(variable, _)| *variable), segments)
}

/// Text and variables of a path, in turn.
fn pieces(path: &str) -> impl Iterator<Item = (&str, bool)> {
    path.split('{').enumerate().flat_map(|(index, part)| match part.split_once('}') {
        Some((variable, text)) if index > 0 => [(variable, true), (text, false)],
        _ => [(part, false), ("", false)],
    })
}

/// The condition on the path: itself, a template, or where variables are only a part of a segment a pattern.
fn condition(path: &str) -> Value {
    let variables = pieces(path).filter(|(_, variable)| *variable).count();
    if variables == 0 {
        return json!({ "exact": path });
    }
    let is_whole = |segment: &str| {
        !segment.contains('{') || (segment.starts_with('{') && segment.find('}') == Some(segment.len() - 1))
    };
    if variables <= MAX_VARIABLES && path.split('/').all(is_whole) {
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut name = |given: &str| {
            let fine = given.len() <= MAX_VARIABLE
                && given.starts_with(|c: char| c.is_ascii_alphabetic())
                && given.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let numbered = (1..).map(|number| format!("v{number}"));
            let mut wanted = fine.then(|| given.to_owned()).into_iter().chain(numbered);
            wanted.find(|name| names.insert(name.clone())).unwrap_or_default()
        };
        let segments = path.split('/').map(|segment| match segment.strip_prefix('{') {
            Some(rest) => format!("{{{}}}", name(rest.trim_end_matches('}'))),
            None => segment.to_owned(),
        });
        return json!({ "template": segments.collect::<Vec<_>>().join("/") });
    }
    let pattern =
        |(text, variable): (&str, bool)| if variable { "[^/]+".to_owned() } else { regex_syntax::escape(text) };
    json!({ "regex": pieces(path).map(pattern).collect::<String>() })
}

/// The methods of a path, in upper case; without those that other servers answer.
fn methods(mut item: Fields<'_>) -> Vec<String> {
    item.pass_over(&["$ref", "summary", "description", "parameters"]);
    let elsewhere = is_elsewhere(&mut item);
    let mut methods = Vec::new();
    for method in METHODS {
        let Some(operation) = item.take(method).and_then(Node::object) else { continue };
        if is_here(operation) && !elsewhere {
            methods.push(method.to_ascii_uppercase());
        }
    }
    methods
}

/// Whether the server of the whole description answers an operation.
fn is_here(mut operation: Fields<'_>) -> bool {
    operation.pass_over(&CONTRACT);
    operation.lacks("callbacks", "is about requests that the service makes", "route them where they arrive");
    if let Some(node) = operation.take("deprecated").filter(|node| node.value == &Value::Bool(true)) {
        node.place.lacks(
            "is not told to clients",
            "set a header in headers.response of the rule, or leave the rule out when nobody calls it",
        );
    }
    !is_elsewhere(&mut operation)
}

/// Whether servers of its own answer what is described here.
fn is_elsewhere(fields: &mut Fields<'_>) -> bool {
    let servers = fields.take("servers");
    if let Some(node) = &servers {
        node.place.lacks("is about other servers, so it is left out", "write a Service and a Route for it by hand");
    }
    servers.is_some()
}
