//! `RateLimitRequest` read straight from its bytes, without copying a single text.
//!
//! It accepts and refuses what the generated code does (a test says so for any bytes), so that it does not
//! matter which of the two a request meets. Fields that are not known are skipped, every length is checked, and texts are UTF-8.
//!
//! With one exception: values may be any bytes, and any number of them. Envoy passes on what a client put into a header, and if one
//! byte that is not UTF-8, or one too many, failed the call, a client could switch off every limit of a route that passes on failure.
//! Values that are not UTF-8 are counted together, as [`NOT_UTF8`], and so are those that are too long, as [`TOO_LONG`].

use smallvec::SmallVec;

use super::protobuf::{Field, Fields, Malformed};
use crate::{
    decide::MAX_TEXT,
    model::{
        descriptor::{Descriptor, Entry, Hits, Override, Request},
        limit::Unit,
    },
};

/// What stands for a value that is not UTF-8.
pub const NOT_UTF8: &str = "\u{fffd}";

/// What stands for a value of more than [`MAX_TEXT`] bytes.
pub const TOO_LONG: &str = "\u{fffd}\u{2026}";

/// Why a request cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// It is not the message.
    #[error("the request is malformed")]
    Malformed,
    /// A limit that came with it is in a unit that does not exist.
    #[error("the limit of a descriptor has an unknown unit: {0}")]
    Unit(i32),
}

impl From<Malformed> for InvalidRequest {
    fn from(Malformed: Malformed) -> Self {
        Self::Malformed
    }
}

/// How many hits a descriptor said it counts.
#[derive(Clone, Copy, Default)]
struct Said {
    hits: Option<u64>,
    negative: bool,
}

/// Reads a request.
///
/// # Errors
/// The bytes are no request, or ask for what does not exist.
pub fn read(bytes: &[u8]) -> Result<Request<'_>, InvalidRequest> {
    let mut request = Request { domain: "", descriptors: SmallVec::new() };
    let mut said: SmallVec<[Said; 4]> = SmallVec::new();
    let mut addend = 0;
    let mut unit = None;
    let mut fields = Fields::of(bytes);
    while let Some(field) = fields.next()? {
        match field {
            Field::Bytes(1, text) => request.domain = utf8(text)?,
            Field::Bytes(2, descriptor) => {
                let (descriptor, hits) = read_descriptor(fields.nested(descriptor)?, &mut unit)?;
                request.descriptors.push(descriptor);
                said.push(hits);
            }
            Field::Varint(3, value) => addend = value as u32,
            Field::Varint(1 | 2, _) | Field::Bytes(3, _) | Field::Fixed(1..=3) => return Err(Malformed.into()),
            _ => {}
        }
    }
    // Only now: what is malformed further on is malformed first of all.
    if let Some(unit) = unit {
        return Err(InvalidRequest::Unit(unit));
    }
    for (descriptor, said) in request.descriptors.iter_mut().zip(said) {
        descriptor.hits = hits(addend, said.hits, said.negative);
    }
    Ok(request)
}

/// How much is counted. A descriptor's own addend goes before the request's, where zero means one.
pub fn hits(request: u32, own: Option<u64>, negative: bool) -> Hits {
    let hits = own.unwrap_or(u64::from(request.max(1)));
    if negative { Hits::GiveBack(hits) } else { Hits::Take(hits) }
}

/// The unit of a limit that came with a request (`envoy.type.v3.RateLimitUnit`).
pub fn unit(number: i32) -> Option<Unit> {
    Some(match number {
        1 => Unit::Second,
        2 => Unit::Minute,
        3 => Unit::Hour,
        4 => Unit::Day,
        5 => Unit::Month,
        6 => Unit::Year,
        7 => Unit::Week,
        _ => return None,
    })
}

fn read_descriptor<'a>(mut fields: Fields<'a>, unknown: &mut Option<i32>) -> Result<(Descriptor<'a>, Said), Malformed> {
    let mut descriptor = Descriptor { entries: SmallVec::new(), hits: Hits::Take(1), limit: None };
    let mut said = Said::default();
    let mut limit: Option<(u32, i32)> = None;
    while let Some(field) = fields.next()? {
        match field {
            Field::Bytes(1, entry) => descriptor.entries.push(read_entry(fields.nested(entry)?)?),
            Field::Bytes(2, bytes) => {
                // A message that comes twice is merged field by field.
                let limit = limit.get_or_insert((0, 0));
                let mut fields = fields.nested(bytes)?;
                while let Some(field) = fields.next()? {
                    match field {
                        Field::Varint(1, value) => limit.0 = value as u32,
                        Field::Varint(2, value) => limit.1 = value as i32,
                        Field::Bytes(1 | 2, _) | Field::Fixed(1 | 2) => return Err(Malformed),
                        _ => {}
                    }
                }
            }
            Field::Bytes(3, bytes) => {
                let hits = said.hits.get_or_insert(0);
                let mut fields = fields.nested(bytes)?;
                while let Some(field) = fields.next()? {
                    match field {
                        Field::Varint(1, value) => *hits = value,
                        Field::Bytes(1, _) | Field::Fixed(1) => return Err(Malformed),
                        _ => {}
                    }
                }
            }
            Field::Varint(4, value) => said.negative = value != 0,
            Field::Varint(1..=3, _) | Field::Bytes(4, _) | Field::Fixed(1..=4) => return Err(Malformed),
            _ => {}
        }
    }
    descriptor.limit = limit.and_then(|(requests, number)| match unit(number) {
        Some(unit) => Some(Override { requests, unit }),
        None => {
            unknown.get_or_insert(number);
            None
        }
    });
    Ok((descriptor, said))
}

fn read_entry(mut fields: Fields<'_>) -> Result<Entry<'_>, Malformed> {
    let mut entry = Entry { key: "", value: "" };
    while let Some(field) = fields.next()? {
        match field {
            Field::Bytes(1, text) => entry.key = utf8(text)?,
            Field::Bytes(2, text) => entry.value = value(text),
            Field::Varint(1 | 2, _) | Field::Fixed(1 | 2) => return Err(Malformed),
            _ => {}
        }
    }
    Ok(entry)
}

fn value(bytes: &[u8]) -> &str {
    if bytes.len() > MAX_TEXT { TOO_LONG } else { std::str::from_utf8(bytes).unwrap_or(NOT_UTF8) }
}

fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests;
