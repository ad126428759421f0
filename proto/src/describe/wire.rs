//! The protobuf wire format, read without knowing a type.

use super::types::Kind;

/// What a field has on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A value that is no message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    /// Of every width; an enumeration's number too.
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// The fields in `bytes` by number; those of one number in the order they had.
pub(super) fn fields(mut bytes: &[u8]) -> Result<Vec<(u32, Wire<'_>)>, Malformed> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        if number == 0 {
            return Err(Malformed);
        }
        let value = match key & 7 {
            0 => Wire::Varint(varint(&mut bytes)?),
            1 => Wire::Fixed64(u64::from_le_bytes(chunk(&mut bytes)?)),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|_| Malformed)?;
                let (value, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
                bytes = rest;
                Wire::Bytes(value)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(chunk(&mut bytes)?)),
            _ => return Err(Malformed),
        };
        found.push((number, value));
    }
    found.sort_by_key(|(number, _)| *number);
    Ok(found)
}

/// The values in one occurrence of a field, which are several if it is packed.
pub(super) fn scalars<'a>(kind: Kind, wire: Wire<'a>) -> Result<Vec<Scalar<'a>>, Malformed> {
    let Wire::Bytes(mut bytes) = wire else { return Ok(vec![scalar(kind, wire)?]) };
    if matches!(kind, Kind::String | Kind::Bytes) {
        return Ok(vec![scalar(kind, wire)?]);
    }
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let wire = match kind {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Wire::Fixed64(u64::from_le_bytes(chunk(&mut bytes)?)),
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Wire::Fixed32(u32::from_le_bytes(chunk(&mut bytes)?)),
            _ => Wire::Varint(varint(&mut bytes)?),
        };
        values.push(scalar(kind, wire)?);
    }
    Ok(values)
}

/// One value.
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "how protobuf reads narrow integers")]
pub(super) fn scalar(kind: Kind, wire: Wire<'_>) -> Result<Scalar<'_>, Malformed> {
    let zigzag = |value: u64| ((value >> 1) as i64) ^ -((value & 1) as i64);
    Ok(match (kind, wire) {
        (Kind::Double, Wire::Fixed64(value)) => Scalar::Float(f64::from_bits(value)),
        (Kind::Float, Wire::Fixed32(value)) => Scalar::Float(f64::from(f32::from_bits(value))),
        (Kind::Int64, Wire::Varint(value)) => Scalar::Integer(i128::from(value as i64)),
        (Kind::Int32 | Kind::Enum, Wire::Varint(value)) => Scalar::Integer(i128::from(value as i32)),
        (Kind::Uint64, Wire::Varint(value)) | (Kind::Fixed64, Wire::Fixed64(value)) => Scalar::Integer(value.into()),
        (Kind::Uint32, Wire::Varint(value)) => Scalar::Integer(i128::from(value as u32)),
        (Kind::Fixed32, Wire::Fixed32(value)) => Scalar::Integer(value.into()),
        (Kind::Sfixed64, Wire::Fixed64(value)) => Scalar::Integer(i128::from(value as i64)),
        (Kind::Sfixed32, Wire::Fixed32(value)) => Scalar::Integer(i128::from(value as i32)),
        (Kind::Sint64 | Kind::Sint32, Wire::Varint(value)) => Scalar::Integer(zigzag(value).into()),
        (Kind::Bool, Wire::Varint(value)) => Scalar::Bool(value != 0),
        (Kind::String, Wire::Bytes(value)) => Scalar::Text(std::str::from_utf8(value).map_err(|_| Malformed)?),
        (Kind::Bytes, Wire::Bytes(value)) => Scalar::Bytes(value),
        _ => return Err(Malformed),
    })
}

/// The value of a field that is not there.
pub(super) fn default(kind: Kind) -> Scalar<'static> {
    match kind {
        Kind::Double | Kind::Float => Scalar::Float(0.0),
        Kind::Bool => Scalar::Bool(false),
        Kind::String => Scalar::Text(""),
        Kind::Bytes | Kind::Message => Scalar::Bytes(&[]),
        _ => Scalar::Integer(0),
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn chunk<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (chunk, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
    *bytes = rest;
    Ok(*chunk)
}
