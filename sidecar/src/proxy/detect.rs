//! What a caller speaks, by the first bytes that it sends: HTTP, or something else.
//!
//! Nothing is asked of the caller, so that nothing is added to the way of a request; where the TLS handshake has said what is
//! spoken, nothing is looked at either. HTTP/2 begins with a preface that has the form of a request line, so one question is
//! enough for both versions.
//!
//! In doubt it is HTTP: what goes to the application as it is passes none of the checks that a request passes. So a known method
//! counts, whatever follows it.
//!
//! A protocol in which the server speaks first sends nothing to look at. It has to be declared.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// As much is looked at; a line that is longer is for the HTTP server to refuse.
const MOST: usize = 8 * 1024;

/// The longest method.
const LONGEST_METHOD: usize = 32;

const METHODS: [&[u8]; 10] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI"];

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/1.1 or HTTP/2.
    Http,
    /// Something else.
    Opaque,
}

/// What is spoken by who sends these bytes first; `None`: more are needed.
fn spoken(bytes: &[u8]) -> Option<Spoken> {
    match bytes.get(..MOST) {
        Some(enough) => Some(by_first_line(enough).unwrap_or(Spoken::Http)),
        None => by_first_line(bytes),
    }
}

fn by_first_line(bytes: &[u8]) -> Option<Spoken> {
    // Servers pass over empty lines before a request.
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    let line = &bytes[begin..];
    let method = line.iter().position(|byte| !is_token(*byte)).unwrap_or(line.len());
    match line.get(method) {
        Some(b' ') if METHODS.contains(&&line[..method]) => return Some(Spoken::Http),
        Some(b' ') if (1..=LONGEST_METHOD).contains(&method) => {}
        None if method <= LONGEST_METHOD => return None,
        _ => return Some(Spoken::Opaque),
    }
    let end = line.iter().position(|byte| *byte == b'\n')?;
    let mut words = line[..end].trim_ascii_end().rsplit(|byte| *byte == b' ');
    let is_version = words.next().is_some_and(|word| word.starts_with(b"HTTP/"));
    Some(if is_version { Spoken::Http } else { Spoken::Opaque })
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Reads until it is known what is spoken. What was read comes with the stream once more. Takes whatever time it takes.
///
/// # Errors
/// The connection broke off, or ended before it had said anything.
pub async fn detect<I: AsyncRead + Unpin>(mut stream: I) -> io::Result<(Spoken, Rewound<I>)> {
    let mut read = BytesMut::with_capacity(1024);
    loop {
        let ended = stream.read_buf(&mut read).await? == 0;
        if ended && read.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let known = spoken(&read).or(ended.then_some(Spoken::Opaque));
        if let Some(spoken) = known {
            return Ok((spoken, Rewound { first: read.freeze(), stream }));
        }
    }
}

/// A stream of which something was read, which it gives once more.
#[derive(Debug)]
pub struct Rewound<I> {
    first: Bytes,
    stream: I,
}

impl<I: AsyncRead + Unpin> AsyncRead for Rewound<I> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, to);
        }
        let length = self.first.len().min(to.remaining());
        to.put_slice(&self.first[..length]);
        self.first.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Rewound<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn http_is_known_by_its_first_line() {
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Spoken::Http)),
            (b"GET ", Some(Spoken::Http)),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Spoken::Http)),
            (b"\r\nGET ", Some(Spoken::Http)),
            (b"GET /without-version\r\n", Some(Spoken::Http)),
            (b"M-SEARCH * HTTP/1.1\r\n", Some(Spoken::Http)),
            (b"M-SEARCH * HTTP/1.1", None),
            (b"GE", None),
            (b"", None),
            (b"get key\r\n", Some(Spoken::Opaque)),
            (b"PING\r\n", Some(Spoken::Opaque)),
            (b"*1\r\n$4\r\nPING\r\n", Some(Spoken::Opaque)),
            (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Some(Spoken::Opaque)),
            (b"\x16\x03\x01", Some(Spoken::Opaque)),
            (b" / HTTP/1.1\r\n", Some(Spoken::Opaque)),
            (&[b'a'; 40], Some(Spoken::Opaque)),
        ] {
            assert_eq!(spoken(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        }
        let long = [b"NEW ".as_slice(), &[b'a'; MOST]].concat();
        assert_eq!(spoken(&long), Some(Spoken::Http));
    }

    proptest! {
        #[test]
        fn it_is_decided_in_time_and_for_good(bytes: Vec<u8>, more: Vec<u8>) {
            let long = [bytes.clone(), more].concat();
            if let Some(known) = spoken(&bytes) {
                prop_assert_eq!(spoken(&long), Some(known));
            }
            prop_assert!(spoken(&[bytes.as_slice(), &[b'\n'; MOST]].concat()).is_some());
        }
    }

    #[tokio::test]
    async fn what_was_looked_at_is_read_once_more() {
        let (mut caller, here) = tokio::io::duplex(64);
        let writing = async {
            for piece in ["\r\nNE", "W a ", "HTTP/1.1\r\n", "rest"] {
                caller.write_all(piece.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(caller);
        };
        let reading = async {
            let (spoken, mut stream) = detect(here).await.unwrap();
            let mut all = String::new();
            stream.read_to_string(&mut all).await.unwrap();
            (spoken, all)
        };
        let (_, read) = tokio::join!(writing, reading);
        assert_eq!(read, (Spoken::Http, "\r\nNEW a HTTP/1.1\r\nrest".to_owned()));
        let (caller, here) = tokio::io::duplex(64);
        drop(caller);
        assert!(detect(here).await.is_err());
    }
}
