//! Values that have a form of their own in JSON: scalars, and the messages of `google.protobuf` that stand for them.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose};
use prost::{Message as _, encoding::encode_varint};
use serde_json::{Map, Value};

use super::{decode::Unreadable, encode::length_delimited};
use crate::{
    describe::{
        check::time,
        types::{Field, Kind, WellKnown},
        wire::{self, Scalar, Wire},
    },
    google::protobuf::{Duration, Timestamp},
};

const DURATION: &str = "a duration such as 1.5s";
const TIMESTAMP: &str = "a time such as 2026-01-31T12:00:00Z";

/// Seconds of ten thousand years: what protobuf allows.
const LONGEST: i64 = 315_576_000_000;

/// A message that is no object of its fields, or what is expected instead.
pub(super) fn encode(of: WellKnown, value: &Value) -> Result<Vec<u8>, &'static str> {
    Ok(match (of, value) {
        (WellKnown::Duration, Value::String(text)) => duration(text).ok_or(DURATION)?.encode_to_vec(),
        (WellKnown::Duration, _) => return Err(DURATION),
        (WellKnown::Timestamp, Value::String(text)) => timestamp(text).ok_or(TIMESTAMP)?.encode_to_vec(),
        (WellKnown::Timestamp, _) => return Err(TIMESTAMP),
        (WellKnown::Struct, Value::Object(object)) => encode_struct(object),
        (WellKnown::Struct, _) => return Err("an object"),
        (WellKnown::ListValue, Value::Array(items)) => encode_list(items),
        (WellKnown::ListValue, _) => return Err("a list"),
        (WellKnown::Value, value) => encode_value(value),
        // Both are read with the type that they hold.
        (WellKnown::Any | WellKnown::Wrapper, _) => return Err("another value"),
    })
}

/// As [`encode`], the other way.
pub(super) fn decode(of: WellKnown, bytes: &[u8]) -> Result<Value, Unreadable> {
    Ok(match of {
        WellKnown::Duration => {
            let (seconds, nanos) = time(bytes)?;
            let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
            let text = format!("{sign}{}.{:09}", seconds.abs(), nanos.abs());
            format!("{}s", text.trim_end_matches('0').trim_end_matches('.')).into()
        }
        WellKnown::Timestamp => {
            let (seconds, nanos) = time(bytes)?;
            let (days, second) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
            let (year, month, day) = civil(i64::try_from(days).map_err(|_| Unreadable)?);
            let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}");
            format!("{}Z", text.trim_end_matches('0').trim_end_matches('.')).into()
        }
        WellKnown::Struct => Value::Object(decode_struct(bytes)?),
        WellKnown::ListValue => decode_list(bytes)?,
        WellKnown::Value => decode_value(bytes)?,
        WellKnown::Any | WellKnown::Wrapper => return Err(Unreadable),
    })
}

/// Writes a scalar without its key; whether it is the default of its kind. Or what is expected instead.
pub(super) fn scalar(field: &'static Field, value: &Value, bytes: &mut Vec<u8>) -> Result<bool, String> {
    match field.kind {
        Kind::String => {
            let text = value.as_str().ok_or("a string")?;
            bytes.extend(text.as_bytes());
            Ok(text.is_empty())
        }
        Kind::Bytes => {
            let text =
                value.as_str().ok_or("a string in base64")?.trim_end_matches('=').replace('-', "+").replace('_', "/");
            let value = general_purpose::STANDARD_NO_PAD.decode(text).map_err(|_| "a string in base64")?;
            bytes.extend(&value);
            Ok(value.is_empty())
        }
        Kind::Bool => {
            // The keys of maps are texts.
            let value = match value {
                Value::Bool(value) => *value,
                Value::String(text) if text == "true" => true,
                Value::String(text) if text == "false" => false,
                _ => return Err("true or false".to_owned()),
            };
            bytes.push(value.into());
            Ok(!value)
        }
        Kind::Double => {
            let value = float(value).ok_or("a number")?;
            bytes.extend(value.to_le_bytes());
            Ok(value.to_bits() == 0)
        }
        Kind::Float => {
            #[expect(clippy::cast_possible_truncation, reason = "the field has this width")]
            let value = float(value).ok_or("a number")? as f32;
            bytes.extend(value.to_le_bytes());
            Ok(value.to_bits() == 0)
        }
        Kind::Enum => {
            let number = enumerated(field, value)?;
            #[expect(clippy::cast_sign_loss, reason = "how protobuf writes negative numbers")]
            encode_varint(i64::from(number) as u64, bytes);
            Ok(number == 0)
        }
        Kind::Message => Err("an object".to_owned()),
        kind => {
            let (least, most): (i128, i128) = match kind {
                Kind::Uint32 | Kind::Fixed32 => (0, u32::MAX.into()),
                Kind::Uint64 | Kind::Fixed64 => (0, u64::MAX.into()),
                Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => (i32::MIN.into(), i32::MAX.into()),
                _ => (i64::MIN.into(), i64::MAX.into()),
            };
            let number = integer(value).filter(|number| (least..=most).contains(number));
            let number = number.ok_or_else(|| format!("an integer between {least} and {most}"))?;
            put_integer(kind, number, bytes);
            Ok(number == 0)
        }
    }
}

