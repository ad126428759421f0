//! JSON into a value, refusing what `serde_json::Value` would let pass: equal keys, and more than the budget.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Budget, MAX_DEPTH, NODE_SIZE, TextError};

/// Reads the one value that `text` must be.
pub(super) fn value(text: &str) -> Result<Value, TextError> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut budget = Budget::new();
    let value = Node { budget: &mut budget, depth: 0 }.deserialize(&mut deserializer).map_err(text_error)?;
    deserializer.end().map_err(text_error)?;
    Ok(value)
}

#[expect(clippy::needless_pass_by_value, reason = "the signature map_err wants")]
fn text_error(error: serde_json::Error) -> TextError {
    let full = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    TextError {
        line: error.line().max(1),
        column: error.column().max(1),
        reason: full.strip_suffix(&position).unwrap_or(&full).to_owned(),
    }
}

struct Node<'budget> {
    budget: &'budget mut Budget,
    depth: usize,
}

impl Node<'_> {
    fn take<E: Error>(&mut self, text: usize) -> Result<(), E> {
        self.budget.take(NODE_SIZE + text).map_err(E::custom)
    }

    fn child(&mut self) -> Node<'_> {
        Node { budget: self.budget, depth: self.depth + 1 }
    }

    fn enter<E: Error>(&mut self) -> Result<(), E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_DEPTH}")));
        }
        self.take(0)
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(mut self) -> Result<Value, E> {
        self.take(0).map(|()| Value::Null)
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<Value, E> {
        self.take(0).map(|()| value.into())
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<Value, E> {
        self.take(0).map(|()| value.into())
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<Value, E> {
        self.take(0).map(|()| value.into())
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<Value, E> {
        self.take(0).map(|()| value.into())
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<Value, E> {
        self.take(text.len()).map(|()| text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<Value, A::Error> {
        self.enter()?;
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self.child())? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Value, A::Error> {
        self.enter()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            self.take(key.len())?;
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key {key:?} is given twice")));
            }
            let value = entries.next_value_seed(self.child())?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
