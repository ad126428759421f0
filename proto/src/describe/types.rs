//! Message types and enumerations, each unpacked when it is first met.

use std::sync::{LazyLock, OnceLock};

use prost::Message as _;

use super::{
    rules::Rules,
    table::{self, Described, Table, lower_camel},
};

static TABLE: Table<'static> = Table(include_bytes!(concat!(env!("OUT_DIR"), "/described.bin")));

/// The types that were met; unpacked ones are never dropped.
static TYPES: LazyLock<Vec<OnceLock<Option<Box<Type>>>>> =
    LazyLock::new(|| (0..TABLE.len()).map(|_| OnceLock::new()).collect());

/// A message type or an enumeration.
#[derive(Debug)]
pub struct Type {
    /// The full name: `envoy.config.cluster.v3.Cluster`.
    pub name: &'static str,
    /// The fields of a message, by number.
    pub(super) fields: Vec<Field>,
    /// The oneofs of a message.
    pub(super) oneofs: Vec<table::OneOf>,
    /// The values of an enumeration.
    pub(super) values: Vec<table::EnumValue>,
    /// Whether it is an enumeration.
    pub(super) is_enum: bool,
    /// Whether it is an entry of a map.
    pub(super) is_map_entry: bool,
    /// Whether its own rules are not to be looked at.
    pub(super) unchecked: bool,
    /// What it stands for, beside the other fields it has.
    pub(super) well_known: Option<WellKnown>,
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: String,
    /// The name in JSON, if it is not made from the name.
    json_name: Option<String>,
    pub(super) kind: Kind,
    of: u32,
    pub(super) repeated: bool,
    /// Whether a scalar that is its default differs from one that is not there.
    pub(super) presence: bool,
    /// The index of its oneof.
    pub(super) oneof: Option<usize>,
    pub(super) rules: Rules,
    pub(super) disallowed: bool,
}

/// What is on the wire for a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    String,
    Message,
    Bytes,
    Uint32,
    Enum,
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
}

/// The messages that have a form of their own in JSON, and to which the rules of what they stand for apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WellKnown {
    Any,
    Duration,
    Timestamp,
    /// A scalar that may be absent, in the field 1.
    Wrapper,
    Struct,
    Value,
    ListValue,
}

impl Type {
    /// The type of this full name, if it may stand in a resource of Envoy.
    pub fn named(name: &str) -> Option<&'static Self> {
        let (mut low, mut high) = (0, TABLE.len());
        while low < high {
            let middle = low.midpoint(high);
            match TABLE.entry(middle)?.0.cmp(name) {
                std::cmp::Ordering::Equal => return Self::at(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    /// The message type that a type URL means.
    pub fn of_url(type_url: &str) -> Option<&'static Self> {
        Self::named(crate::type_url::message_name(type_url)).filter(|found| !found.is_enum)
    }

    /// The names of all types, in order.
    pub fn names() -> impl Iterator<Item = &'static str> {
        (0..TABLE.len()).filter_map(|index| Some(TABLE.entry(index)?.0))
    }

    /// The names of its fields that hold a text.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(|field| field.kind == Kind::String).map(|field| field.name.as_str())
    }

    fn at(index: usize) -> Option<&'static Self> {
        let unpack = || {
            let (name, described) = TABLE.entry(index)?;
            Some(Box::new(Self::unpack(name, Described::decode(described).ok()?)))
        };
        TYPES.get(index)?.get_or_init(unpack).as_deref()
    }

    fn unpack(name: &'static str, described: Described) -> Self {
        let Described { fields, oneofs, values, is_enum, is_map_entry, unchecked } = described;
        let fields = fields.into_iter().filter_map(Field::unpack).collect();
        Self { name, fields, oneofs, values, is_enum, is_map_entry, unchecked, well_known: WellKnown::of(name) }
    }

    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        self.fields.binary_search_by_key(&number, |field| field.number).ok().map(|index| &self.fields[index])
    }

    /// A field by the name it has in the `.proto` file or in JSON.
    pub(super) fn field_named(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name).or_else(|| {
            self.fields.iter().find(|field| match &field.json_name {
                Some(own) => own == name,
                None => lower_camel(&field.name) == name,
            })
        })
    }
}

impl Field {
    fn unpack(field: table::Field) -> Option<Self> {
        let table::Field { number, name, json_name, kind, of, repeated, presence, oneof, rules, disallowed } = field;
        Some(Self {
            number,
            name,
            json_name: Some(json_name).filter(|own| !own.is_empty()),
            kind: Kind::of(kind)?,
            of,
            repeated,
            presence,
            oneof: (oneof as usize).checked_sub(1),
            rules: Rules::decode(&rules),
            disallowed,
        })
    }

    /// The message or enumeration that it holds.
    pub(super) fn of(&self) -> Option<&'static Type> {
        if matches!(self.kind, Kind::Message | Kind::Enum) { Type::at(self.of as usize) } else { None }
    }
}

impl Kind {
    /// By `google.protobuf.FieldDescriptorProto.Type`; Envoy has no groups.
    fn of(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::Double,
            2 => Self::Float,
            3 => Self::Int64,
            4 => Self::Uint64,
            5 => Self::Int32,
            6 => Self::Fixed64,
            7 => Self::Fixed32,
            8 => Self::Bool,
            9 => Self::String,
            11 => Self::Message,
            12 => Self::Bytes,
            13 => Self::Uint32,
            14 => Self::Enum,
            15 => Self::Sfixed32,
            16 => Self::Sfixed64,
            17 => Self::Sint32,
            18 => Self::Sint64,
            _ => return None,
        })
    }
}

impl WellKnown {
    fn of(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("google.protobuf.")? {
            "Any" => Self::Any,
            "Duration" => Self::Duration,
            "Timestamp" => Self::Timestamp,
            "Struct" => Self::Struct,
            "Value" => Self::Value,
            "ListValue" => Self::ListValue,
            name if name.ends_with("Value") && name != "NullValue" => Self::Wrapper,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_can_be_unpacked_and_every_reference_leads_somewhere() {
        let mut rules = 0;
        for index in 0..TABLE.len() {
            let found = Type::at(index).unwrap_or_else(|| panic!("type {index}"));
            for field in &found.fields {
                let refers = matches!(field.kind, Kind::Message | Kind::Enum);
                assert_eq!(field.of().is_some(), refers, "{}.{}", found.name, field.name);
                assert_eq!(field.rules.misread, None, "{}.{}", found.name, field.name);
                rules += usize::from(!field.rules.is_empty());
            }
        }
        assert!(rules > 1000, "found only {rules} rules");
    }

    #[test]
    fn types_are_found_by_name() {
        for name in Type::names() {
            assert_eq!(Type::named(name).map(|found| found.name), Some(name));
        }
        for name in ["", "envoy", "envoy.config.cluster.v3.Clusters", "zzz"] {
            assert!(Type::named(name).is_none(), "{name}");
        }
        assert!(Type::of_url("type.googleapis.com/envoy.config.cluster.v3.Cluster").is_some());
        assert!(Type::of_url("type.googleapis.com/envoy.config.cluster.v3.Cluster.DiscoveryType").is_none());
    }

    #[test]
    fn fields_are_found_by_both_names() {
        let cluster = Type::named("envoy.config.cluster.v3.Cluster").unwrap();
        for name in ["connect_timeout", "connectTimeout"] {
            assert_eq!(cluster.field_named(name).map(|field| field.number), Some(4));
        }
        assert!(cluster.field_named("ConnectTimeout").is_none());
    }
}