/// As [`scalar`], the other way.
pub(super) fn shown(field: &'static Field, value: Scalar<'_>) -> Value {
    let wide = matches!(field.kind, Kind::Int64 | Kind::Uint64 | Kind::Fixed64 | Kind::Sfixed64 | Kind::Sint64);
    match value {
        Scalar::Bool(value) => value.into(),
        Scalar::Text(text) => text.into(),
        Scalar::Bytes(bytes) => general_purpose::STANDARD.encode(bytes).into(),
        Scalar::Integer(number) if field.kind == Kind::Enum => {
            let values = field.of().map_or(&[][..], |of| &of.values);
            let known = values.iter().find(|known| i128::from(known.number) == number);
            known.map_or_else(
                || Value::from(i64::try_from(number).unwrap_or_default()),
                |known| known.name.clone().into(),
            )
        }
        // Numbers in JSON are doubles to many, which do not hold all of 64 bits.
        Scalar::Integer(number) if wide => number.to_string().into(),
        Scalar::Integer(number) => i64::try_from(number).unwrap_or_default().into(),
        Scalar::Float(value) if value.is_nan() => "NaN".into(),
        Scalar::Float(value) if value.is_infinite() => if value > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        Scalar::Float(value) => value.into(),
    }
}

/// A value in a few words.
pub(super) fn noun(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn enumerated(field: &'static Field, value: &Value) -> Result<i32, String> {
    let values = field.of().map_or(&[][..], |of| &of.values);
    let known = match value {
        Value::String(text) => values.iter().find(|known| known.name == *text).map(|known| known.number),
        // A number that is not known is for the rules to judge.
        Value::Number(_) => integer(value).and_then(|number| i32::try_from(number).ok()),
        // The only value of `NullValue`.
        Value::Null => Some(0),
        _ => None,
    };
    known.ok_or_else(|| {
        let names: Vec<&str> = values.iter().map(|known| known.name.as_str()).collect();
        format!("one of {}", names.join(", "))
    })
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Number(number) => number.as_i128().or_else(|| {
            let value = number.as_f64().filter(|value| value.fract() == 0.0 && value.abs() < 9e15)?;
            #[expect(clippy::cast_possible_truncation, reason = "it is a small whole number")]
            Some(value as i128)
        }),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => text.parse().ok().filter(|value: &f64| value.is_finite()),
        },
        _ => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the number is within the bounds of its kind"
)]
fn put_integer(kind: Kind, number: i128, bytes: &mut Vec<u8>) {
    let zigzag = |number: i64| ((number << 1) ^ (number >> 63)) as u64;
    match kind {
        Kind::Fixed32 | Kind::Sfixed32 => bytes.extend((number as u32).to_le_bytes()),
        Kind::Fixed64 | Kind::Sfixed64 => bytes.extend((number as u64).to_le_bytes()),
        Kind::Sint32 | Kind::Sint64 => encode_varint(zigzag(number as i64), bytes),
        _ => encode_varint(number as u64, bytes),
    }
}

/// `-1.5s`.
fn duration(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (sign, number) = number.strip_prefix('-').map_or((1, number), |rest| (-1, rest));
    let (seconds, nanos) = decimal(number)?;
    (seconds <= LONGEST).then_some(Duration { seconds: sign * seconds, nanos: i32::try_from(sign).ok()? * nanos })
}

/// Digits, and perhaps a dot and at most nine of them.
fn decimal(text: &str) -> Option<(i64, i32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    Some((whole.parse().ok()?, format!("{fraction:0<9}").parse().ok()?))
}

