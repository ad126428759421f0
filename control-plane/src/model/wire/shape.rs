//! Whether a JSON value has the shape of a wire type, with every place where it does not.
//!
//! serde stops at its first error, and a user who fixes one misspelt field wants to hear of the other three at the
//! same time. So the JSON Schema that utoipa derives from a wire type is turned into a [`Shape`] once, and values
//! are checked against it before serde reads them. Only what our wire types use is understood (types, required and
//! unknown fields, maps, lists, enumerations, bounds); a test holds that none of them falls back to
//! [`Shape::Anything`] by accident.

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::{
    Number, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{AdditionalProperties, ArrayItems, Object, SchemaType, Type},
    },
};

use crate::model::problem::{Problems, Quoted};

/// The shape of a JSON value.
#[derive(Debug)]
pub(in crate::model) enum Shape {
    /// Whatever it is.
    Anything,
    /// `null`, or the shape.
    Optional(Box<Shape>),
    /// `true` or `false`.
    Boolean,
    /// An integer within bounds.
    Integer { least: i128, most: i128 },
    /// A number within bounds.
    Number { least: f64, most: f64 },
    /// A text, with an example if it is more than that.
    Text { example: Option<String> },
    /// One of several texts.
    OneOf(Vec<String>),
    /// A list with bounds on its length.
    List { items: Box<Shape>, least: usize, most: usize },
    /// One of several that differ in their types in JSON.
    Either(Vec<Shape>),
    /// An object with free keys.
    Map(Box<Shape>),
    /// An object with known fields only, in the order of their declaration.
    Fields(Vec<Field>),
}

/// A field of an object.
#[derive(Debug)]
pub(in crate::model) struct Field {
    name: String,
    shape: Shape,
    required: bool,
}

impl Shape {
    /// The shape of a wire type, by its schema.
    pub(in crate::model) fn of<T: ToSchema>() -> Self {
        let mut components = Vec::new();
        T::schemas(&mut components);
        Self::of_reference(&T::schema(), &components.into_iter().collect())
    }

    fn of_reference(schema: &RefOr<Schema>, components: &BTreeMap<String, RefOr<Schema>>) -> Self {
        match schema {
            RefOr::T(schema) => Self::of_schema(schema, components),
            RefOr::Ref(reference) => reference
                .ref_location
                .rsplit('/')
                .next()
                .and_then(|name| components.get(name))
                .map_or(Self::Anything, |schema| Self::of_reference(schema, components)),
        }
    }

    fn of_schema(schema: &Schema, components: &BTreeMap<String, RefOr<Schema>>) -> Self {
        match schema {
            Schema::Object(object) => optional(&object.schema_type, |of| Self::of_object(of, object, components)),
            Schema::Array(array) => optional(&array.schema_type, |_| match &array.items {
                ArrayItems::RefOrSchema(items) => Self::List {
                    items: Box::new(Self::of_reference(items, components)),
                    least: array.min_items.unwrap_or(0),
                    most: array.max_items.unwrap_or(usize::MAX),
                },
                ArrayItems::False => Self::Anything,
            }),
            // An optional component, which is `null` or a reference, or one of several.
            Schema::OneOf(one_of) => {
                let (nulls, others): (Vec<_>, Vec<_>) = one_of.items.iter().partition(|item| is_null(item));
                match others[..] {
                    [other] if !nulls.is_empty() => Self::Optional(Box::new(Self::of_reference(other, components))),
                    [_, _, ..] if nulls.is_empty() => {
                        Self::Either(others.into_iter().map(|one| Self::of_reference(one, components)).collect())
                    }
                    _ => Self::Anything,
                }
            }
            _ => Self::Anything,
        }
    }

