//! Parts of a message replaced by others, in JSON.
//!
//! A merge patch (RFC 7396), told by the type what a name means: both spellings of a field are the same field, choosing
//! one member of a oneof takes the other away, and an `Any` of another type is replaced whole. Lists are replaced whole; to
//! change within one, a [`MessagePath`] leads to the entry.

use std::str::FromStr;

use serde_json::{Map, Value};

use super::TYPE;
use crate::describe::{
    Violation,
    findings::{Findings, Step, written},
    types::{Field, Kind, Type, WellKnown},
};

/// A place in a message: `filter_chains[0].filters[0].typed_config`, `metadata.filter_metadata["a.b"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessagePath(Vec<Step>);

/// A text is not a [`MessagePath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a path such as filter_chains[0].filters[0].typed_config")]
pub struct InvalidPath;

impl std::fmt::Display for MessagePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&written(&self.0))
    }
}

impl FromStr for MessagePath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let mut steps = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(inside) = rest.strip_prefix('[') {
                let mut values = serde_json::Deserializer::from_str(inside).into_iter::<Value>();
                let step = match values.next() {
                    Some(Ok(Value::String(key))) => Step::Key(key),
                    Some(Ok(Value::Number(index))) => {
                        Step::Index(index.as_u64().and_then(|index| index.try_into().ok()).ok_or(InvalidPath)?)
                    }
                    _ => return Err(InvalidPath),
                };
                rest = inside[values.byte_offset()..].strip_prefix(']').ok_or(InvalidPath)?;
                steps.push(step);
            } else {
                let name = if steps.is_empty() { rest } else { rest.strip_prefix('.').ok_or(InvalidPath)? };
                let end = name.find(['.', '[']).unwrap_or(name.len());
                let (name, after) = name.split_at(end);
                if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                    return Err(InvalidPath);
                }
                steps.push(Step::Field(name.to_owned()));
                rest = after;
            }
        }
        Ok(Self(steps))
    }
}

/// `target`, a message of type `of` as [`decode`](super::decode()) shows it, with `patch` merged into it at `path`. Or all that
/// is wrong with path or patch, the paths beginning where `target` does.
pub fn merge(of: &'static Type, target: &mut Value, path: &MessagePath, patch: &Value) -> Result<(), Vec<Violation>> {
    let mut findings = Findings::default();
    let mut place = (Holds::Message(of), target);
    for step in &path.0 {
        findings.enter(step.clone());
        match into(place, step) {
            Ok(next) => place = next,
            Err(reason) => {
                findings.report(reason);
                return Err(findings.into_found());
            }
        }
    }
    let (holds, target) = place;
    let merged = merged(holds, Some(std::mem::take(target)), patch, &mut findings);
    *target = merged;
    if findings.is_empty() { Ok(()) } else { Err(findings.into_found()) }
}

