//! HTTP/2 by hand: frames as a client may write them, well-formed or not, and what a server says to them.

use std::{fmt, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};

/// How a client begins (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames.
#[expect(missing_docs, reason = "as RFC 9113 names them")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// `END_STREAM`, and `ACK`.
pub const END: u8 = 1;
/// `END_HEADERS`.
pub const WHOLE: u8 = 4;

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    sized(payload.len(), kind, flags, stream, payload)
}

/// A frame that says that it is `length` long.
pub fn sized(length: usize, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (length as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field of a header block, spelled out (RFC 7541, 6.2.2).
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        // An integer with a prefix of seven bits.
        let mut length = text.len();
        if length < 127 {
            field.push(length as u8);
        } else {
            field.push(127);
            length -= 127;
            while length >= 128 {
                field.push((length % 128 + 128) as u8);
                length /= 128;
            }
            field.push(length as u8);
        }
        field.extend(text.as_bytes());
    }
    field
}

/// The header block of a request with these fields after the pseudo-header fields.
pub fn block(method: &str, host: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":authority", host), (":path", "/")];
    pseudo.iter().chain(fields).flat_map(|(name, value)| field(name, value)).collect()
}

/// What a server said to it all, in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// `GOAWAY` with this code.
    GoAway(u32),
    /// `RST_STREAM` of a stream, with this code.
    Reset(u32),
    /// A response, with this status if it is one of those that have an index in HPACK, and 0 otherwise.
    Response(u16),
    /// Nothing, and it closed the connection.
    Closed,
    /// Nothing, and it goes on.
    Nothing,
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Statuses in HPACK's static table, from index 8 on.
const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];

/// Reads until something is said to a stream or to the connection, for so long.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S, within: Duration) -> Said {
    timeout(within, first(stream)).await.unwrap_or(Said::Nothing)
}

async fn first<S: AsyncRead + Unpin>(stream: &mut S) -> Said {
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return Said::Closed;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).await.is_err() {
            return Said::Closed;
        }
        let code = |at: usize| {
            payload.get(at..at + 4).map_or(0, |code| code.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)))
        };
        match head[3] {
            kind::GOAWAY => return Said::GoAway(code(4)),
            kind::RST_STREAM => return Said::Reset(code(0)),
            kind::HEADERS => {
                let index = payload.first().map_or(0, |byte| usize::from(byte & 0x7f));
                return Said::Response(
                    index.checked_sub(8).and_then(|at| STATUSES.get(at)).copied().unwrap_or_default(),
                );
            }
            _ => {}
        }
    }
}