    fn of_object(of: &Type, object: &Object, components: &BTreeMap<String, RefOr<Schema>>) -> Self {
        match of {
            Type::Boolean => Self::Boolean,
            Type::Integer => Self::Integer {
                least: object.minimum.as_ref().map_or(i64::MIN.into(), integer),
                most: object.maximum.as_ref().map_or(i64::MAX.into(), integer),
            },
            Type::String => match &object.enum_values {
                Some(values) => Self::OneOf(values.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
                None => Self::Text { example: object.examples.first().and_then(Value::as_str).map(str::to_owned) },
            },
            Type::Object => {
                let values = match object.additional_properties.as_deref() {
                    Some(AdditionalProperties::RefOr(values)) => Self::of_reference(values, components),
                    Some(AdditionalProperties::FreeForm(true)) => Self::Anything,
                    None if object.properties.is_empty() => Self::Anything,
                    None | Some(AdditionalProperties::FreeForm(false)) => {
                        let field = |(name, schema): (&String, &RefOr<Schema>)| Field {
                            name: name.clone(),
                            shape: Self::of_reference(schema, components),
                            required: object.required.contains(name),
                        };
                        return Self::Fields(object.properties.iter().map(field).collect());
                    }
                };
                Self::Map(Box::new(values))
            }
            Type::Number => Self::Number {
                least: object.minimum.as_ref().map_or(f64::MIN, float),
                most: object.maximum.as_ref().map_or(f64::MAX, float),
            },
            Type::Array | Type::Null => Self::Anything,
        }
    }

    /// Reports every place of `value` that does not have this shape.
    pub(in crate::model) fn check(&self, value: &Value, problems: &mut Problems) {
        match (self, value) {
            (Self::Anything, _) | (Self::Text { .. }, Value::String(_)) | (Self::Boolean, Value::Bool(_)) => {}
            (Self::Optional(_), Value::Null) => {}
            (Self::Optional(shape), value) => shape.check(value, problems),
            (Self::Integer { least, most }, Value::Number(number)) => match number.as_i128() {
                None => problems.report(format!("must be an integer, not {number}")),
                Some(number) if (*least..=*most).contains(&number) => {}
                Some(_) => problems.report(format!("must be between {least} and {most}, not {number}")),
            },
            (Self::Number { least, most }, Value::Number(number)) => {
                if !number.as_f64().is_some_and(|number| (*least..=*most).contains(&number)) {
                    problems.report(format!("must be between {least} and {most}, not {number}"));
                }
            }
            (Self::OneOf(known), Value::String(text)) => {
                if !known.contains(text) {
                    let suggestion = suggestion(text, known.iter().map(String::as_str));
                    problems.report(format!("must be one of {}, not {}{suggestion}", known.join(", "), Quoted(text)));
                }
            }
            (Self::List { items, least, most }, Value::Array(values)) => {
                let length = values.len();
                if length > *most {
                    problems.report(format!("must have at most {most} entries, not {length}"));
                    return;
                }
                if length < *least {
                    problems.report(if length == 0 {
                        "must not be empty".to_owned()
                    } else {
                        format!("must have at least {least} entries, not {length}")
                    });
                }
                for (index, value) in values.iter().enumerate() {
                    items.check(value, &mut problems.index(index));
                }
            }
            (Self::Either(shapes), value) if shapes.iter().any(|shape| shape.is_of_type(value)) => {
                shapes
                    .iter()
                    .filter(|shape| shape.is_of_type(value))
                    .take(1)
                    .for_each(|shape| shape.check(value, problems));
            }
            (Self::Map(values), Value::Object(map)) => {
                for (key, value) in map {
                    values.check(value, &mut problems.at(key));
                }
            }
            (Self::Fields(fields), Value::Object(map)) => check_fields(fields, map, problems),
            (expected, found) => {
                // What YAML takes for a number or a boolean may have been meant as a string.
                let unquoted = matches!(expected.inner(), Self::Text { example: None })
                    && matches!(found, Value::Bool(_) | Value::Number(_));
                let hint = if unquoted { "; put it in quotes" } else { "" };
                problems.report(format!("must be {}, not {}{hint}", expected.noun(), noun(found)));
            }
        }
    }

    /// Whether `value` is at least of the same type in JSON.
    fn is_of_type(&self, value: &Value) -> bool {
        match self {
            Self::Anything => true,
            Self::Optional(shape) => value.is_null() || shape.is_of_type(value),
            Self::Boolean => value.is_boolean(),
            Self::Integer { .. } | Self::Number { .. } => value.is_number(),
            Self::Text { .. } | Self::OneOf(_) => value.is_string(),
            Self::List { .. } => value.is_array(),
            Self::Either(shapes) => shapes.iter().any(|shape| shape.is_of_type(value)),
            Self::Map(_) | Self::Fields(_) => value.is_object(),
        }
    }

    /// The shape of a value that is there.
    fn inner(&self) -> &Self {
        match self {
            Self::Optional(shape) => shape.inner(),
            shape => shape,
        }
    }

    /// What is expected, in a sentence.
    fn noun(&self) -> String {
        match self {
            Self::Anything => "anything".to_owned(),
            Self::Optional(shape) => shape.noun(),
            Self::Boolean => "true or false".to_owned(),
            Self::Integer { .. } => "an integer".to_owned(),
            Self::Number { .. } => "a number".to_owned(),
            Self::Text { example: None } => "a string".to_owned(),
            Self::Text { example: Some(example) } => format!("a string such as {example}"),
            Self::OneOf(known) => format!("one of {}", known.join(", ")),
            Self::List { .. } => "a list".to_owned(),
            Self::Either(shapes) => shapes.iter().map(Self::noun).collect::<Vec<_>>().join(", or "),
            Self::Map(_) | Self::Fields(_) => "an object".to_owned(),
        }
    }
}

fn check_fields(fields: &[Field], map: &serde_json::Map<String, Value>, problems: &mut Problems) {
    for field in fields {
        match map.get(&field.name) {
            Some(value) => field.shape.check(value, &mut problems.at(&field.name)),
            None if field.required => problems.at(&field.name).report("is required"),
            None => {}
        }
    }
    for key in map.keys().filter(|key| !fields.iter().any(|field| field.name == **key)) {
        let names = || fields.iter().map(|field| field.name.as_str());
        let suggestion = suggestion(key, names());
        let mut place = problems.at(key);
        if suggestion.is_empty() {
            let known: Vec<&str> = names().collect();
            place.report(format!("is not a known field; known are {}", known.join(", ")));
        } else {
            place.report(format!("is not a known field{suggestion}"));
        }
    }
}

/// What stands there instead, in a sentence.
fn noun(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => format!("the number {value}"),
        Value::String(text) => format!("the string {}", Quoted(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn optional(schema_type: &SchemaType, shape: impl FnOnce(&Type) -> Shape) -> Shape {
    match schema_type {
        SchemaType::Type(of) => shape(of),
        SchemaType::Array(types) => match types[..] {
            [ref of, Type::Null] | [Type::Null, ref of] => Shape::Optional(Box::new(shape(of))),
            _ => Shape::Anything,
        },
        SchemaType::AnyValue => Shape::Anything,
    }
}

fn is_null(schema: &RefOr<Schema>) -> bool {
    matches!(schema, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null))
}

fn integer(number: &Number) -> i128 {
    match number {
        Number::Int(value) => *value as i128,
        Number::UInt(value) => *value as i128,
        Number::Float(value) => *value as i128,
    }
}

fn float(number: &Number) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
    match number {
        Number::Int(value) => *value as f64,
        Number::UInt(value) => *value as f64,
        Number::Float(value) => *value,
    }
}

/// `; did you mean …?` if one of `known` is close to `text`; nothing otherwise.
pub fn suggestion<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> String {
    if text.len() > 40 {
        return String::new();
    }
    let allowed = 1 + text.len() / 5;
    known
        .map(|candidate| (distance(&text.to_lowercase(), &candidate.to_lowercase()), candidate))
        .min()
        .filter(|(distance, _)| *distance <= allowed)
        .map(|(_, candidate)| format!("; did you mean {candidate}?"))
        .unwrap_or_default()
}

/// How many characters are to be inserted, removed or replaced (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::super::{
        Envelope, EnvoyPatchSpec, FleetSpec, ListenerSpec, RateLimitSpec, RouteSpec, ServiceSpec, Wire,
    };
    use super::*;

