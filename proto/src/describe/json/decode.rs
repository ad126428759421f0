//! From bytes to JSON.

use serde_json::{Map, Value};

use super::{TYPE, VALUE, well_known};
use crate::describe::{
    check::{any, merged},
    types::{Field, Kind, Type, WellKnown},
    wire::{self, Malformed, Wire},
};

/// Bytes are no message of the type they are said to be, or hold what the descriptors do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot be read as a message of its type")]
pub struct Unreadable;

impl From<Malformed> for Unreadable {
    fn from(Malformed: Malformed) -> Self {
        Self
    }
}

/// A message of type `of` as JSON. What is not on the wire is not shown.
pub fn decode(of: &'static Type, bytes: &[u8]) -> Result<Value, Unreadable> {
    match of.well_known {
        None => fields(of, bytes).map(Value::Object),
        Some(WellKnown::Any) => decode_any(bytes),
        Some(WellKnown::Wrapper) => {
            let field = of.field(1).ok_or(Unreadable)?;
            let last = wire::fields(bytes)?.pop();
            let value = last.map_or(Ok(wire::default(field.kind)), |(_, wire)| wire::scalar(field.kind, wire))?;
            Ok(well_known::shown(field, value))
        }
        Some(well_known) => well_known::decode(well_known, bytes),
    }
}

fn decode_any(bytes: &[u8]) -> Result<Value, Unreadable> {
    if bytes.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let (type_url, value) = any(bytes)?;
    let of = Type::of_url(type_url).ok_or(Unreadable)?;
    let mut object = Map::new();
    object.insert(TYPE.to_owned(), type_url.into());
    if of.well_known.is_some() {
        object.insert(VALUE.to_owned(), decode(of, value)?);
    } else {
        object.extend(fields(of, value)?);
    }
    Ok(Value::Object(object))
}

fn fields(of: &'static Type, bytes: &[u8]) -> Result<Map<String, Value>, Unreadable> {
    let found = wire::fields(bytes)?;
    let mut object = Map::new();
    let mut rest = found.as_slice();
    while let Some((number, _)) = rest.first() {
        let many = rest.iter().take_while(|(other, _)| other == number).count();
        let (occurrences, after) = rest.split_at(many);
        let field = of.field(*number).ok_or(Unreadable)?;
        object.insert(field.name.clone(), field_value(field, occurrences)?);
        rest = after;
    }
    Ok(object)
}

fn field_value(field: &'static Field, occurrences: &[(u32, Wire<'_>)]) -> Result<Value, Unreadable> {
    if let Some(entry) = field.of().filter(|of| of.is_map_entry) {
        let entries = occurrences.iter().map(|(_, wire)| decode_entry(entry, *wire));
        return entries.collect::<Result<Map<_, _>, _>>().map(Value::Object);
    }
    if field.kind == Kind::Message {
        let of = field.of().ok_or(Unreadable)?;
        if !field.repeated {
            return decode(of, &merged(occurrences)?.unwrap_or_default());
        }
        let items = occurrences.iter().map(|(_, wire)| match wire {
            Wire::Bytes(bytes) => decode(of, bytes),
            _ => Err(Unreadable),
        });
        return items.collect::<Result<_, _>>().map(Value::Array);
    }
    if field.repeated {
        let mut items = Vec::new();
        for (_, wire) in occurrences {
            items.extend(wire::scalars(field.kind, *wire)?.into_iter().map(|value| well_known::shown(field, value)));
        }
        return Ok(Value::Array(items));
    }
    let (_, last) = occurrences.last().ok_or(Unreadable)?;
    Ok(well_known::shown(field, wire::scalar(field.kind, *last)?))
}

fn decode_entry(entry: &'static Type, wire: Wire<'_>) -> Result<(String, Value), Unreadable> {
    let (key, value) = entry.field(1).zip(entry.field(2)).ok_or(Unreadable)?;
    let Wire::Bytes(bytes) = wire else { return Err(Unreadable) };
    let parts = wire::fields(bytes)?;
    let of = |number: u32| parts.iter().filter(|(found, _)| *found == number).copied().collect::<Vec<_>>();
    let name = of(1).last().map_or(Ok(wire::default(key.kind)), |(_, wire)| wire::scalar(key.kind, *wire))?;
    let name = match well_known::shown(key, name) {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let found = of(2);
    let shown = match (value.of().filter(|_| value.kind == Kind::Message), found.last()) {
        (Some(of), _) => decode(of, &merged(&found)?.unwrap_or_default())?,
        (None, Some((_, wire))) => well_known::shown(value, wire::scalar(value.kind, *wire)?),
        (None, None) => well_known::shown(value, wire::default(value.kind)),
    };
    Ok((name, shown))
}
