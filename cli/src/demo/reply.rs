//! The body of an answer: whole, bit by bit, or broken off.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::line::UnderWay;

/// What is written at once, in bytes.
const PIECE: usize = 16 * 1024;

/// Into so many pieces an answer is cut that comes bit by bit.
const BITS: usize = 8;

/// So long a broken answer waits before it breaks off, so that what is before has gone out.
const BEFORE_THE_BREAK: Duration = Duration::from_millis(2);

/// The request or its answer was broken off, as was asked for.
#[derive(Debug, thiserror::Error)]
#[error("broken off")]
pub(super) struct Broken;

/// A body.
#[derive(Debug)]
pub(super) struct Reply {
    pieces: VecDeque<Bytes>,
    /// What is said to be left, which a broken one never sends.
    left: u64,
    tells_its_size: bool,
    trailers: Option<HeaderMap>,
    pause: Option<Duration>,
    wait: Option<Pin<Box<Sleep>>>,
    breaks: bool,
    /// The request is under way until its answer is over. Says also how the connection ends when this breaks off.
    under_way: Option<UnderWay>,
    resets_connection: bool,
}

impl Reply {
    /// These bytes.
    pub(super) fn of(bytes: Bytes) -> Self {
        let left = bytes.len() as u64;
        let mut reply = Self {
            pieces: VecDeque::new(),
            left,
            tells_its_size: true,
            trailers: None,
            pause: None,
            wait: None,
            breaks: false,
            under_way: None,
            resets_connection: false,
        };
        reply.pieces = cut(bytes, PIECE);
        reply
    }

    /// Holds `under_way` until it is over.
    pub(super) fn during(mut self, under_way: UnderWay) -> Self {
        self.under_way = Some(under_way);
        self
    }

    /// Does not say beforehand how long it is: in HTTP/1.1 it comes in chunks.
    pub(super) fn of_unknown_size(mut self) -> Self {
        self.tells_its_size = false;
        self
    }

    /// With these after it.
    pub(super) fn with_trailers(mut self, trailers: HeaderMap) -> Self {
        self.trailers = Some(trailers);
        self
    }

    /// Bit by bit, with this time between two of them.
    pub(super) fn dripping(mut self, pause: Duration) -> Self {
        let all: Vec<u8> = self.pieces.iter().flatten().copied().collect();
        let size = all.len().div_ceil(BITS).max(1);
        self.pieces = cut(all.into(), size);
        self.pause = Some(pause);
        self
    }

    /// Breaks off in the middle; in HTTP/1.1 (`resets_connection`) the connection is reset.
    pub(super) fn broken(self, resets_connection: bool) -> Self {
        let mut broken = self.dripping(BEFORE_THE_BREAK);
        broken.pieces.truncate(BITS / 2);
        broken.breaks = true;
        broken.resets_connection = resets_connection;
        broken
    }
}

fn cut(mut bytes: Bytes, size: usize) -> VecDeque<Bytes> {
    let mut pieces = VecDeque::new();
    while !bytes.is_empty() {
        pieces.push_back(bytes.split_to(size.min(bytes.len())));
    }
    pieces
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        if let Some(wait) = &mut this.wait {
            ready!(wait.as_mut().poll(cx));
            this.wait = None;
        }
        if let Some(piece) = this.pieces.pop_front() {
            this.left -= piece.len() as u64;
            this.wait = this.pause.map(|pause| Box::pin(sleep(pause)));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if this.breaks {
            if let Some(under_way) = this.under_way.as_ref().filter(|_| this.resets_connection) {
                under_way.line().end_by_reset();
            }
            return Poll::Ready(Some(Err(Broken)));
        }
        let trailers = this.trailers.take();
        this.under_way = None;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty() && self.trailers.is_none() && !self.breaks
    }

    fn size_hint(&self) -> SizeHint {
        match self.tells_its_size {
            true => SizeHint::with_exact(self.left),
            false => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn text() -> Bytes {
        (0..40_000_u32).map(|at| at as u8).collect::<Vec<_>>().into()
    }

    #[tokio::test]
    async fn all_arrives_in_whatever_pieces() {
        for reply in [Reply::of(text()), Reply::of(text()).dripping(Duration::from_millis(5))] {
            assert_eq!(reply.size_hint().exact(), Some(40_000));
            assert_eq!(reply.collect().await.unwrap().to_bytes(), text());
        }
        let empty = Reply::of(Bytes::new()).dripping(Duration::from_millis(5));
        assert!(empty.is_end_stream() && empty.collect().await.unwrap().to_bytes().is_empty());
    }

    #[tokio::test]
    async fn a_broken_one_promises_more_than_it_sends() {
        let mut broken = Reply::of(text()).broken(false);
        assert_eq!(broken.size_hint().exact(), Some(40_000));
        let mut sent = 0;
        let error = loop {
            match broken.frame().await.unwrap() {
                Ok(frame) => sent += frame.into_data().unwrap().len(),
                Err(error) => break error,
            }
        };
        assert_eq!((sent, error.to_string()), (20_000, "broken off".to_owned()));
        assert!(Reply::of(Bytes::new()).broken(false).frame().await.unwrap().is_err());
    }
}
