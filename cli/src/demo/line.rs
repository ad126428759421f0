//! One connection, and how it breaks.
//!
//! A service that closes an idle connection does so without knowing that a request is under way to it. Here that race is lost on
//! purpose: when the next request arrives, its bytes are thrown away and the connection ends. A reset is what the system
//! makes of closing a connection that lingers for no time.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::{Notify, watch},
};

use super::chaos::{Chaos, Fault};

/// What is known of a connection.
#[derive(Debug)]
pub(super) struct Line {
    number: u64,
    begun: AtomicU64,
    under_way: AtomicU64,
    reset: AtomicBool,
    /// It is to be ended in an orderly way.
    pub(super) goaway: Notify,
    /// It is to be cut.
    pub(super) cut: Notify,
}

/// A request under way on a connection.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Line>);

impl Line {
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            begun: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            reset: AtomicBool::new(false),
            goaway: Notify::new(),
            cut: Notify::new(),
        }
    }

    /// A request has begun.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.begun.fetch_add(1, SeqCst);
        self.under_way.fetch_add(1, SeqCst);
        UnderWay(self.clone())
    }

    /// Whenever it is closed, that is a reset.
    pub(super) fn end_by_reset(&self) {
        self.reset.store(true, SeqCst);
    }

    /// How many requests it has had, if none is under way.
    fn idle_after(&self) -> Option<u64> {
        (self.under_way.load(SeqCst) == 0).then(|| self.begun.load(SeqCst)).filter(|begun| *begun > 0)
    }
}

impl UnderWay {
    /// Its connection.
    pub(super) fn line(&self) -> &Line {
        &self.0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, SeqCst);
    }
}

/// The bytes of a connection.
pub(super) struct Socket {
    stream: TcpStream,
    line: Arc<Line>,
    chaos: watch::Receiver<Chaos>,
    ended: bool,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, line: Arc<Line>, chaos: watch::Receiver<Chaos>) -> Self {
        Self { stream, line, chaos, ended: false }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.line.reset.load(SeqCst) {
            // If it cannot be had, the connection ends in the other way.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let idle_after = this.line.idle_after();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if let Some(begun) = idle_after
            && buffer.filled().len() > before
            && this.chaos.borrow().of_connection(Fault::FinOnReuse, this.line.number, begun)
        {
            buffer.set_filled(before);
            this.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