    fn anything(shape: &Shape, path: &str, found: &mut Vec<String>) {
        match shape {
            Shape::Anything => found.push(path.to_owned()),
            Shape::Optional(shape) => anything(shape, path, found),
            Shape::List { items, .. } => anything(items, &format!("{path}[]"), found),
            Shape::Either(shapes) => shapes.iter().for_each(|shape| anything(shape, path, found)),
            Shape::Map(values) => anything(values, &format!("{path}.*"), found),
            Shape::Fields(fields) => {
                for field in fields {
                    anything(&field.shape, &format!("{path}.{}", field.name), found);
                }
            }
            Shape::Boolean | Shape::Integer { .. } | Shape::Number { .. } | Shape::Text { .. } | Shape::OneOf(_) => {}
        }
    }

    fn specs() -> [&'static Shape; 6] {
        [
            FleetSpec::shape(),
            ListenerSpec::shape(),
            ServiceSpec::shape(),
            RateLimitSpec::shape(),
            RouteSpec::shape(),
            EnvoyPatchSpec::shape(),
        ]
    }

    #[test]
    fn every_construct_of_the_wire_types_is_understood() {
        let mut found = Vec::new();
        for shape in std::iter::once(Envelope::shape()).chain(specs()) {
            anything(shape, "", &mut found);
        }
        // Of the envelope; of a log what may be an object in an object; and of a patch what Envoy gives its meaning.
        let of_envelope = [".spec.*", ".revision", ".updatedAt", ".updatedBy"];
        assert_eq!(found, [&of_envelope[..], &[".accessLogs[].json.*", ".resource.*", ".merge.*"]].concat());
    }

    #[test]
    fn every_integer_is_bounded_as_serde_bounds_it() {
        fn check(shape: &Shape) {
            match shape {
                Shape::Integer { least, most } => assert!(*least >= 0 && *most <= i128::from(u32::MAX), "{shape:?}"),
                Shape::Optional(shape) | Shape::List { items: shape, .. } | Shape::Map(shape) => {
                    check(shape);
                }
                Shape::Either(shapes) => shapes.iter().for_each(check),
                Shape::Fields(fields) => fields.iter().for_each(|field| check(&field.shape)),
                Shape::Anything | Shape::Boolean | Shape::Number { .. } | Shape::Text { .. } | Shape::OneOf(_) => {}
            }
        }
        specs().into_iter().for_each(check);
    }

    #[test]
    fn suggestions_are_near() {
        let known = ["timeout", "retry", "to"];
        let of = |text| suggestion(text, known.into_iter());
        assert_eq!(of("timout"), "; did you mean timeout?");
        assert_eq!(of("timeOut"), "; did you mean timeout?");
        assert_eq!(of("retrys"), "; did you mean retry?");
        assert_eq!(of("rateLimits"), "");
    }
}
