//! The table of message types as it lies in the binary. Packed by `build.rs`, which includes this file, and read by
//! [`types`](super::types).
//!
//! `count`, then `count + 1` offsets, then the types in the order of their names: the length of the name, the
//! name, the type as [`Described`]; numbers are `u32`, least byte first. One type can be found and read without the others, so
//! a program pays for those it meets, and for the rest only with pages that are never touched.

/// A message or an enumeration.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Described {
    /// Of a message, by number.
    #[prost(message, repeated, tag = "1")]
    pub fields: Vec<Field>,
    #[prost(message, repeated, tag = "2")]
    pub oneofs: Vec<OneOf>,
    #[prost(message, repeated, tag = "3")]
    pub values: Vec<EnumValue>,
    #[prost(bool, tag = "4")]
    pub is_enum: bool,
    #[prost(bool, tag = "5")]
    pub is_map_entry: bool,
    /// Its own rules are not to be looked at.
    #[prost(bool, tag = "6")]
    pub unchecked: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Field {
    #[prost(uint32, tag = "1")]
    pub number: u32,
    #[prost(string, tag = "2")]
    pub name: String,
    /// The name in JSON, if it is not [`lower_camel`] of the name.
    #[prost(string, tag = "3")]
    pub json_name: String,
    /// `google.protobuf.FieldDescriptorProto.Type`.
    #[prost(int32, tag = "4")]
    pub kind: i32,
    /// Of a message or an enumeration: its place in the table.
    #[prost(uint32, tag = "5")]
    pub of: u32,
    #[prost(bool, tag = "6")]
    pub repeated: bool,
    /// Whether a scalar that is its default differs from one that is not there.
    #[prost(bool, tag = "7")]
    pub presence: bool,
    /// Its oneof, counted from 1.
    #[prost(uint32, tag = "8")]
    pub oneof: u32,
    /// `validate.FieldRules`, encoded.
    #[prost(bytes = "vec", tag = "9")]
    pub rules: Vec<u8>,
    /// Refused by Envoy unless a runtime flag says otherwise.
    #[prost(bool, tag = "10")]
    pub disallowed: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OneOf {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(bool, tag = "2")]
    pub required: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EnumValue {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int32, tag = "2")]
    pub number: i32,
    #[prost(bool, tag = "3")]
    pub disallowed: bool,
}

/// A table as the build script packs it.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a>(pub &'a [u8]);

impl<'a> Table<'a> {
    /// How many types there are.
    pub(crate) fn len(self) -> usize {
        self.number(0)
    }

    /// The name of a type, and what it is.
    pub(crate) fn entry(self, index: usize) -> Option<(&'a str, &'a [u8])> {
        let bodies = self.0.get(4 * (self.len() + 2)..)?;
        let body = bodies.get(self.number(index + 1)..self.number(index + 2))?;
        let (length, rest) = body.split_first_chunk()?;
        let (name, described) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        Some((std::str::from_utf8(name).ok()?, described))
    }

    fn number(self, index: usize) -> usize {
        let bytes = self.0.get(4 * index..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize)
    }
}

/// The name that a field has in JSON unless its author gave it another.
pub(crate) fn lower_camel(name: &str) -> String {
    let mut result = String::with_capacity(name.len());
    let mut upper = false;
    for character in name.chars() {
        match character {
            '_' => upper = true,
            other if upper => {
                result.push(other.to_ascii_uppercase());
                upper = false;
            }
            other => result.push(other),
        }
    }
    result
}