/// `2026-01-31T12:00:00.5Z`, or with an offset such as `+01:00`.
fn timestamp(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let end = rest.find(['Z', '+', '-'])?;
    let (clock, zone) = rest.split_at(end);
    let (clock, nanos) = match clock.split_once('.') {
        Some((clock, fraction)) => (clock, decimal(&format!("0.{fraction}"))?.1),
        None => (clock, 0),
    };
    let [hour, minute, second] = numbers(clock, ':')?;
    let offset = match (zone, zone.get(1..)) {
        ("Z", _) => 0,
        (_, Some(offset)) => {
            let [hours, minutes] = numbers(offset, ':')?;
            (hours * 3600 + minutes * 60) * if zone.starts_with('+') { 1 } else { -1 }
        }
        _ => return None,
    };
    let days = (1..=12).contains(&month).then(|| days(year, month, day))?;
    let fine =
        (1..=9999).contains(&year) && civil(days) == (year, month, day) && hour < 24 && minute < 60 && second < 60;
    fine.then_some(Timestamp { seconds: days * 86400 + hour * 3600 + minute * 60 + second - offset, nanos })
}

fn numbers<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let numbers = text.split(separator).map(|part| decimal(part).filter(|_| part.len() <= 4).map(|(number, _)| number));
    numbers.collect::<Option<Vec<_>>>()?.try_into().ok()
}

/// Days since 1970-01-01 of a date of the Gregorian calendar, whose years begin in March here.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = year.rem_euclid(400) * 365 + year.rem_euclid(400) / 4 - year.rem_euclid(400) / 100 + of_year;
    year.div_euclid(400) * 146_097 + of_era - 719_468
}

/// As [`days`], the other way.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + days.div_euclid(146_097) * 400 + i64::from(month <= 2), month, day)
}

fn encode_struct(object: &Map<String, Value>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in object.iter().collect::<BTreeMap<_, _>>() {
        let mut entry = Vec::new();
        length_delimited(1, name.as_bytes(), &mut entry);
        length_delimited(2, &encode_value(value), &mut entry);
        length_delimited(1, &entry, &mut bytes);
    }
    bytes
}

fn encode_list(items: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for item in items {
        length_delimited(1, &encode_value(item), &mut bytes);
    }
    bytes
}

/// `google.protobuf.Value`: a choice, of which even a zero is written.
fn encode_value(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    match value {
        Value::Null => bytes.extend([1 << 3, 0]),
        Value::Number(number) => {
            bytes.push(2 << 3 | 1);
            bytes.extend(number.as_f64().unwrap_or_default().to_le_bytes());
        }
        Value::String(text) => length_delimited(3, text.as_bytes(), &mut bytes),
        Value::Bool(value) => bytes.extend([4 << 3, u8::from(*value)]),
        Value::Object(object) => length_delimited(5, &encode_struct(object), &mut bytes),
        Value::Array(items) => length_delimited(6, &encode_list(items), &mut bytes),
    }
    bytes
}

fn decode_struct(bytes: &[u8]) -> Result<Map<String, Value>, Unreadable> {
    let mut object = Map::new();
    for (_, wire) in wire::fields(bytes)? {
        let (mut name, mut value) = ("", Value::Null);
        for (number, wire) in wire::fields(content(wire)?)? {
            match number {
                1 => name = text(wire)?,
                _ => value = decode_value(content(wire)?)?,
            }
        }
        object.insert(name.to_owned(), value);
    }
    Ok(object)
}

fn decode_list(bytes: &[u8]) -> Result<Value, Unreadable> {
    let items = wire::fields(bytes)?.into_iter().map(|(_, wire)| decode_value(content(wire)?));
    items.collect::<Result<_, _>>().map(Value::Array)
}

fn decode_value(bytes: &[u8]) -> Result<Value, Unreadable> {
    Ok(match wire::fields(bytes)?.pop() {
        Some((2, Wire::Fixed64(bits))) => f64::from_bits(bits).into(),
        Some((3, wire)) => text(wire)?.into(),
        Some((4, Wire::Varint(value))) => (value != 0).into(),
        Some((5, wire)) => Value::Object(decode_struct(content(wire)?)?),
        Some((6, wire)) => decode_list(content(wire)?)?,
        _ => Value::Null,
    })
}

fn content(wire: Wire<'_>) -> Result<&[u8], Unreadable> {
    if let Wire::Bytes(bytes) = wire { Ok(bytes) } else { Err(Unreadable) }
}

fn text(wire: Wire<'_>) -> Result<&str, Unreadable> {
    std::str::from_utf8(content(wire)?).map_err(|_| Unreadable)
}
