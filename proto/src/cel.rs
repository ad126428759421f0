//! Conditions in the Common Expression Language (CEL), as matchers of Envoy take them: parsed, for Envoy 1.40 parses none.
//!
//! The two messages here are missing from `envoy-types`, since none of Envoy's own refers to them. `build/missing.rs` has them too,
//! for the table of descriptors.

use envoy_types::pb::{
    cel::expr::{
        Constant, Expr, ParsedExpr,
        constant::ConstantKind,
        expr::{Call, ExprKind, Ident, Select},
    },
    xds::r#type::v3::CelExpression,
};
use prost::{Message, Name};

/// `xds.type.matcher.v3.HttpAttributesCelMatchInput`: the attributes of a request, for [`CelMatcher`].
#[derive(Clone, PartialEq, Message)]
pub struct HttpAttributesCelMatchInput {}

impl Name for HttpAttributesCelMatchInput {
    const NAME: &'static str = "HttpAttributesCelMatchInput";
    const PACKAGE: &'static str = "xds.type.matcher.v3";

    fn type_url() -> String {
        format!("type.googleapis.com/{}", Self::full_name())
    }
}

/// `xds.type.matcher.v3.CelMatcher`: whether an expression holds.
#[derive(Clone, PartialEq, Message)]
pub struct CelMatcher {
    /// The expression.
    #[prost(message, optional, tag = "1")]
    pub expr_match: Option<CelExpression>,
    /// What it is about, for people.
    #[prost(string, tag = "2")]
    pub description: String,
}

impl Name for CelMatcher {
    const NAME: &'static str = "CelMatcher";
    const PACKAGE: &'static str = "xds.type.matcher.v3";

    fn type_url() -> String {
        format!("type.googleapis.com/{}", Self::full_name())
    }
}

impl CelMatcher {
    /// Whether `expression` holds.
    pub fn of(expression: Expr) -> Self {
        let parsed = ParsedExpr { expr: Some(numbered(expression, &mut (1..))), ..ParsedExpr::default() };
        let expression = CelExpression { cel_expr_parsed: Some(parsed), ..CelExpression::default() };
        Self { expr_match: Some(expression), description: String::new() }
    }
}

/// `function(arguments)`; operators are functions too, `_<_` for one.
pub fn call(function: &str, arguments: impl IntoIterator<Item = Expr>) -> Expr {
    let call = Call { function: function.to_owned(), args: arguments.into_iter().collect(), ..Call::default() };
    expression(ExprKind::CallExpr(call.into()))
}

/// `object.field`.
pub fn field(object: &str, field: &str) -> Expr {
    let operand = expression(ExprKind::IdentExpr(Ident { name: object.to_owned() }));
    let select = Select { operand: Some(operand.into()), field: field.to_owned(), ..Select::default() };
    expression(ExprKind::SelectExpr(select.into()))
}

/// `"text"`.
pub fn text(text: &str) -> Expr {
    expression(ExprKind::ConstExpr(Constant { constant_kind: Some(ConstantKind::StringValue(text.to_owned())) }))
}

fn expression(kind: ExprKind) -> Expr {
    Expr { id: 0, expr_kind: Some(kind) }
}

/// `expression`, every part of it with a number of its own.
fn numbered(expression: Expr, ids: &mut impl Iterator<Item = i64>) -> Expr {
    let id = ids.next().unwrap_or_default();
    let expr_kind = expression.expr_kind.map(|kind| match kind {
        ExprKind::CallExpr(call) => {
            let args = call.args.into_iter().map(|argument| numbered(argument, ids)).collect();
            ExprKind::CallExpr(Call { args, ..*call }.into())
        }
        ExprKind::SelectExpr(select) => {
            let operand = select.operand.map(|operand| numbered(*operand, ids).into());
            ExprKind::SelectExpr(Select { operand, ..*select }.into())
        }
        leaf => leaf,
    });
    Expr { id, expr_kind }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::describe::{check, json, types::Type};

    #[test]
    fn an_expression_is_told_in_parts() {
        let holds = CelMatcher::of(call("_<_", [field("request", "time"), call("timestamp", [text("2026")])]));
        let of = Type::of_url(&CelMatcher::type_url()).expect("a described type");
        let shown = json::decode(of, &holds.encode_to_vec()).expect("a message of that type");
        let expected = serde_json::json!({ "expr_match": { "cel_expr_parsed": { "expr": { "id": "1", "call_expr": {
            "function": "_<_",
            "args": [
                { "id": "2", "select_expr": {
                    "operand": { "id": "3", "ident_expr": { "name": "request" } }, "field": "time",
                } },
                { "id": "4", "call_expr": {
                    "function": "timestamp", "args": [{ "id": "5", "const_expr": { "string_value": "2026" } }],
                } },
            ],
        } } } } });
        assert_eq!(shown, expected);
        assert!(check(&CelMatcher::type_url(), &holds.encode_to_vec()).is_empty());
        assert!(check(&HttpAttributesCelMatchInput::type_url(), &[]).is_empty());
    }
}