/// What stands at a place.
#[derive(Clone, Copy)]
enum Holds {
    Message(&'static Type),
    List(&'static Field),
    Map(&'static Field),
    /// What has no parts of its own, and JSON that is free.
    Value,
}

impl Holds {
    fn of(field: &'static Field) -> Self {
        match field.of().filter(|_| field.kind == Kind::Message) {
            Some(of) if of.is_map_entry => of.field(2).map_or(Self::Value, Self::Map),
            _ if field.repeated => Self::List(field),
            _ => Self::one(field),
        }
    }

    /// One entry of a field.
    fn one(field: &'static Field) -> Self {
        match field.of().filter(|_| field.kind == Kind::Message) {
            Some(of) if of.well_known.is_none_or(|known| known == WellKnown::Any) => Self::Message(of),
            _ => Self::Value,
        }
    }
}

/// The type of a message, which an `Any` says itself.
fn type_of(of: &'static Type, object: &Map<String, Value>) -> Option<&'static Type> {
    if of.well_known != Some(WellKnown::Any) {
        return Some(of);
    }
    Type::of_url(object.get(TYPE)?.as_str()?).filter(|of| of.well_known.is_none())
}

/// One step further, or why not. A message that is not there yet begins to be.
fn into<'a>((holds, target): (Holds, &'a mut Value), step: &Step) -> Result<(Holds, &'a mut Value), String> {
    match (holds, target, step) {
        (Holds::Message(of), Value::Object(object), Step::Field(name)) => {
            let of = type_of(of, object).ok_or("is in a message whose type is not known")?;
            let field = of.field_named(name).ok_or_else(|| format!("is not a field of {}", of.name))?;
            let holds = Holds::of(field);
            let nothing = match holds {
                Holds::List(_) => Value::Array(Vec::new()),
                Holds::Message(_) | Holds::Map(_) => Value::Object(Map::new()),
                Holds::Value => Value::Null,
            };
            choose(of, field, object);
            Ok((holds, object.entry(field.name.clone()).or_insert(nothing)))
        }
        (Holds::List(field), Value::Array(items), Step::Index(index)) => {
            let length = items.len();
            let item = items.get_mut(*index).ok_or_else(|| format!("does not exist: the list has {length} entries"))?;
            Ok((Holds::one(field), item))
        }
        (Holds::Map(field), Value::Object(object), Step::Key(key)) => {
            let holds = Holds::one(field);
            let nothing = if matches!(holds, Holds::Message(_)) { Value::Object(Map::new()) } else { Value::Null };
            Ok((holds, object.entry(key.clone()).or_insert(nothing)))
        }
        (Holds::Value, ..) => Err("leads into what has no fields".to_owned()),
        (Holds::List(_), ..) => Err("leads into a list without an index".to_owned()),
        (Holds::Map(_), ..) => Err("leads into a map without a key".to_owned()),
        (Holds::Message(of), ..) => Err(format!("leads into {} without a field", of.name)),
    }
}

/// Takes the other members of the field's oneof away.
fn choose(of: &'static Type, field: &Field, object: &mut Map<String, Value>) {
    if field.oneof.is_some() {
        for other in of.fields.iter().filter(|other| other.oneof == field.oneof && other.number != field.number) {
            object.remove(&other.name);
        }
    }
}

fn merged(holds: Holds, target: Option<Value>, patch: &Value, findings: &mut Findings) -> Value {
    match (holds, patch) {
        (Holds::Message(of), Value::Object(patch)) => {
            let mut object = if let Some(Value::Object(object)) = target { object } else { Map::new() };
            let mut of = Some(of);
            if of.is_some_and(|of| of.well_known == Some(WellKnown::Any)) {
                if let Some(type_url) = patch.get(TYPE) {
                    if object.get(TYPE) != Some(type_url) {
                        object = Map::new();
                    }
                    object.insert(TYPE.to_owned(), type_url.clone());
                }
                of = of.and_then(|of| type_of(of, &object));
            }
            let rest = patch.iter().filter(|(name, _)| *name != TYPE);
            let Some(of) = of else {
                // Whatever it is, encoding will say what is wrong with it.
                object.extend(rest.map(|(name, value)| (name.clone(), value.clone())));
                return Value::Object(object);
            };
            for (name, value) in rest {
                findings.enter(Step::Field(name.clone()));
                match of.field_named(name) {
                    None => findings.report(format!("is not a field of {}", of.name)),
                    Some(field) if value.is_null() => {
                        object.remove(&field.name);
                    }
                    Some(field) => {
                        choose(of, field, &mut object);
                        let before = object.remove(&field.name);
                        object.insert(field.name.clone(), merged(Holds::of(field), before, value, findings));
                    }
                }
                findings.leave();
            }
            Value::Object(object)
        }
        (Holds::Map(field), Value::Object(patch)) => {
            let mut object = if let Some(Value::Object(object)) = target { object } else { Map::new() };
            for (key, value) in patch {
                let before = object.remove(key);
                if !value.is_null() {
                    findings.enter(Step::Key(key.clone()));
                    object.insert(key.clone(), merged(Holds::one(field), before, value, findings));
                    findings.leave();
                }
            }
            Value::Object(object)
        }
        (Holds::List(field), Value::Array(items)) => {
            let items = items.iter().enumerate().map(|(index, item)| {
                findings.enter(Step::Index(index));
                let item = merged(Holds::one(field), None, item, findings);
                findings.leave();
                item
            });
            Value::Array(items.collect())
        }
        (Holds::Value, Value::Object(patch)) => {
            let mut object = if let Some(Value::Object(object)) = target { object } else { Map::new() };
            for (key, value) in patch {
                let before = object.remove(key);
                if !value.is_null() {
                    object.insert(key.clone(), merged(Holds::Value, before, value, findings));
                }
            }
            Value::Object(object)
        }
        // What is replaced whole; if it has the wrong shape, encoding will say so.
        (_, value) => value.clone(),
    }
}
