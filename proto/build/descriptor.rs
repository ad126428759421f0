//! What is needed of `google.protobuf.FileDescriptorSet`, options of Envoy and of protoc-gen-validate included.
//!
//! `prost-types` forgets extensions, and these options are extensions: here they are fields like others, by their numbers.

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FileSet {
    #[prost(message, repeated, tag = "1")]
    pub files: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct File {
    #[prost(string, tag = "2")]
    pub package: String,
    #[prost(message, repeated, tag = "4")]
    pub messages: Vec<Message>,
    #[prost(message, repeated, tag = "5")]
    pub enums: Vec<Enum>,
    /// `proto3`, or nothing.
    #[prost(string, tag = "12")]
    pub syntax: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Message {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub fields: Vec<Field>,
    #[prost(message, repeated, tag = "3")]
    pub messages: Vec<Message>,
    #[prost(message, repeated, tag = "4")]
    pub enums: Vec<Enum>,
    #[prost(message, optional, tag = "7")]
    pub options: Option<MessageOptions>,
    #[prost(message, repeated, tag = "8")]
    pub oneofs: Vec<OneOf>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MessageOptions {
    #[prost(bool, tag = "7")]
    pub map_entry: bool,
    /// `validate.disabled`.
    #[prost(bool, tag = "1071")]
    pub disabled: bool,
    /// `validate.ignored`.
    #[prost(bool, tag = "1072")]
    pub ignored: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OneOf {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub options: Option<OneOfOptions>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OneOfOptions {
    /// `validate.required`.
    #[prost(bool, tag = "1071")]
    pub required: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Field {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "3")]
    pub number: u32,
    /// 3: repeated.
    #[prost(int32, tag = "4")]
    pub label: i32,
    #[prost(int32, tag = "5")]
    pub kind: i32,
    /// Of a message or an enumeration, from the root: `.envoy.config.…`.
    #[prost(string, tag = "6")]
    pub type_name: String,
    #[prost(message, optional, tag = "8")]
    pub options: Option<FieldOptions>,
    #[prost(uint32, optional, tag = "9")]
    pub oneof: Option<u32>,
    #[prost(string, tag = "10")]
    pub json_name: String,
    #[prost(bool, tag = "17")]
    pub proto3_optional: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FieldOptions {
    /// `validate.rules`.
    #[prost(bytes = "vec", optional, tag = "1071")]
    pub rules: Option<Vec<u8>>,
    /// `envoy.annotations.disallowed_by_default`.
    #[prost(bool, tag = "189503207")]
    pub disallowed: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Enum {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub values: Vec<EnumValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EnumValue {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int32, tag = "2")]
    pub number: i32,
    #[prost(message, optional, tag = "3")]
    pub options: Option<EnumValueOptions>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EnumValueOptions {
    /// `envoy.annotations.disallowed_by_default_enum`.
    #[prost(bool, tag = "70100853")]
    pub disallowed: bool,
}
