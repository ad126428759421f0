//! Messages of Envoy as JSON in one form: names as in the `.proto` files, nothing that is the default.

use chancery_proto::{
    Message,
    describe::{Violation, json, types::Type},
};
use serde_json::Value;

/// A message as it was written, in that form.
///
/// # Errors
/// What Envoy would not read.
pub(super) fn read(type_url: &str, value: &Value) -> Result<Value, Vec<Violation>> {
    let unknown = || vec![Violation { path: String::new(), reason: "is of a type that is not known".to_owned() }];
    let of = Type::of_url(type_url).ok_or_else(unknown)?;
    let bytes = json::encode(of, value)?;
    json::decode(of, &bytes).map_err(|_| unknown())
}

/// A message of ours in that form.
pub(super) fn shown(type_url: &str, message: &impl Message) -> Value {
    let shown = Type::of_url(type_url).and_then(|of| json::decode(of, &message.encode_to_vec()).ok());
    shown.unwrap_or_default()
}

/// A text at a JSON pointer.
pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str()
}

/// The items of a list at a JSON pointer.
pub(super) fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// A duration at a JSON pointer, as documents have it; `None` also if it is no whole number of milliseconds.
pub(super) fn duration(value: &Value, pointer: &str) -> Option<String> {
    let seconds = text(value, pointer)?.strip_suffix('s')?;
    let (whole, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 3 {
        return None;
    }
    let milliseconds = whole.parse::<u64>().ok()?.checked_mul(1000)? + format!("{fraction:0<3}").parse::<u64>().ok()?;
    Some(if milliseconds % 1000 == 0 { format!("{}s", milliseconds / 1000) } else { format!("{milliseconds}ms") })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations() {
        for (given, wanted) in [
            ("15s", Some("15s")),
            ("0.250s", Some("250ms")),
            ("1.5s", Some("1500ms")),
            ("0.0001s", None),
            ("-1s", None),
        ] {
            assert_eq!(duration(&json!([given]), "/0").as_deref(), wanted, "{given}");
        }
    }
}
