//! The fields of a protobuf message, one after the other, as slices of its bytes.
//!
//! It is as strict as `prost`: a varint has at most ten bytes and fits 64 bits, a tag is not zero, groups (which only
//! unknown fields can be) are closed by their own tag, and nothing is nested deeper than a hundred levels.

/// How deep messages and groups may be nested.
const DEPTH: u32 = 100;

/// Bytes that are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A field, with its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    /// A number, a boolean or an enumeration.
    Varint(u32, u64),
    /// Text, bytes or a message.
    Bytes(u32, &'a [u8]),
    /// Four or eight bytes, or a group. No field that is read here has such a type, so its content is dropped.
    Fixed(u32),
}

/// Reads the fields of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    depth: u32,
}

impl<'a> Fields<'a> {
    /// The fields of a whole message.
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, depth: DEPTH }
    }

    /// The fields of a message within this one.
    pub(super) fn nested(&self, bytes: &'a [u8]) -> Result<Self, Malformed> {
        let depth = self.depth.checked_sub(1).ok_or(Malformed)?;
        Ok(Self { rest: bytes, depth })
    }

    /// The next field; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (tag, kind) = self.key()?;
        Ok(Some(match kind {
            0 => Field::Varint(tag, self.varint()?),
            2 => Field::Bytes(tag, self.bytes()?),
            _ => {
                self.skip(tag, kind, self.depth)?;
                Field::Fixed(tag)
            }
        }))
    }

    fn key(&mut self) -> Result<(u32, u8), Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_| Malformed)?;
        let (tag, kind) = (key >> 3, (key & 7) as u8);
        if tag == 0 || kind > 5 { Err(Malformed) } else { Ok((tag, kind)) }
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                // The tenth byte has room for one bit.
                if index == 9 && byte > 1 {
                    return Err(Malformed);
                }
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.varint()?).map_err(|_| Malformed)?;
        self.take(len)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn skip(&mut self, tag: u32, kind: u8, depth: u32) -> Result<(), Malformed> {
        let inner = depth.checked_sub(1).ok_or(Malformed)?;
        match kind {
            0 => _ = self.varint()?,
            1 => _ = self.take(8)?,
            2 => _ = self.bytes()?,
            5 => _ = self.take(4)?,
            3 => loop {
                match self.key()? {
                    (end, 4) if end == tag => break,
                    (_, 4) => return Err(Malformed),
                    (tag, kind) => self.skip(tag, kind, inner)?,
                }
            },
            _ => return Err(Malformed),
        }
        Ok(())
    }
}
