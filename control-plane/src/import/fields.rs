//! Reading a foreign document field by field, so that nothing in it goes by unseen.
//!
//! Whoever reads an object takes its fields by name. When the reader is done, the fields that nobody took are reported: a
//! field that a later version of the source brings is listed on the day it comes, and no list of known fields has to be kept.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use serde_json::{Map, Value};

use super::Unmatched;

/// So many findings are kept.
const LIMIT: usize = 1000;

/// What to do about a field whose meaning is not known here.
const UNKNOWN: &str = "see whether the services need it; an EnvoyPatch can say what Envoy is to know";

/// All that was found to have no counterpart.
#[derive(Debug, Default)]
pub(super) struct Report(RefCell<Vec<Unmatched>>);

impl Report {
    /// The findings.
    pub(super) fn into_vec(self) -> Vec<Unmatched> {
        self.0.into_inner()
    }
}

/// A place in the sources.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    report: &'a Report,
    document: usize,
    object: Rc<str>,
    path: String,
}

impl<'a> Place<'a> {
    /// The root of a document.
    pub(super) fn root(report: &'a Report, document: usize) -> Self {
        Self { report, document, object: Rc::from(""), path: String::new() }
    }

    /// The same place, as part of this object.
    pub(super) fn of(&self, object: &str) -> Self {
        Self { object: Rc::from(object), ..self.clone() }
    }

    /// A field of the object here.
    pub(super) fn at(&self, field: &str) -> Self {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let path = match (self.path.is_empty(), !field.is_empty() && field.chars().all(plain)) {
            (true, true) => field.to_owned(),
            (false, true) => format!("{}.{field}", self.path),
            (_, false) => format!("{}[{}]", self.path, Value::from(field)),
        };
        Self { path, ..self.clone() }
    }

    /// A place below this one, by its path from here.
    pub(super) fn below(&self, path: &str) -> Self {
        let dot = if self.path.is_empty() || path.is_empty() || path.starts_with('[') { "" } else { "." };
        Self { path: format!("{}{dot}{path}", self.path), ..self.clone() }
    }

    /// An item of the list here.
    pub(super) fn index(&self, index: usize) -> Self {
        Self { path: format!("{}[{index}]", self.path), ..self.clone() }
    }

    /// Says that what stands here has no counterpart, why, and what to do instead.
    pub(super) fn lacks(&self, reason: impl Into<String>, instead: impl Into<String>) {
        let mut found = self.report.0.borrow_mut();
        let finding = |path: &str, reason, instead| Unmatched {
            document: self.document,
            object: self.object.to_string(),
            path: path.to_owned(),
            reason,
            instead,
        };
        if found.len() < LIMIT {
            let finding = finding(&self.path, reason.into(), instead.into());
            if !found.contains(&finding) {
                found.push(finding);
            }
        } else if found.len() == LIMIT {
            let more = format!("and what was found after it is not listed: there are more than {LIMIT} findings");
            found.push(finding("", more, "import fewer documents at once".to_owned()));
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    /// The value.
    pub(super) value: &'a Value,
    /// Its place.
    pub(super) place: Place<'a>,
}

impl<'a> Node<'a> {
    /// The fields of an object.
    pub(super) fn object(self) -> Option<Fields<'a>> {
        let Value::Object(map) = self.value else {
            self.place.lacks("is not an object", "write one, or leave it out");
            return None;
        };
        let unread = map.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str()).collect();
        Some(Fields { map, place: self.place, unread })
    }

    /// The items of a list.
    pub(super) fn items(self) -> Vec<Node<'a>> {
        let Value::Array(values) = self.value else {
            self.place.lacks("is not a list", "write one, or leave it out");
            return Vec::new();
        };
        values.iter().enumerate().map(|(index, value)| Node { value, place: self.place.index(index) }).collect()
    }

    /// A text.
    pub(super) fn text(&self) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.place.lacks("is not a text", "put it in quotes");
        }
        text
    }

    /// A number of `0` to `most`.
    pub(super) fn number(&self, most: u64) -> Option<u64> {
        let number = self.value.as_u64().filter(|number| *number <= most);
        if number.is_none() {
            self.place.lacks(format!("is not a whole number of 0 to {most}"), "write one");
        }
        number
    }
}

/// The fields of an object. Those that are not taken are reported when it is dropped.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// Where the object stands.
    pub(super) place: Place<'a>,
    unread: BTreeSet<&'a str>,
}

impl<'a> Fields<'a> {
    /// A field that is given, and is not null.
    pub(super) fn take(&mut self, name: &str) -> Option<Node<'a>> {
        self.unread.remove(name);
        let value = self.map.get(name).filter(|value| !value.is_null())?;
        Some(Node { value, place: self.place.at(name) })
    }

    /// A field that is a text.
    pub(super) fn text(&mut self, name: &str) -> Option<&'a str> {
        self.take(name)?.text()
    }

    /// A field that is a number of `0` to `most`.
    pub(super) fn number(&mut self, name: &str, most: u64) -> Option<u64> {
        self.take(name)?.number(most)
    }

    /// A field that is a list; empty if it is not given.
    pub(super) fn items(&mut self, name: &str) -> Vec<Node<'a>> {
        self.take(name).map(Node::items).unwrap_or_default()
    }

    /// A field that is a list of texts; empty if it is not given.
    pub(super) fn texts(&mut self, name: &str) -> Vec<&'a str> {
        self.items(name).iter().filter_map(Node::text).collect()
    }

    /// A field that is an object.
    pub(super) fn object(&mut self, name: &str) -> Option<Fields<'a>> {
        self.take(name)?.object()
    }

    /// Fields that mean nothing to any proxy.
    pub(super) fn pass_over(&mut self, names: &[&str]) {
        self.unread.retain(|unread| !names.contains(unread));
    }

    /// The fields that nobody has taken so far, which are taken now.
    pub(super) fn rest(&mut self) -> Vec<(&'a str, Node<'a>)> {
        let names = std::mem::take(&mut self.unread);
        names.into_iter().filter_map(|name| Some((name, self.take(name)?))).collect()
    }

    /// Says that a field, if it is given, has no counterpart.
    pub(super) fn lacks(&mut self, name: &str, reason: &str, instead: &str) {
        if let Some(node) = self.take(name) {
            node.place.lacks(reason, instead);
        }
    }
}

impl Drop for Fields<'_> {
    fn drop(&mut self) {
        for name in &self.unread {
            self.place.at(name).lacks("has no counterpart", UNKNOWN);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(report: Report) -> Vec<String> {
        report.into_vec().into_iter().map(|found| found.path).collect()
    }

    #[test]
    fn what_nobody_takes_is_reported() {
        let value = json!({ "a": 1, "b": { "c.d": [1, "x"], "e": null }, "f": 2 });
        let report = Report::default();
        {
            let mut fields = Node { value: &value, place: Place::root(&report, 0) }.object().unwrap();
            assert_eq!(fields.number("a", 1), Some(1));
            let mut b = fields.object("b").unwrap();
            assert!(b.take("e").is_none());
            assert_eq!(b.texts("c.d"), ["x"]);
        }
        assert_eq!(paths(report), ["b[\"c.d\"][0]", "f"]);
    }

    #[test]
    fn the_list_of_findings_is_bounded() {
        let report = Report::default();
        for index in 0..5 * LIMIT {
            Place::root(&report, 0).index(index).lacks("", "");
        }
        assert_eq!(report.into_vec().len(), LIMIT + 1);
    }
}
