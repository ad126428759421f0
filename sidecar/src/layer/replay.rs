//! A request's body that can be sent again: what has been read of it is kept, up to a limit.
//!
//! Frames are kept as they are first read, and each try reads them from the beginning. Only the newest try reads on beyond what is
//! kept: a try that was given up, of which a task of the transport may still hold the body, is told that it is over. So no
//! frame is lost or sent twice within a try, and nobody else takes the waking that the newest try waits for.
//!
//! A body that exceeds the limit is let through and no longer kept, and then cannot be sent again; neither can one that failed.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use super::BoxError;

/// So much of a body is kept, in bytes.
pub const MOST_KEPT: usize = 64 * 1_024;

/// So many frames of a body are kept: frames without bytes cost memory, too.
const MOST_FRAMES: usize = 1_024;

/// The body of one try.
#[derive(Debug)]
pub struct Replay<B> {
    shared: Arc<Mutex<Shared<B>>>,
    /// Which try this is.
    number: u64,
    /// Frames read.
    position: usize,
}

#[derive(Debug)]
struct Shared<B> {
    rest: B,
    kept: Vec<Kept>,
    bytes: usize,
    state: State,
    /// The newest try.
    newest: u64,
}

#[derive(Clone, Debug)]
enum Kept {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is more, and all so far is kept.
    Keeping,
    /// All of it is kept.
    Complete,
    /// It cannot be sent again.
    Lost,
}

/// The body of a try that was given up.
#[derive(Debug, thiserror::Error)]
#[error("this try was given up for another")]
pub struct GivenUp;

impl<B: Body> Replay<B> {
    /// The body of a first try.
    pub fn new(body: B) -> Self {
        let too_long = body.size_hint().lower() > MOST_KEPT as u64;
        let state = match body.is_end_stream() {
            true => State::Complete,
            // There is no use in keeping a part.
            false if too_long => State::Lost,
            false => State::Keeping,
        };
        let shared = Shared { rest: body, kept: Vec::new(), bytes: 0, state, newest: 0 };
        Self { shared: Arc::new(Mutex::new(shared)), number: 0, position: 0 }
    }

    /// The same body for the next try, from the beginning. Those before are given up.
    pub fn again(&self) -> Self {
        let mut shared = self.shared.lock();
        shared.newest += 1;
        Self { shared: Arc::clone(&self.shared), number: shared.newest, position: 0 }
    }

    /// The same body for another try beside this one, if it is known to its end.
    pub fn beside(&self) -> Option<Self> {
        self.is_complete().then(|| Self { shared: Arc::clone(&self.shared), number: self.number, position: 0 })
    }

    /// Keeps hold of the body, to make others of it later.
    pub fn handle(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), number: self.number, position: 0 }
    }

    /// Whether it can be sent again.
    pub fn can_be_sent_again(&self) -> bool {
        let shared = self.shared.lock();
        // What nobody has read is all there, however long it is.
        shared.state != State::Lost || shared.is_untouched()
    }

    /// Whether all of it has been read and kept: the client has said everything.
    pub fn is_complete(&self) -> bool {
        self.shared.lock().state == State::Complete
    }
}

impl<B> Shared<B> {
    fn is_untouched(&self) -> bool {
        self.kept.is_empty() && self.bytes == 0
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        let kept = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Kept::Data(data.clone()),
            (None, Some(trailers)) => Kept::Trailers(trailers.clone()),
            (None, None) => return,
        };
        self.bytes = self.bytes.saturating_add(frame.data_ref().map_or(0, Bytes::len).max(1));
        if self.bytes > MOST_KEPT || self.kept.len() >= MOST_FRAMES || self.state == State::Lost {
            self.state = State::Lost;
            self.kept = Vec::new();
        } else {
            self.kept.push(kept);
        }
    }
}

