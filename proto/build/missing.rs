//! Messages that Envoy takes in an `Any` and that its descriptors lack, since none of its own messages refers to them.
//! `src/cel.rs` has them as types.

use crate::descriptor::{Field, File, Message};

const OPTIONAL: i32 = 1;
const STRING: i32 = 9;
const MESSAGE: i32 = 11;

/// `xds/type/matcher/v3/cel.proto` and `http_inputs.proto`.
pub(crate) fn cel_matchers() -> File {
    let field = |number, name: &str, json_name: &str, kind, type_name: &str| Field {
        name: name.to_owned(),
        number,
        label: OPTIONAL,
        kind,
        type_name: type_name.to_owned(),
        json_name: json_name.to_owned(),
        ..Field::default()
    };
    let matcher = vec![
        field(1, "expr_match", "exprMatch", MESSAGE, ".xds.type.v3.CelExpression"),
        field(2, "description", "description", STRING, ""),
    ];
    let message = |name: &str, fields| Message { name: name.to_owned(), fields, ..Message::default() };
    File {
        package: "xds.type.matcher.v3".to_owned(),
        syntax: "proto3".to_owned(),
        messages: vec![message("CelMatcher", matcher), message("HttpAttributesCelMatchInput", Vec::new())],
        ..File::default()
    }
}
