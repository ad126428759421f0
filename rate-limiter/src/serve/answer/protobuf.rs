//! The few pieces of protobuf's wire format that an answer is made of.

use bytes::{BufMut as _, BytesMut};

/// A varint field, left out where it is zero.
pub(super) fn put_number(out: &mut BytesMut, tag: u8, value: u64) {
    if value != 0 {
        out.put_u8(tag << 3);
        put_varint(out, value);
    }
}

/// Bytes [`put_number`] takes.
pub(super) fn number_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

/// A field of bytes, or text, or the head of a message of `len` bytes that follows.
pub(super) fn put_head(out: &mut BytesMut, tag: u8, len: usize) {
    out.put_u8(tag << 3 | 2);
    put_varint(out, len as u64);
}

/// A text or bytes field, left out where it is empty.
pub(super) fn put_bytes(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        put_head(out, tag, bytes.len());
        out.put_slice(bytes);
    }
}

/// Bytes [`put_bytes`] takes.
pub(super) fn bytes_len(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { nested_len(bytes.len()) }
}

/// Bytes that a field with `len` bytes of content takes.
pub(super) fn nested_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}
