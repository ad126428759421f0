//! Metadata as bytes, always the same ones: maps have no order in memory and would get another one on the wire each time, so they are
//! written in the order of their keys.

use std::{collections::BTreeMap, iter};

use chancery_proto::{
    Message,
    envoy::core::Metadata,
    google::protobuf::{Struct, Value, value::Kind},
};
use prost::encoding;

/// The key under which Envoy's balancer looks for the labels of endpoints, and for those that a route wants.
const BALANCER: &str = "envoy.lb";

/// `envoy.config.core.v3.Metadata.filter_metadata`.
const FILTER_METADATA: u32 = 1;

/// `google.protobuf.Struct.fields`.
const FIELDS: u32 = 1;

/// `google.protobuf.Value.struct_value`.
const STRUCT_VALUE: u32 = 5;

/// `labels`, for Envoy's balancer; none if there are none.
pub(super) fn of_labels(labels: &BTreeMap<String, String>) -> Option<Metadata> {
    (!labels.is_empty()).then(|| Metadata {
        filter_metadata: iter::once((BALANCER.to_owned(), object(labels))).collect(),
        ..Metadata::default()
    })
}

/// `labels` as an object.
pub(super) fn object(labels: &BTreeMap<String, String>) -> Struct {
    let text = |value: &String| Value { kind: Some(Kind::StringValue(value.clone())) };
    Struct { fields: labels.iter().map(|(key, value)| (key.clone(), text(value))).collect() }
}

/// Appends `metadata` as the field `number` of a message, if there are any.
pub(super) fn encode(number: u32, metadata: Option<Metadata>, bytes: &mut Vec<u8>) {
    let Some(mut metadata) = metadata else { return };
    let by_filter = std::mem::take(&mut metadata.filter_metadata);
    let mut ordered = metadata.encode_to_vec();
    entries(FILTER_METADATA, by_filter.into_iter().map(|(filter, own)| (filter, encode_struct(own))), &mut ordered);
    encoding::bytes::encode(number, &ordered, bytes);
}

/// An object, in the order of its keys.
pub(super) fn encode_struct(object: Struct) -> Vec<u8> {
    let mut bytes = Vec::new();
    entries(FIELDS, object.fields.into_iter().map(|(name, value)| (name, encode_value(value))), &mut bytes);
    bytes
}

/// Objects are in objects only; there are no lists.
fn encode_value(value: Value) -> Vec<u8> {
    match value.kind {
        Some(Kind::StructValue(object)) => {
            let mut bytes = Vec::new();
            encoding::bytes::encode(STRUCT_VALUE, &encode_struct(object), &mut bytes);
            bytes
        }
        _ => value.encode_to_vec(),
    }
}

/// A map whose values are messages that are encoded already.
fn entries(tag: u32, entries: impl Iterator<Item = (String, Vec<u8>)>, bytes: &mut Vec<u8>) {
    encoding::btree_map::encode(
        encoding::string::encode,
        encoding::string::encoded_len,
        encoding::bytes::encode,
        encoding::bytes::encoded_len,
        tag,
        &entries.collect::<BTreeMap<_, _>>(),
        bytes,
    );
}
