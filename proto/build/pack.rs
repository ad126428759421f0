//! Envoy's descriptors as the table that `src/describe` reads: without what is not needed, with references as numbers.
//!
//! Kept are the messages that stand in a resource, or in an `Any` in one, and all that these refer to. Services,
//! what they alone use, options and comments are left out: nine tenths of the file.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;

use crate::{
    descriptor::{Enum, FileSet, Message},
    table,
};

/// The packages of what stands in a resource, or in an `Any` in one.
const ROOTS: [&str; 6] =
    ["envoy.config.", "envoy.extensions.", "envoy.type.", "google.protobuf.", "udpa.type.", "xds."];

/// What they hold that is no message of a configuration.
const NOT_ROOTS: [&str; 2] = ["google.protobuf.compiler.", "xds.service."];

/// What goes with the configuration though its package does not.
const MORE_ROOTS: [&str; 1] = ["envoy.service.runtime.v3.Runtime"];

const REPEATED: i32 = 3;

enum Source<'a> {
    Message(&'a Message, bool),
    Enum(&'a Enum),
}

/// The table, encoded.
pub(crate) fn pack(files: &FileSet) -> Result<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    for file in &files.files {
        let prefix = if file.package.is_empty() { String::new() } else { format!("{}.", file.package) };
        collect(&prefix, file.syntax == "proto3", &file.messages, &file.enums, &mut all);
    }
    let mut kept = BTreeSet::new();
    let is_root = |name: &str| {
        ROOTS.iter().any(|root| name.starts_with(root)) && !NOT_ROOTS.iter().any(|not| name.starts_with(not))
    };
    let mut open: Vec<&str> = all.keys().map(String::as_str).filter(|name| is_root(name)).chain(MORE_ROOTS).collect();
    while let Some(name) = open.pop() {
        let (name, source) = all.get_key_value(name).ok_or_else(|| format!("no descriptor of {name}"))?;
        if kept.insert(name.as_str())
            && let Source::Message(message, _) = source
        {
            open.extend(
                message
                    .fields
                    .iter()
                    .map(|field| field.type_name.trim_start_matches('.'))
                    .filter(|name| !name.is_empty()),
            );
        }
    }
    let numbers: BTreeMap<&str, u32> = kept.iter().zip(0..).map(|(name, number)| (*name, number)).collect();
    let types = kept.iter().map(|name| {
        let described = match &all[*name] {
            Source::Message(message, proto3) => described(message, *proto3, &numbers),
            Source::Enum(source) => {
                table::Described { values: values(source), is_enum: true, ..table::Described::default() }
            }
        };
        (*name, described.encode_to_vec())
    });
    Ok(write(types))
}

fn collect<'a>(
    prefix: &str,
    proto3: bool,
    messages: &'a [Message],
    enums: &'a [Enum],
    all: &mut BTreeMap<String, Source<'a>>,
) {
    for source in enums {
        all.insert(format!("{prefix}{}", source.name), Source::Enum(source));
    }
    for message in messages {
        let name = format!("{prefix}{}", message.name);
        collect(&format!("{name}."), proto3, &message.messages, &message.enums, all);
        all.insert(name, Source::Message(message, proto3));
    }
}

fn described(message: &Message, proto3: bool, numbers: &BTreeMap<&str, u32>) -> table::Described {
    let options = message.options.clone().unwrap_or_default();
    let mut fields: Vec<table::Field> = message
        .fields
        .iter()
        .map(|field| {
            let options = field.options.clone().unwrap_or_default();
            let of = numbers.get(field.type_name.trim_start_matches('.')).copied();
            let repeated = field.label == REPEATED;
            // What the compiler makes of `optional` is a oneof of one, of which nobody speaks.
            let oneof = field.oneof.filter(|_| !field.proto3_optional);
            table::Field {
                number: field.number,
                name: field.name.clone(),
                json_name: if field.json_name == table::lower_camel(&field.name) {
                    String::new()
                } else {
                    field.json_name.clone()
                },
                kind: field.kind,
                of: of.unwrap_or_default(),
                repeated,
                presence: !repeated && (!proto3 || field.oneof.is_some()),
                oneof: oneof.map_or(0, |index| index + 1),
                rules: options.rules.unwrap_or_default(),
                disallowed: options.disallowed,
            }
        })
        .collect();
    fields.sort_by_key(|field| field.number);
    let oneofs = message.oneofs.iter().map(|oneof| table::OneOf {
        name: oneof.name.clone(),
        required: oneof.options.as_ref().is_some_and(|options| options.required),
    });
    table::Described {
        fields,
        oneofs: oneofs.collect(),
        values: Vec::new(),
        is_enum: false,
        is_map_entry: options.map_entry,
        unchecked: options.disabled || options.ignored,
    }
}

fn values(source: &Enum) -> Vec<table::EnumValue> {
    let value = |value: &crate::descriptor::EnumValue| table::EnumValue {
        name: value.name.clone(),
        number: value.number,
        disallowed: value.options.as_ref().is_some_and(|options| options.disallowed),
    };
    source.values.iter().map(value).collect()
}

/// The table of `types`, each with its name, which come in the order of their names.
fn write<'a>(types: impl Iterator<Item = (&'a str, Vec<u8>)>) -> Vec<u8> {
    let mut offsets = vec![0];
    let mut bodies: Vec<u8> = Vec::new();
    for (name, described) in types {
        bodies.extend(size(name.len()));
        bodies.extend(name.as_bytes());
        bodies.extend(described);
        offsets.push(bodies.len());
    }
    let mut table: Vec<u8> = size(offsets.len() - 1).into();
    table.extend(offsets.into_iter().flat_map(size));
    table.extend(bodies);
    table
}

fn size(size: usize) -> [u8; 4] {
    u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes()
}
