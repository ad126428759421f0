//! Texts with a meaning of their own, and what the schema says of them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{ObjectBuilder, Type},
    },
};

use crate::model::Kind;

/// The name of a resource as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NameText(pub String);

impl PartialSchema for NameText {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A name: 1 to 63 of a-z, 0-9 and '-', neither first nor last a hyphen."))
            .pattern(Some("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))
            .examples(["checkout"])
            .into()
    }
}

impl ToSchema for NameText {
    fn name() -> Cow<'static, str> {
        "Name".into()
    }
}

/// A duration as it is written: `250ms`, `10s`, `5m`, `1h`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DurationText(pub String);

impl PartialSchema for DurationText {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A duration: an integer and one of the units ms, s, m and h."))
            .pattern(Some("^[0-9]+(ms|s|m|h)$"))
            .examples(["250ms", "10s", "5m", "1h"])
            .into()
    }
}

impl ToSchema for DurationText {
    fn name() -> Cow<'static, str> {
        "Duration".into()
    }
}

/// A size as it is written: `512B`, `64KiB`, `1MiB`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SizeText(pub String);

impl PartialSchema for SizeText {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A size: an integer and one of the units B, KiB and MiB."))
            .pattern(Some("^[0-9]+(B|KiB|MiB)$"))
            .examples(["512B", "64KiB", "1MiB"])
            .into()
    }
}

impl ToSchema for SizeText {
    fn name() -> Cow<'static, str> {
        "Size".into()
    }
}

/// The status of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StatusNumber(pub u16);

impl PartialSchema for StatusNumber {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .description(Some("The status of an answer."))
            .minimum(Some(100))
            .maximum(Some(599))
            .into()
    }
}

impl ToSchema for StatusNumber {
    fn name() -> Cow<'static, str> {
        "StatusNumber".into()
    }
}

impl PartialSchema for Kind {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("The kind of a resource."))
            .enum_values(Some(Kind::ALL.map(Kind::as_str)))
            .into()
    }
}

impl ToSchema for Kind {
    fn name() -> Cow<'static, str> {
        "Kind".into()
    }
}
