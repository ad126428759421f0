//! Whether a caller speaks HTTP is told by its first bytes, however they are cut, and none of them is lost.
#![no_main]

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use chancery_sidecar::proxy::detect::{Spoken, detect};
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

/// Gives `rest`, so many bytes at a time.
struct Cut<'b> {
    rest: &'b [u8],
    at: usize,
}

impl AsyncRead for Cut<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (now, rest) = self.rest.split_at(self.at.min(self.rest.len()).min(to.remaining()));
        to.put_slice(now);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

async fn spoken(bytes: &[u8], at: usize) -> Option<Spoken> {
    let (spoken, mut stream) = detect(Cut { rest: bytes, at }).await.ok()?;
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.expect("memory can be read");
    assert_eq!(read, bytes, "what was looked at is not lost");
    Some(spoken)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (at, bytes) = input;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (cut, whole) =
        runtime.block_on(async { (spoken(bytes, 1 + usize::from(at)).await, spoken(bytes, usize::MAX).await) });
    assert_eq!(cut, whole, "it does not matter how the bytes arrive");
    assert_eq!(whole.is_none(), bytes.is_empty());
});
