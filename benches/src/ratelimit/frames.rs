//! HTTP/2 frames, as far as a client has to know them that only loads a server.
//!
//! By hand, because a load generator that shares two cores with what it measures must cost next to nothing: requests
//! are bytes that exist already, and of an answer no header is decoded. What a server may rightly send is still
//! honoured (settings, pings, windows), so every server here can be loaded with it.

use std::io::{self, Read};

/// How a client opens a connection.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length, kind, flags, stream.
pub(super) const HEAD: usize = 9;

/// Where the stream's number begins in the head of a frame.
pub(super) const STREAM_AT: usize = 5;

/// More than the largest frame we allow a server to send (16 KiB, the default).
const BUFFER: usize = 64 << 10;

/// The kinds of frames, RFC 9113 section 6.
pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const RST_STREAM: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
}

/// The flags of frames.
pub(super) mod flag {
    pub(in super::super) const END_STREAM: u8 = 0x1;
    /// Of SETTINGS and PING.
    pub(in super::super) const ACK: u8 = 0x1;
    pub(in super::super) const END_HEADERS: u8 = 0x4;
    pub(in super::super) const PADDED: u8 = 0x8;
}

/// The settings that matter to us, RFC 9113 section 6.5.2.
pub(super) mod setting {
    pub(in super::super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(in super::super) const ENABLE_PUSH: u16 = 2;
    pub(in super::super) const MAX_CONCURRENT_STREAMS: u16 = 3;
}

/// A frame that came in.
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

impl Frame<'_> {
    /// Whether a flag is set.
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The four bytes at the beginning of the payload, without the reserved bit.
    pub(super) fn number(&self) -> Option<u32> {
        let bytes = self.payload.first_chunk()?;
        Some(u32::from_be_bytes(*bytes) & 0x7fff_ffff)
    }

    /// What a SETTINGS frame sets.
    pub(super) fn settings(&self) -> impl Iterator<Item = (u16, u32)> {
        let (settings, _) = self.payload.as_chunks::<6>();
        settings.iter().map(|[a, b, c, d, e, f]| (u16::from_be_bytes([*a, *b]), u32::from_be_bytes([*c, *d, *e, *f])))
    }
}

/// Appends a frame.
#[expect(clippy::cast_possible_truncation, reason = "payloads here are a few hundred bytes")]
pub(super) fn append(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// What was read, cut into frames.
pub(super) struct Inbox {
    buffer: Box<[u8]>,
    begin: usize,
    end: usize,
}

impl Inbox {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; BUFFER].into(), begin: 0, end: 0 }
    }

    /// Reads once what is there, and waits if there is nothing. The end of the stream is an error.
    pub(super) fn fill(&mut self, mut from: impl Read) -> io::Result<()> {
        // The part of a frame that is left over is short: moving it costs less than a ring would.
        self.buffer.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        self.begin = 0;
        let read = from.read(&mut self.buffer[self.end..])?;
        self.end += read;
        if read == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// The next frame that is here in whole.
    pub(super) fn next(&mut self) -> Option<Frame<'_>> {
        let (head, rest) = self.buffer[self.begin..self.end].split_first_chunk::<HEAD>()?;
        let [a, b, c, kind, flags, d, e, f, g] = *head;
        let payload = rest.get(..u32::from_be_bytes([0, a, b, c]) as usize)?;
        self.begin += HEAD + payload.len();
        Some(Frame { kind, flags, stream: u32::from_be_bytes([d & 0x7f, e, f, g]), payload })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

    use super::*;

    #[test]
    fn frames_that_arrive_in_pieces_are_put_together() {
        let mut bytes = Vec::new();
        append(&mut bytes, kind::DATA, flag::END_STREAM, 7, b"seven");
        append(&mut bytes, kind::WINDOW_UPDATE, 0, 0, &70_000_u32.to_be_bytes());
        let mut inbox = Inbox::new();
        let mut seen = Vec::new();
        for byte in bytes {
            inbox.fill(&[byte][..]).unwrap();
            while let Some(frame) = inbox.next() {
                seen.push((frame.kind, frame.flags, frame.stream, frame.payload.to_vec(), frame.number()));
            }
        }
        let update = 70_000_u32.to_be_bytes().to_vec();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].clone(), (kind::DATA, flag::END_STREAM, 7, b"seven".to_vec(), seen[0].4));
        assert_eq!(seen[1], (kind::WINDOW_UPDATE, 0, 0, update, Some(70_000)));
        assert_eq!(inbox.fill(&[][..]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn settings_are_read_in_pairs() {
        let payload = [0, 1, 0, 0, 16, 0, 0, 3, 0, 0, 0, 200];
        let frame = Frame { kind: kind::SETTINGS, flags: 0, stream: 0, payload: &payload };
        let wanted = [(setting::HEADER_TABLE_SIZE, 4096), (setting::MAX_CONCURRENT_STREAMS, 200)];
        assert_eq!(frame.settings().collect::<Vec<_>>(), wanted);
    }
}
