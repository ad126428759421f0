//! A call that could not be answered at once: it is still being read, it waits for the store, or it is not ours.
//!
//! [`Slow`] is a future without a box of its own; a connection keeps its slow calls in one set. What is
//! left to do when it ends is said by its [`Event`], because only the session has what an answer is written with.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, server::SendResponse};
use http::request::Parts;
use tokio::time::{Instant, Sleep};

use super::super::{answer::FRAME_HEAD, meters::Meters};
use crate::model::verdict::Verdict;

/// The largest message that is read here, in bytes. Larger ones are rare, and tonic's to bound.
const SHORT: usize = 16 << 10;

/// How long a client may take to send a message.
pub(super) const READING: Duration = Duration::from_secs(30);

/// One call: what was asked, and where the answer goes.
pub(super) struct Call {
    pub(super) head: Parts,
    pub(super) body: RecvStream,
    pub(super) respond: SendResponse<Bytes>,
}

/// What was read of a call's body.
pub(super) enum Read {
    /// One whole message, without its head, and the end.
    Message(Bytes),
    /// Something that is not ours to judge; all that was taken from the stream.
    Odd(Bytes),
    /// The client gave it up.
    Gone,
}

impl Call {
    /// Reads on. `taken` holds what came in several pieces; the usual single piece is not copied.
    pub(super) fn poll_read(&mut self, taken: &mut BytesMut, context: &mut Context<'_>) -> Poll<Read> {
        loop {
            match self.body.poll_data(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(bytes))) if taken.is_empty() && self.body.is_end_stream() => {
                    // Its flow-control window is given back when the stream is closed, which is soon.
                    return Poll::Ready(if is_message(&bytes) {
                        Read::Message(bytes.slice(FRAME_HEAD..))
                    } else {
                        Read::Odd(bytes)
                    });
                }
                Poll::Ready(Some(Ok(bytes))) => {
                    // It can only fail if more is given back than was taken.
                    let _ = self.body.flow_control().release_capacity(bytes.len());
                    taken.extend_from_slice(&bytes);
                    if is_odd(taken) {
                        return Poll::Ready(Read::Odd(taken.split().freeze()));
                    }
                }
                Poll::Ready(Some(Err(_))) => return Poll::Ready(Read::Gone),
                Poll::Ready(None) => {
                    let bytes = taken.split().freeze();
                    return Poll::Ready(if is_message(&bytes) {
                        Read::Message(bytes.slice(FRAME_HEAD..))
                    } else {
                        Read::Odd(bytes)
                    });
                }
            }
        }
    }
}

/// Whether these bytes are exactly one uncompressed message.
fn is_message(bytes: &[u8]) -> bool {
    match bytes {
        [0, a, b, c, d, message @ ..] => u32::from_be_bytes([*a, *b, *c, *d]) as usize == message.len(),
        _ => false,
    }
}

/// Whether these bytes cannot become one short uncompressed message any more.
fn is_odd(bytes: &[u8]) -> bool {
    match bytes {
        [0, a, b, c, d, message @ ..] => {
            let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
            len > SHORT || message.len() > len
        }
        [flag, ..] => *flag != 0,
        [] => false,
    }
}

/// A call that could not be answered at once.
pub(super) enum Slow {
    /// Its message has not come, or not as a whole.
    Reading(Option<(Box<Call>, BytesMut)>, Pin<Box<Sleep>>),
    /// It waits for the store.
    Waiting(Option<Waiting>),
    /// It is served by somebody else.
    Other(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// What is left to do about it.
#[expect(
    clippy::large_enum_variant,
    reason = "it is looked at once, at once; boxing would allocate for each call that waited"
)]
pub(super) enum Event {
    /// It was read.
    Read(Box<Call>, Read),
    /// It was decided.
    Decided(SendResponse<Bytes>, Verdict, Instant),
    /// Its deadline passed.
    Late(SendResponse<Bytes>),
    /// The client gave it up.
    Gone,
    /// Nothing.
    Done,
}

/// A call that waits for the store.
pub(super) struct Waiting {
    respond: SendResponse<Bytes>,
    verdict: Pin<Box<dyn Future<Output = Verdict> + Send>>,
    deadline: Option<Pin<Box<Sleep>>>,
    began: Instant,
    _counted: Counted,
}

/// Counts a waiting call for as long as it waits.
struct Counted(Arc<Meters>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.waits(false);
    }
}

impl Slow {
    /// A call of which `taken` has been read.
    pub(super) fn reading(call: Call, taken: BytesMut) -> Self {
        Self::Reading(Some((Box::new(call), taken)), Box::pin(tokio::time::sleep(READING)))
    }

    /// A call that is answered with `verdict`, if that comes within `timeout` from when it `began`.
    pub(super) fn waiting(
        respond: SendResponse<Bytes>,
        verdict: Pin<Box<dyn Future<Output = Verdict> + Send>>,
        timeout: Option<Duration>,
        began: Instant,
        meters: Arc<Meters>,
    ) -> Self {
        meters.waits(true);
        let deadline = timeout.map(|timeout| Box::pin(tokio::time::sleep_until(began + timeout)));
        Self::Waiting(Some(Waiting { respond, verdict, deadline, began, _counted: Counted(meters) }))
    }
}

impl Future for Slow {
    type Output = Event;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Event> {
        match self.get_mut() {
            Self::Other(serving) => serving.as_mut().poll(context).map(|()| Event::Done),
            Self::Reading(reading, deadline) => {
                let Some((call, taken)) = reading else { return Poll::Ready(Event::Done) };
                let read = match call.poll_read(taken, context) {
                    Poll::Ready(read) => Some(read),
                    Poll::Pending if deadline.as_mut().poll(context).is_ready() => None,
                    Poll::Pending => return Poll::Pending,
                };
                let Some((call, _)) = reading.take() else { return Poll::Ready(Event::Done) };
                Poll::Ready(match read {
                    Some(read) => Event::Read(call, read),
                    None => Event::Late(call.respond),
                })
            }
            Self::Waiting(slot) => {
                let Some(waiting) = slot else { return Poll::Ready(Event::Done) };
                if let Poll::Ready(verdict) = waiting.verdict.as_mut().poll(context) {
                    let Some(waiting) = slot.take() else { return Poll::Ready(Event::Done) };
                    return Poll::Ready(Event::Decided(waiting.respond, verdict, waiting.began));
                }
                if waiting.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
                    let Some(waiting) = slot.take() else { return Poll::Ready(Event::Done) };
                    return Poll::Ready(Event::Late(waiting.respond));
                }
                if waiting.respond.poll_reset(context).is_ready() {
                    slot.take();
                    return Poll::Ready(Event::Gone);
                }
                Poll::Pending
            }
        }
    }
}
