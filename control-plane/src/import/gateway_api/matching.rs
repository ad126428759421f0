//! Which requests a rule is for, and before which other rules it goes.
//!
//! A path prefix of the Gateway API ends where a segment does: `/cart` is for `/cart` and `/cart/7`, not for `/cartoon`. So does our
//! `pathPrefix`, and a `prefix` that is a slash.
//!
//! Of rules for the same host, the one with the exact path goes first, then the longest prefix, then the one that names a method,
//! then the most headers, then the most query parameters; regular expressions are left to implementations, and stand between exact
//! paths and prefixes. Calls of gRPC go before everything, by the length of service and method.

use std::cmp::Reverse;

use serde_json::{Value, json};

use crate::import::{
    draft,
    fields::{Fields, Node},
};

/// What is left of a rule whose conditions are not understood.
pub(super) const LEFT_OUT: &str =
    "write the rule by hand: it is left out, and its requests go where other rules send them";

/// Where a rule goes; the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    class: Class,
    /// Of the path, or of the service of gRPC.
    length: Reverse<usize>,
    /// Of the method of gRPC.
    call: Reverse<usize>,
    any_method: bool,
    headers: Reverse<usize>,
    query: Reverse<usize>,
}

/// What a rule looks at, in the order of precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Call,
    CallPattern,
    Exact,
    Regex,
    Prefix,
}

/// What one condition of a route comes to. `None` if it is not understood.
pub(super) fn matches(node: Node<'_>, kind: &str) -> Option<(Rank, Value)> {
    let mut fields = node.object()?;
    let matches = if kind == "GRPCRoute" { call(&mut fields) } else { request(&mut fields) };
    // Without a condition that is there, the rule would be for more requests than it was.
    let unknown = fields.rest();
    for (_, node) in &unknown {
        node.place.lacks("is a condition that is not known here", LEFT_OUT);
    }
    matches.filter(|_| unknown.is_empty())
}

/// What a rule without conditions is for.
pub(super) fn everything(kind: &str) -> (Rank, Value) {
    let (class, matches) = match kind {
        "GRPCRoute" => (Class::Call, json!({ "grpc": {} })),
        _ => (Class::Prefix, json!({ "path": { "prefix": "/" } })),
    };
    let length = Reverse(usize::from(class == Class::Prefix));
    let none = Reverse(0);
    (Rank { class, length, call: none, any_method: true, headers: none, query: none }, matches)
}

fn request(fields: &mut Fields<'_>) -> Option<(Rank, Value)> {
    let (class, length, path) = match fields.take("path") {
        None => (Class::Prefix, 1, json!({ "prefix": "/" })),
        Some(node) => path(&mut node.object()?)?,
    };
    let headers = conditions(fields, "headers", true)?;
    let query = conditions(fields, "queryParams", false)?;
    let methods = fields.text("method").map(|method| vec![method]);
    let rank = Rank {
        class,
        length: Reverse(length),
        call: Reverse(0),
        any_method: methods.is_none(),
        headers: Reverse(headers.len()),
        query: Reverse(query.len()),
    };
    let matches = json!({ "path": path, "methods": methods, "headers": some(&headers), "query": some(&query) });
    Some((rank, draft::dense(matches)))
}

fn path(fields: &mut Fields<'_>) -> Option<(Class, usize, Value)> {
    let value = fields.text("value").unwrap_or("/");
    match fields.text("type").unwrap_or("PathPrefix") {
        "Exact" => Some((Class::Exact, value.len(), json!({ "exact": value }))),
        "RegularExpression" => Some((Class::Regex, value.len(), json!({ "regex": value }))),
        "PathPrefix" => match value.trim_end_matches('/') {
            "" => Some((Class::Prefix, 1, json!({ "prefix": "/" }))),
            segments => Some((Class::Prefix, segments.len() + 1, json!({ "pathPrefix": segments }))),
        },
        other => {
            fields.place.lacks(format!("is of the type {other}, which is not known here"), LEFT_OUT);
            None
        }
    }
}

fn call(fields: &mut Fields<'_>) -> Option<(Rank, Value)> {
    let headers = conditions(fields, "headers", true)?;
    let mut method = fields.object("method");
    let text = |fields: &mut Option<Fields<'_>>, name| {
        fields.as_mut().and_then(|fields| fields.text(name)).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let (of, service, name) = (text(&mut method, "type"), text(&mut method, "service"), text(&mut method, "method"));
    let length = |text: &Option<String>| Reverse(text.as_ref().map_or(0, String::len));
    let by_pattern = of.as_deref() == Some("RegularExpression");
    let rank = Rank {
        class: if by_pattern { Class::CallPattern } else { Class::Call },
        length: length(&service),
        call: length(&name),
        any_method: true,
        headers: Reverse(headers.len()),
        query: Reverse(0),
    };
    let any = || "[^/]+".to_owned();
    let matched = match (service, name) {
        (None, None) => json!({ "grpc": {} }),
        (Some(service), name) if !by_pattern => json!({ "grpc": { "service": service, "method": name } }),
        (service, name) => {
            let part = |text: Option<String>| match text {
                Some(text) if by_pattern => format!("(?:{text})"),
                Some(text) => regex_syntax::escape(&text),
                None => any(),
            };
            let calls = json!({ "name": "content-type", "prefix": "application/grpc" });
            let path = json!({ "regex": format!("/{}/{}", part(service), part(name)) });
            let headers: Vec<Value> = headers.iter().cloned().chain([calls]).collect();
            return Some((rank, json!({ "path": path, "headers": headers })));
        }
    };
    let mut matched = draft::dense(matched);
    if let Some(headers) = some(&headers) {
        matched["headers"] = headers;
    }
    Some((rank, matched))
}

/// Conditions on headers or query parameters. Of several with one name, the first alone counts. `None` if one is not understood.
fn conditions(fields: &mut Fields<'_>, name: &str, any_case: bool) -> Option<Vec<Value>> {
    let mut conditions = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for node in fields.items(name) {
        let mut condition = node.object()?;
        let (of, name, value) = (condition.text("type"), condition.text("name")?, condition.text("value")?);
        let same = if any_case { name.to_ascii_lowercase() } else { name.to_owned() };
        if names.contains(&same) {
            condition
                .place
                .lacks("is a second condition on one name, and only the first counts", "leave one of them out");
            continue;
        }
        names.push(same);
        conditions.push(match of.unwrap_or("Exact") {
            "Exact" => json!({ "name": name, "exact": value }),
            "RegularExpression" => json!({ "name": name, "regex": value }),
            other => {
                condition.place.lacks(format!("is of the type {other}, which is not known here"), LEFT_OUT);
                return None;
            }
        });
    }
    Some(conditions)
}

fn some(conditions: &[Value]) -> Option<Value> {
    (!conditions.is_empty()).then(|| conditions.into())
}
