//! From JSON to bytes.

use std::collections::BTreeMap;

use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Map, Value};

use super::{TYPE, VALUE, well_known};
use crate::describe::{
    Violation,
    check::unknown_type,
    findings::{Findings, Step},
    types::{Field, Kind, Type, WellKnown},
};

/// How deep objects may be nested; `serde_json` reads none that are deeper.
const DEEPEST: usize = 128;

/// `value` as a message of type `of`, encoded, or everything that cannot be read.
pub fn encode(of: &'static Type, value: &Value) -> Result<Vec<u8>, Vec<Violation>> {
    let mut encode = Encode { findings: Findings::default() };
    let bytes = encode.message(of, value);
    if encode.findings.is_empty() { Ok(bytes) } else { Err(encode.findings.into_found()) }
}

struct Encode {
    findings: Findings,
}

impl Encode {
    fn report(&mut self, reason: impl Into<String>) {
        self.findings.report(reason);
    }

    fn at<T>(&mut self, step: Step, look: impl FnOnce(&mut Self) -> T) -> T {
        self.findings.enter(step);
        let result = look(self);
        self.findings.leave();
        result
    }

    fn message(&mut self, of: &'static Type, value: &Value) -> Vec<u8> {
        if self.findings.depth() > DEEPEST {
            self.report("is nested too deeply");
            return Vec::new();
        }
        match of.well_known {
            None => match value {
                Value::Object(object) => self.fields(of, object),
                other => self.expected("an object", other),
            },
            Some(WellKnown::Any) => self.any(value),
            Some(WellKnown::Wrapper) => {
                let mut bytes = Vec::new();
                if let Some(inner) = of.field(1) {
                    self.field(inner, value, &mut bytes);
                }
                bytes
            }
            Some(well_known) => {
                well_known::encode(well_known, value).unwrap_or_else(|expected| self.expected(expected, value))
            }
        }
    }

    fn expected(&mut self, expected: &str, found: &Value) -> Vec<u8> {
        self.report(format!("must be {expected}, not {}", well_known::noun(found)));
        Vec::new()
    }

    fn fields(&mut self, of: &'static Type, object: &Map<String, Value>) -> Vec<u8> {
        let mut given: BTreeMap<u32, (&'static Field, &Value)> = BTreeMap::new();
        let mut chosen: BTreeMap<usize, &str> = BTreeMap::new();
        for (name, value) in object {
            let Some(field) = of.field_named(name) else {
                self.at(Step::Field(name.clone()), |encode| encode.report(format!("is not a field of {}", of.name)));
                continue;
            };
            // `null` is the same as nothing, except where it is a value.
            if value.is_null() && field.of().is_none_or(|of| of.well_known != Some(WellKnown::Value)) {
                continue;
            }
            if given.insert(field.number, (field, value)).is_some() {
                self.at(Step::Field(name.clone()), |encode| encode.report("is given twice"));
            }
            if let Some(other) = field.oneof.and_then(|oneof| chosen.insert(oneof, name)) {
                let reason = format!("cannot be given beside {other}");
                self.at(Step::Field(name.clone()), |encode| encode.report(reason));
            }
        }
        let mut bytes = Vec::new();
        for (field, value) in given.into_values() {
            self.at(Step::Known(&field.name), |encode| encode.field(field, value, &mut bytes));
        }
        bytes
    }

    fn field(&mut self, field: &'static Field, value: &Value, bytes: &mut Vec<u8>) {
        if let Some(entry) = field.of().filter(|of| of.is_map_entry) {
            let Value::Object(object) = value else {
                self.expected("an object", value);
                return;
            };
            // By their keys, whatever order the object keeps.
            for (key, value) in object.iter().collect::<BTreeMap<_, _>>() {
                let encoded = self.at(Step::Key(key.clone()), |encode| encode.entry(entry, key, value));
                length_delimited(field.number, &encoded, bytes);
            }
        } else if field.repeated {
            let Value::Array(items) = value else {
                self.expected("a list", value);
                return;
            };
            let packs = !matches!(field.kind, Kind::Message | Kind::String | Kind::Bytes);
            let mut packed = Vec::new();
            for (index, item) in items.iter().enumerate() {
                self.at(Step::Index(index), |encode| {
                    if packs {
                        encode.scalar(field, item, &mut packed);
                    } else {
                        encode.single(field, item, bytes);
                    }
                });
            }
            if !packed.is_empty() {
                length_delimited(field.number, &packed, bytes);
            }
        } else {
            self.single(field, value, bytes);
        }
    }

    fn entry(&mut self, entry: &'static Type, key: &str, value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let (Some(name), Some(content)) = (entry.field(1), entry.field(2)) {
            self.single(name, &Value::String(key.to_owned()), &mut bytes);
            self.single(content, value, &mut bytes);
        }
        bytes
    }

    /// A value with its key, unless it is what the field is without it.
    fn single(&mut self, field: &'static Field, value: &Value, bytes: &mut Vec<u8>) {
        if field.kind == Kind::Message {
            if let Some(of) = field.of() {
                let encoded = self.message(of, value);
                length_delimited(field.number, &encoded, bytes);
            }
            return;
        }
        let mut encoded = Vec::new();
        let Some(is_default) = self.scalar(field, value, &mut encoded) else { return };
        if is_default && !field.presence && !field.repeated {
            return;
        }
        match field.kind {
            Kind::String | Kind::Bytes => length_delimited(field.number, &encoded, bytes),
            kind => {
                encode_key(field.number, wire_type(kind), bytes);
                bytes.extend(encoded);
            }
        }
    }

    /// A value without its key; whether it is the default of its kind, unless it cannot be read.
    fn scalar(&mut self, field: &'static Field, value: &Value, bytes: &mut Vec<u8>) -> Option<bool> {
        match well_known::scalar(field, value, bytes) {
            Ok(is_default) => Some(is_default),
            Err(expected) => {
                self.expected(&expected, value);
                None
            }
        }
    }

    fn any(&mut self, value: &Value) -> Vec<u8> {
        let Value::Object(object) = value else { return self.expected("an object with its type in @type", value) };
        let type_url = match object.get(TYPE) {
            Some(Value::String(type_url)) => type_url,
            None if object.is_empty() => return Vec::new(),
            None => {
                self.at(Step::Known(TYPE), |encode| encode.report("is required"));
                return Vec::new();
            }
            Some(other) => return self.at(Step::Known(TYPE), |encode| encode.expected("a type URL", other)),
        };
        let Some(of) = Type::of_url(type_url) else {
            self.at(Step::Known(TYPE), |encode| encode.report(unknown_type(type_url)));
            return Vec::new();
        };
        let message = if of.well_known.is_some() {
            self.at(Step::Known(VALUE), |encode| encode.message(of, object.get(VALUE).unwrap_or(&Value::Null)))
        } else {
            let rest = object.iter().filter(|(name, _)| *name != TYPE);
            self.fields(of, &rest.map(|(name, value)| (name.clone(), value.clone())).collect())
        };
        let mut bytes = Vec::new();
        length_delimited(1, type_url.as_bytes(), &mut bytes);
        if !message.is_empty() {
            length_delimited(2, &message, &mut bytes);
        }
        bytes
    }
}

pub(super) fn length_delimited(number: u32, value: &[u8], bytes: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, bytes);
    encode_varint(value.len() as u64, bytes);
    bytes.extend_from_slice(value);
}

fn wire_type(kind: Kind) -> WireType {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::SixtyFourBit,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::ThirtyTwoBit,
        Kind::String | Kind::Bytes | Kind::Message => WireType::LengthDelimited,
        _ => WireType::Varint,
    }
}
