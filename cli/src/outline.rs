//! What a schema says of each field, as a tree: what `explain-kind` prints and the reference pages are made of.
//!
//! Lists and maps are passed through, so a path names fields only: `spec.rules.retry` is a field of each rule. Fields
//! come in the order of the alphabet, as schemas have them. Our schemas do not refer to themselves, so a tree ends.

use std::fmt::Write as _;

use chancery_control_plane::model::{
    Kind,
    wire::{schema, suggestion},
};
use serde_json::Value;

/// A field, or at the top a whole document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Field {
    /// What it is called; the kind, at the top.
    pub name: String,
    /// Where it is, from below the top: `spec.rules.retry`. Empty at the top.
    pub path: String,
    /// What it holds, in words: `list of objects`.
    pub holds: String,
    /// Whether it must be there.
    pub required: bool,
    /// What holds if it is not there, in JSON, where that is one value.
    pub default: Option<String>,
    /// Between which bounds it has to be, each in words: `1 to 10`.
    pub bounds: Vec<String>,
    /// The texts that it may be, if others than these are refused.
    pub values: Vec<String>,
    /// Values that it may have, in JSON.
    pub examples: Vec<String>,
    /// What it means; one paragraph.
    pub description: String,
    /// Whether only the server sets it.
    pub read_only: bool,
    /// What is in it.
    pub fields: Vec<Field>,
}

/// A path that leads nowhere, and what may have been meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at} has no field {name:?}{hint}")]
pub struct UnknownField {
    at: String,
    name: String,
    hint: String,
}

impl Field {
    /// The documents of `kind`.
    pub fn of_kind(kind: Kind) -> Self {
        let schema = schema(kind);
        Self::read(kind.as_str(), &schema, &schema["$defs"])
    }

    /// What `schema` says of something called `name`. References lead, by their last part, to `definitions`.
    pub fn read(name: &str, schema: &Value, definitions: &Value) -> Self {
        let mut field = Self { name: name.to_owned(), ..Self::default() };
        field.add(schema, definitions);
        field
    }

    /// The field at `path`, dotted, from here; indexes (`rules[0]`) are passed over.
    ///
    /// # Errors
    /// There is none.
    pub fn find(&self, path: &str) -> Result<&Self, UnknownField> {
        let names = path.split('.').map(|name| name.split('[').next().unwrap_or_default());
        names.filter(|name| !name.is_empty()).try_fold(self, |field, name| {
            let found = field.fields.iter().find(|below| below.name == name);
            found.ok_or_else(|| UnknownField {
                at: if field.path.is_empty() { field.name.clone() } else { format!("{} {}", self.name, field.path) },
                name: name.to_owned(),
                hint: field.hint(name),
            })
        })
    }

    /// What may have been meant by `name`: what is nearly called so here, what is called so further down, or all there is.
    fn hint(&self, name: &str) -> String {
        let names = || self.fields.iter().map(|field| field.name.as_str());
        let near = suggestion(name, names());
        let below: Vec<_> = self
            .all()
            .into_iter()
            .filter(|field| field.name == name)
            .map(|field| field.path.as_str())
            .take(3)
            .collect();
        if !near.is_empty() {
            near
        } else if !below.is_empty() {
            format!("; there is {}", below.join(", "))
        } else if self.fields.is_empty() {
            "; it has none".to_owned()
        } else {
            format!("; known are {}", names().collect::<Vec<_>>().join(", "))
        }
    }

    /// All that is in it, each followed by what is in that.
    pub fn all(&self) -> Vec<&Self> {
        self.fields.iter().flat_map(|field| std::iter::once(field).chain(field.all())).collect()
    }

    /// What it holds and between which bounds, in one line.
    pub fn summary(&self) -> String {
        let mut summary = self.holds.clone();
        for bound in &self.bounds {
            // Writing to a String cannot fail.
            let _ = write!(summary, ", {bound}");
        }
        if let Some(default) = &self.default {
            let _ = write!(summary, ", default {default}");
        }
        if self.required {
            summary += ", required";
        }
        if self.read_only {
            summary += ", set by the server";
        }
        summary
    }