impl<B> Body for Replay<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let shared = &mut *this.shared.lock();
        if let Some(kept) = shared.kept.get(this.position) {
            this.position += 1;
            return Poll::Ready(Some(Ok(match kept.clone() {
                Kept::Data(data) => Frame::data(data),
                Kept::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        if shared.state == State::Complete {
            return Poll::Ready(None);
        }
        if this.number != shared.newest {
            return Poll::Ready(Some(Err(GivenUp.into())));
        }
        match Pin::new(&mut shared.rest).poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => {
                shared.keep(&frame);
                this.position += 1;
                if shared.rest.is_end_stream() && shared.state == State::Keeping {
                    shared.state = State::Complete;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                shared.state = State::Lost;
                shared.kept = Vec::new();
                // No longer untouched, whatever was read.
                shared.bytes = shared.bytes.max(1);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                if shared.state == State::Keeping {
                    shared.state = State::Complete;
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.lock();
        self.position >= shared.kept.len() && (shared.state == State::Complete || shared.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.shared.lock();
        let unread = shared.kept.iter().skip(self.position).map(|kept| match kept {
            Kept::Data(data) => data.len() as u64,
            Kept::Trailers(_) => 0,
        });
        let unread: u64 = unread.sum();
        let rest = shared.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(unread));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(unread)) {
            hint.set_upper(upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::layer::testing::Frames;

    fn read(body: &mut Replay<Frames>, frames: usize) -> Result<String, BoxError> {
        let mut text = String::new();
        for _ in 0..frames {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            match Pin::new(&mut *body).poll_frame(&mut cx) {
                Poll::Ready(Some(frame)) => match frame?.into_data() {
                    Ok(data) => text.push_str(std::str::from_utf8(&data)?),
                    Err(trailers) => text.push_str(&format!("{:?}", trailers.into_trailers().unwrap().len())),
                },
                Poll::Ready(None) => text.push('.'),
                Poll::Pending => text.push('…'),
            }
        }
        Ok(text)
    }

    #[test]
    fn each_try_reads_all_of_it() {
        let mut first = Replay::new(Frames::of(&["a", "b", "c"]).with_trailers(&[("x", "y")]));
        assert_eq!(read(&mut first, 2).unwrap(), "ab");
        let mut second = first.again();
        assert_eq!(read(&mut second, 5).unwrap(), "abc1.");
        assert_eq!(read(&mut second.again(), 5).unwrap(), "abc1.");
    }

    #[test]
    fn a_try_that_was_given_up_takes_nothing_from_the_next() {
        let mut first = Replay::new(Frames::of(&["a", "b", "c"]));
        assert_eq!(read(&mut first, 1).unwrap(), "a");
        let mut second = first.again();
        assert!(read(&mut first, 1).unwrap_err().is::<GivenUp>());
        assert_eq!(read(&mut second, 4).unwrap(), "abc.");
        assert_eq!(read(&mut first, 3).unwrap(), "bc.", "what is known to its end is there for all");
    }

    #[test]
    fn more_than_the_limit_is_let_through_and_not_kept() {
        let half = "x".repeat(MOST_KEPT / 2);
        let mut exact = Replay::new(Frames::of(&[&half, &half]));
        assert_eq!(read(&mut exact, 3).unwrap().len(), MOST_KEPT + 1);
        assert!(exact.can_be_sent_again() && exact.is_complete());
        let mut longer = Replay::new(Frames::of(&[&half, &half, "y", "z"]));
        assert_eq!(read(&mut longer, 5).unwrap(), format!("{half}{half}yz."));
        assert!(!longer.can_be_sent_again() && longer.beside().is_none());
        let mut many = Replay::new(Frames::of(&["x"; MOST_FRAMES + 1]));
        assert_eq!(read(&mut many, MOST_FRAMES + 2).unwrap().len(), MOST_FRAMES + 2);
        assert!(!many.can_be_sent_again());
    }

    #[test]
    fn a_long_body_can_be_sent_until_it_is_read() {
        let mut long = Replay::new(Full::new(Bytes::from(vec![b'x'; MOST_KEPT + 1])));
        assert!(long.can_be_sent_again());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(Pin::new(&mut long).poll_frame(&mut cx), Poll::Ready(Some(Ok(_)))));
        assert!(!long.can_be_sent_again());
    }

    #[test]
    fn a_body_that_is_known_can_be_read_twice_at_once() {
        let mut first = Replay::new(Frames::of(&["a", "b"]));
        assert!(first.beside().is_none(), "not all is known yet");
        assert_eq!(read(&mut first, 2).unwrap(), "ab");
        let mut beside = first.beside().unwrap();
        assert_eq!((read(&mut beside, 3).unwrap(), read(&mut first, 1).unwrap()), ("ab.".into(), ".".into()));
        assert!(Replay::new(Frames::default()).beside().is_some());
    }

    #[tokio::test]
    async fn a_body_that_failed_is_not_sent_again() {
        let failing =
            futures_util::stream::iter([Ok(Frame::data(Bytes::from("a"))), Err(std::io::Error::other("gone"))]);
        let mut body = Replay::new(http_body_util::StreamBody::new(failing));
        assert!(body.frame().await.unwrap().is_ok() && body.frame().await.unwrap().is_err());
        assert!(!body.can_be_sent_again());
    }

    #[test]
    fn sizes_are_told_for_what_is_left_of_each_try() {
        let mut first = Replay::new(Full::new(Bytes::from("abc")));
        assert_eq!(first.size_hint().exact(), Some(3));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(Pin::new(&mut first).poll_frame(&mut cx), Poll::Ready(Some(Ok(_)))));
        assert_eq!((first.size_hint().exact(), first.is_end_stream()), (Some(0), true));
        let second = first.again();
        assert_eq!((second.size_hint().exact(), second.is_end_stream()), (Some(3), false));
    }

    proptest! {
        #[test]
        fn whenever_tries_are_given_up_the_last_reads_every_byte_once(
            pieces in vec("[a-z]{0,20}", 0..30), tries in vec(0..40_usize, 0..6),
        ) {
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let whole = pieces.concat();
            let mut body = Replay::new(Frames::of(&pieces));
            for frames in tries {
                let so_far = read(&mut body, frames).unwrap();
                prop_assert!(whole.starts_with(so_far.trim_end_matches('.')));
                body = body.again();
            }
            prop_assert_eq!(read(&mut body, pieces.len() + 1).unwrap(), format!("{whole}."));
        }
    }
}
