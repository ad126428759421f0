//! What a rule looks at, one condition at a time: whether it holds, and what is said if it does not.

use std::{borrow::Cow, cmp::Reverse};

use serde_json::Value;

use super::{
    arrival::{Arrived, Header},
    explanation::Unmet,
    pattern::Patterns,
};
use crate::model::{
    Quoted,
    route::{Match, NamedMatch, PathMatch, ValueMatch},
};

/// How far a request is from a rule; the smaller is the nearer. The path counts most, since it is what people have in mind.
pub(super) type Distance = (bool, Reverse<usize>, usize);

/// A condition of a rule.
#[derive(Clone, Copy, Debug)]
pub(super) enum Condition<'a> {
    Path(&'a PathMatch),
    Grpc,
    Methods(&'a [String]),
    Header(&'a NamedMatch),
    Query(&'a NamedMatch),
    Cookie(&'a NamedMatch),
}

/// The conditions of a rule, in the order in which they are best told.
pub(super) fn conditions(matches: &Match) -> impl Iterator<Item = Condition<'_>> {
    let Match { path, methods, headers, query, cookies, grpc } = matches;
    let grpc = grpc.then_some(Condition::Grpc);
    let methods = (!methods.is_empty()).then_some(Condition::Methods(methods));
    std::iter::once(Condition::Path(path))
        .chain(grpc)
        .chain(methods)
        .chain(headers.iter().map(Condition::Header))
        .chain(query.iter().map(Condition::Query))
        .chain(cookies.iter().map(Condition::Cookie))
}

/// Whether a request is the question of a browser whether it may send one that the rule is for. It has none of the headers and
/// cookies of that.
pub(super) fn is_preflight_of(matches: &Match, arrived: &Arrived, patterns: &Patterns) -> bool {
    let asks = match arrived.header("access-control-request-method") {
        Header::Values(asked) => {
            matches.methods.is_empty() || asked.iter().any(|method| matches.methods.iter().any(|known| known == method))
        }
        Header::Absent | Header::Unknown => false,
    };
    let mut others = std::iter::once(Condition::Path(&matches.path)).chain(matches.query.iter().map(Condition::Query));
    arrived.method == "OPTIONS" && asks && others.all(|condition| condition.holds(arrived, patterns))
}

/// How far a request is from a rule that it does not match.
pub(super) fn distance(matches: &Match, arrived: &Arrived, patterns: &Patterns) -> Distance {
    let unmet = conditions(matches).filter(|condition| !condition.holds(arrived, patterns)).count();
    let path = Condition::Path(&matches.path);
    if path.holds(arrived, patterns) {
        return (false, Reverse(0), unmet);
    }
    let text = match &matches.path {
        PathMatch::Connect => "",
        PathMatch::Exact(text)
        | PathMatch::Regex(text)
        | PathMatch::Template(text)
        | PathMatch::Prefix(text)
        | PathMatch::Below(text) => text,
    };
    let common = text.bytes().zip(arrived.path.bytes()).take_while(|(wanted, found)| wanted == found).count();
    (true, Reverse(common), unmet)
}

impl Condition<'_> {
    pub(super) fn holds(&self, arrived: &Arrived, patterns: &Patterns) -> bool {
        match self {
            Self::Path(path) if arrived.is_connect() => **path == PathMatch::Connect,
            Self::Path(PathMatch::Connect) => false,
            Self::Path(PathMatch::Exact(path)) => arrived.path == *path,
            Self::Path(PathMatch::Prefix(prefix)) => arrived.path.starts_with(prefix),
            Self::Path(PathMatch::Below(path)) => {
                let rest = arrived.path.strip_prefix(path.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Path(PathMatch::Regex(pattern)) => patterns.is_match(pattern, &arrived.path),
            Self::Path(PathMatch::Template(template)) => patterns.is_of_template(template, &arrived.path),
            Self::Grpc => arrived.is_grpc(),
            Self::Methods(methods) => methods.contains(&arrived.method),
            Self::Header(condition) => {
                let holds = match (arrived.header(&condition.name), &condition.value) {
                    (Header::Unknown, ValueMatch::Present) => true,
                    (Header::Unknown, _) => return false,
                    (Header::Absent, ValueMatch::Present) => false,
                    // One that is not there is empty to an inverted condition, and nothing to another.
                    (Header::Absent, value) => condition.invert && is(value, "", patterns),
                    (Header::Values(found), value) => found.iter().any(|found| is(value, found, patterns)),
                };
                holds != condition.invert
            }
            Self::Query(condition) => {
                arrived.parameter(&condition.name).is_some_and(|found| is(&condition.value, found, patterns))
            }
            Self::Cookie(condition) => {
                let found = arrived.cookie(&condition.name);
                found.is_some_and(|found| is(&condition.value, found, patterns)) != condition.invert
            }
        }
    }

    /// Whether it depends on what the header `name` holds.
    pub(super) fn needs_value_of(&self, name: &str) -> bool {
        matches!(self, Self::Header(condition) if condition.name == name && condition.value != ValueMatch::Present)
    }

    /// What is said if it does not hold. It stands in the rule `index` of a route, whose `match` is written as `written`.
    pub(super) fn unmet(&self, index: usize, written: &Value, arrived: &Arrived) -> Unmet {
        let quoted = |found: Option<Cow<'_, str>>| found.map_or("none".to_owned(), |found| Quoted(&found).to_string());
        let (place, wanted, found) = match self {
            Self::Path(path) => {
                let found = if arrived.is_connect() { "CONNECT, which has no path" } else { &arrived.path };
                (path_field(path, written), wanted_path(path, written), found.to_owned())
            }
            Self::Grpc => {
                let kind = quoted(Some(arrived.text("content-type")).filter(|kind| !kind.is_empty()));
                ("grpc".to_owned(), "a call of gRPC".to_owned(), format!("content type {kind}"))
            }
            Self::Methods(methods) => {
                ("methods".to_owned(), format!("method {}", methods.join(" or ")), arrived.method.clone())
            }
            Self::Header(condition) => {
                let found = match arrived.header(&condition.name) {
                    Header::Absent => quoted(None),
                    Header::Values(values) => {
                        values.iter().map(|value| Quoted(value).to_string()).collect::<Vec<_>>().join(", ")
                    }
                    Header::Unknown => "what the proxy makes it".to_owned(),
                };
                (named("headers", condition, written), wanted_value("header", condition), found)
            }
            Self::Query(condition) => {
                let found = quoted(arrived.parameter(&condition.name).map(Cow::Borrowed));
                (named("query", condition, written), wanted_value("parameter", condition), found)
            }
            Self::Cookie(condition) => {
                let found = quoted(arrived.cookie(&condition.name).map(Cow::Borrowed));
                (named("cookies", condition, written), wanted_value("cookie", condition), found)
            }
        };
        Unmet { path: format!("spec.rules[{index}].match.{place}"), wanted, found }
    }
}

/// Whether a text is as a condition wants it.
fn is(wanted: &ValueMatch, found: &str, patterns: &Patterns) -> bool {
    match wanted {
        ValueMatch::Present => true,
        ValueMatch::Exact(text) => found == text,
        ValueMatch::Prefix(text) => found.starts_with(text),
        ValueMatch::Suffix(text) => found.ends_with(text),
        ValueMatch::Contains(text) => found.contains(text),
        ValueMatch::Regex(pattern) => patterns.is_match(pattern, found),
    }
}

fn path_field(path: &PathMatch, written: &Value) -> String {
    if *path != PathMatch::Connect && written["path"].is_null() {
        return if written["grpc"].is_null() { "path" } else { "grpc" }.to_owned();
    }
    let field = match path {
        PathMatch::Connect => "connect",
        PathMatch::Exact(_) => "path.exact",
        PathMatch::Prefix(_) => "path.prefix",
        PathMatch::Below(_) => "path.pathPrefix",
        PathMatch::Regex(_) => "path.regex",
        PathMatch::Template(_) => "path.template",
    };
    field.to_owned()
}

fn wanted_path(path: &PathMatch, written: &Value) -> String {
    match path {
        PathMatch::Connect => "CONNECT".to_owned(),
        PathMatch::Exact(path) => format!("path {path}"),
        PathMatch::Prefix(prefix) => format!("path that begins with {prefix}"),
        PathMatch::Below(path) => format!("path {path} or one below it"),
        PathMatch::Regex(pattern) => format!("path that matches {pattern}"),
        // With the names that its author gave to the variables.
        PathMatch::Template(template) => {
            format!("path of {}", written["path"]["template"].as_str().unwrap_or(template))
        }
    }
}

/// The field of a condition on a value, and what stands in it.
fn value_field(value: &ValueMatch) -> (&'static str, Value) {
    match value {
        ValueMatch::Present => ("present", true.into()),
        ValueMatch::Exact(text) => ("exact", text.as_str().into()),
        ValueMatch::Prefix(text) => ("prefix", text.as_str().into()),
        ValueMatch::Suffix(text) => ("suffix", text.as_str().into()),
        ValueMatch::Contains(text) => ("contains", text.as_str().into()),
        ValueMatch::Regex(pattern) => ("regex", pattern.as_str().into()),
    }
}

fn wanted_value(what: &str, condition: &NamedMatch) -> String {
    let NamedMatch { name, value, invert } = condition;
    let not = if *invert { "not " } else { "" };
    let quoted = |relation: &str, text: &str| format!("{what} {name} {not}{relation} {}", Quoted(text));
    match value {
        ValueMatch::Present if *invert => format!("no {what} {name}"),
        ValueMatch::Present => format!("{what} {name}"),
        ValueMatch::Exact(text) => quoted("equal to", text),
        ValueMatch::Prefix(text) => quoted("beginning with", text),
        ValueMatch::Suffix(text) => quoted("ending with", text),
        ValueMatch::Contains(text) => quoted("containing", text),
        ValueMatch::Regex(pattern) => quoted("matching", pattern),
    }
}

/// The place of a condition in the list `field`: the parsed ones are sorted, those that are written are not.
fn named(field: &str, condition: &NamedMatch, written: &Value) -> String {
    let (value_field, value) = value_field(&condition.value);
    let is_it = |entry: &Value| {
        let name = entry["name"].as_str();
        let same_name = if field == "headers" {
            name.is_some_and(|name| name.eq_ignore_ascii_case(&condition.name))
        } else {
            name == Some(&condition.name)
        };
        same_name && entry[value_field] == value && entry["invert"].as_bool().unwrap_or(false) == condition.invert
    };
    match written[field].as_array().and_then(|entries| entries.iter().position(is_it)) {
        Some(index) => format!("{field}[{index}]"),
        None => field.to_owned(),
    }
}