    /// Adds what `schema` says to what the schema around it has said, which is nearer to this field.
    fn add(&mut self, schema: &Value, definitions: &Value) {
        if self.description.is_empty() {
            self.description = paragraph(&schema["description"]);
        }
        if self.default.is_none() {
            self.default = schema.get("default").map(Value::to_string);
        }
        if self.examples.is_empty() {
            self.examples = schema["examples"].as_array().into_iter().flatten().map(Value::to_string).collect();
        }
        self.read_only |= schema["readOnly"] == true;
        self.bounds.extend(bounds(schema));
        if let Some(name) = referred(schema) {
            let target = &definitions[name];
            if !target["pattern"].is_string() {
                return self.add(target, definitions);
            }
            // A text of a form of its own: what is called so says all that its examples would.
            self.holds = name.to_lowercase();
            if self.description.is_empty() {
                self.description = paragraph(&target["description"]);
            }
            return;
        }
        for choice in choices(schema) {
            let before = std::mem::take(&mut self.holds);
            self.add(choice, definitions);
            if !before.is_empty() {
                self.holds = format!("{before}, or {}", self.holds);
            }
        }
        self.values.extend(schema["enum"].as_array().into_iter().flatten().filter_map(text));
        self.values.extend(text(&schema["const"]));
        match kind_of(schema) {
            Some("array") => self.add_contents("list", &schema["items"], definitions),
            Some("object") if schema["additionalProperties"].is_object() => {
                self.add_contents("map", &schema["additionalProperties"], definitions);
            }
            Some(kind) => kind.clone_into(&mut self.holds),
            None if !schema["const"].is_null() => "string".clone_into(&mut self.holds),
            None if self.holds.is_empty() => "anything".clone_into(&mut self.holds),
            None => {}
        }
        let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|n| n == name));
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = if self.path.is_empty() { name.clone() } else { format!("{}.{name}", self.path) };
            let mut field = Self { name: name.clone(), path, required: required(name), ..Self::default() };
            field.add(property, definitions);
            self.fields.push(field);
        }
    }

    /// Adds what each item of a list, or each value of a map, is.
    fn add_contents(&mut self, whole: &str, each: &Value, definitions: &Value) {
        let mut item = Self { path: self.path.clone(), ..Self::default() };
        item.add(each, definitions);
        self.holds = format!("{whole} of {}", many(&item.holds));
        let bound = |bound| format!("each {bound}");
        self.bounds.extend(item.bounds.into_iter().map(bound));
        self.values.extend(item.values);
        self.fields.extend(item.fields);
        if self.examples.is_empty() {
            self.examples = item.examples;
        }
        if self.description.is_empty() {
            self.description = item.description;
        }
    }
}

/// What `schema` refers to.
fn referred(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.rsplit('/').next()
}

/// Those of which a value has to be one, `null` aside.
fn choices(schema: &Value) -> impl Iterator<Item = &Value> {
    schema["oneOf"].as_array().into_iter().flatten().filter(|choice| choice["type"] != "null")
}

/// The type in JSON, `null` aside.
fn kind_of(schema: &Value) -> Option<&str> {
    match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        kind => kind.as_str(),
    }
}

fn bounds(schema: &Value) -> Vec<String> {
    let between = |least: &str, most: &str, of: &str| match (schema[least].as_u64(), schema[most].as_u64()) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}{of}")),
        (Some(least), None) if least > 0 => Some(format!("at least {least}{of}")),
        (None, Some(most)) => Some(format!("at most {most}{of}")),
        _ => None,
    };
    let length = between("minLength", "maxLength", " characters");
    [between("minimum", "maximum", ""), between("minItems", "maxItems", " entries"), length]
        .into_iter()
        .flatten()
        .collect()
}

fn many(word: &str) -> String {
    match word.split_once(' ') {
        Some((first, rest)) => format!("{first}s {rest}"),
        None => format!("{word}s"),
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn paragraph(description: &Value) -> String {
    description.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> Field {
        Field::of_kind(Kind::Route).find(path).unwrap().clone()
    }

    #[test]
    fn a_field_says_all_that_the_schema_does() {
        let attempts = route("spec.rules.retry.attempts");
        assert_eq!(attempts.summary(), "integer, 1 to 10, default 1");
        assert_eq!(attempts.description, "How often it is tried again after the first try.");
        let on = route("spec.rules.retry.on");
        assert_eq!(on.summary(), "list of strings, 1 to 20 entries");
        assert!(on.values.contains(&"5xx".to_owned()), "{:?}", on.values);
        let base = route("spec.rules.retry.backoff.base");
        assert_eq!((base.summary().as_str(), base.examples.len()), ("duration, required", 0));
        assert_eq!(route("kind").values, ["Route"]);
        assert_eq!(route("name").summary(), "name, required");
        assert_eq!(route("labels").holds, "map of strings");
        assert!(route("revision").read_only);
    }

    #[test]
    fn one_of_several_types_has_the_fields_of_all() {
        let service = Field::of_kind(Kind::Service);
        let balancing = service.find("spec.loadBalancing").unwrap();
        assert_eq!(balancing.holds, "string, or object");
        assert!(balancing.find("policy").is_ok() && !balancing.values.is_empty());
    }

    #[test]
    fn indexes_are_passed_over() {
        assert_eq!(route("spec.rules[0].retry").path, "spec.rules.retry");
        assert_eq!(route("").path, "");
    }

    #[test]
    fn what_is_unknown_has_a_neighbour() {
        let refused = |path: &str| Field::of_kind(Kind::Route).find(path).unwrap_err().to_string();
        assert_eq!(refused("spec.rules.retrys"), "Route spec.rules has no field \"retrys\"; did you mean retry?");
        assert_eq!(refused("retry"), "Route has no field \"retry\"; there is spec.rules.retry");
        assert_eq!(refused("name.first"), "Route name has no field \"first\"; it has none");
        assert!(refused("spec.rules.moon").contains("; known are "), "{}", refused("spec.rules.moon"));
    }

    /// An unknown type, or a schema that is read wrongly, would be `anything`.
    #[test]
    fn every_field_of_every_kind_is_understood() {
        let mut found = Vec::new();
        for kind in Kind::ALL {
            for field in Field::of_kind(kind).all() {
                assert!(!field.description.is_empty(), "{kind} {} has no description", field.path);
                if field.holds == "anything" {
                    found.push(field.path.clone());
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, ["revision", "updatedAt", "updatedBy"]);
    }
}
