//! A connection of HTTP/1.1 that is driven by whoever waits for something on it, and by nobody while it is idle.
//!
//! hyper hands a request, its response and each piece of a body from one task to another, since it expects a connection to have a task
//! of its own. With one request at a time there is nothing to share: the task of the request drives the connection itself, which is
//! woken for what comes over the network, and not for what it hands itself.
//!
//! Nobody reads what comes on an idle connection, be it the server's end of it. So whoever takes one [looks](Driven::is_usable) first.

use std::{
    future::{Future as _, poll_fn},
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio_util::either::Either;

use crate::{
    layer::{BoxFuture, held::Held},
    proxy::{body::Body, connect::Stream},
};

/// How often a connection may go on at once before others get their turn.
const MOST_TURNS: usize = 8;

/// The connection, and how requests get onto it.
pub(super) struct Driven {
    sender: SendRequest<Sending>,
    connection: BoxFuture<hyper::Result<()>>,
    line: Arc<Line>,
    waker: Waker,
    /// Whether the connection has come to its end.
    over: bool,
}

/// What is known of a connection on all its sides.
#[derive(Default)]
struct Line {
    /// Who waits for something on it.
    waiting: AtomicWaker,
    /// Whether there may be something to do.
    woken: AtomicBool,
    /// Whether it is being driven: whoever does that looks again by himself.
    busy: AtomicBool,
    /// Whether the body of a request is being sent.
    sending: AtomicBool,
    /// Whether the next read is to find out if anything has come at all.
    look: AtomicBool,
}

impl Wake for Line {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, SeqCst);
        if !self.busy.load(SeqCst) {
            self.waiting.wake();
        }
    }
}

impl Driven {
    /// Speaks HTTP/1.1 over `stream`, with heads of at most so many bytes.
    ///
    /// # Errors
    /// Those of hyper, which has none today.
    pub(super) async fn begin(stream: Stream, head_bytes: usize) -> hyper::Result<Box<Self>> {
        let line = Arc::<Line>::default();
        let io = Io { stream: TokioIo::new(stream), line: line.clone() };
        let mut builder = http1::Builder::new();
        // 100 headers at most, as hyper and Envoy have it.
        builder.max_buf_size(head_bytes);
        let (sender, connection) = builder.handshake(io).await?;
        let waker = Waker::from(line.clone());
        // In a box: it goes from hand to hand.
        Ok(Box::new(Self { sender, connection: Box::pin(connection.with_upgrades()), line, waker, over: false }))
    }

    /// Whether an idle connection may be used: nothing has come on it, and so not its end either.
    pub(super) fn is_usable(&mut self) -> bool {
        self.line.look.store(true, SeqCst);
        self.turn();
        self.line.look.store(false, SeqCst);
        !self.over && self.sender.is_ready()
    }

    /// Whether an idle connection is known to be of no use.
    pub(super) fn is_over(&mut self) -> bool {
        if self.line.woken.swap(false, SeqCst) {
            self.turn();
        }
        self.over
    }

    /// Nobody waits for anything on it any more.
    pub(super) fn rest(&self) {
        self.line.waiting.take();
    }

    /// Whether the body of the request is still being sent.
    pub(super) fn is_sending(&self) -> bool {
        self.line.sending.load(SeqCst)
    }

    /// Sends a request, and waits for the head of its response.
    ///
    /// # Errors
    /// There is none; with the request, if nothing of it was sent.
    pub(super) async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Unanswered> {
        let request = request.map(|body| Held::new(body, UnderWay::new(&self.line)));
        let mut answer = pin!(self.sender.try_send_request(request));
        // One that is new waits for nothing yet.
        self.line.woken.store(true, SeqCst);
        let answer = poll_fn(|cx| self.drive(cx, |quiet| answer.as_mut().poll(quiet))).await;
        answer.map_err(|mut error| match error.take_message() {
            Some(request) => Unanswered::Unsent(Box::new(request.map(Held::into_inner))),
            None => Unanswered::Failed(error.into_error()),
        })
    }

    /// Drives it until `awaited` is there, which moves only when the connection does. So it is polled without a waker that wakes anyone.
    pub(super) fn drive<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut awaited: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let line = self.line.clone();
        line.waiting.register(cx.waker());
        line.busy.store(true, SeqCst);
        let mut polled = Poll::Pending;
        for _ in 0..MOST_TURNS {
            if line.woken.swap(false, SeqCst) {
                self.turn();
            }
            polled = awaited(&mut Context::from_waker(Waker::noop()));
            if polled.is_ready() || !line.woken.load(SeqCst) {
                break;
            }
        }
        line.busy.store(false, SeqCst);
        // Woken after it was looked at, or too often at once.
        if polled.is_pending() && line.woken.load(SeqCst) {
            cx.waker().wake_by_ref();
        }
        polled
    }

    fn turn(&mut self) {
        if self.over {
            return;
        }
        let polled = self.connection.as_mut().poll(&mut Context::from_waker(&self.waker));
        if let Poll::Ready(ended) = polled {
            self.over = true;
            said(ended);
        }
    }

    /// Drives it to the end of what is under way on it, whoever else waits.
    pub(super) async fn run(self: Box<Self>) {
        let Self { sender, connection, over, .. } = *self;
        // Nothing else is to be sent.
        drop(sender);
        if !over {
            said(connection.await);
        }
    }
}

fn said(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection to an endpoint ended");
    }
}

/// Why there is no response.
pub(super) enum Unanswered {
    /// Nothing of the request was sent.
    Unsent(Box<Request<Body>>),
    /// Something of it may have been.
    Failed(hyper::Error),
}

/// The body of a request that is being sent.
type Sending = Held<Body, UnderWay>;

/// Says that a body is being sent, until it is at its end.
struct UnderWay(Arc<Line>);

impl UnderWay {
    fn new(on: &Arc<Line>) -> Self {
        on.sending.store(true, SeqCst);
        Self(on.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.sending.store(false, SeqCst);
    }
}

/// What hyper reads from and writes to.
struct Io {
    stream: TokioIo<Stream>,
    line: Arc<Line>,
}

impl Io {
    /// Whether something has come that was not read, the end included. The runtime knows of what had come when it last looked, but
    /// this may be newer.
    fn has_come(&self) -> bool {
        let socket = match self.stream.inner() {
            Either::Left(stream) => SockRef::from(stream),
            Either::Right(stream) => SockRef::from(stream.get_ref().0),
        };
        let peeked = socket.peek(&mut [MaybeUninit::uninit()]);
        !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl Read for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        // Where nothing has been asked for, whatever comes ends the connection, so that it is all the same what that is.
        if self.line.look.swap(false, SeqCst) && self.has_come() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }
}
