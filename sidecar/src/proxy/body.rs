//! Bodies: streamed, of whatever origin, and perhaps holding something until they have ended.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};

pub use crate::layer::BoxError;

/// A body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Nothing.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// These bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Any body. One that has ended is nothing, which takes no room.
pub fn boxed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    if body.is_end_stream() { empty() } else { body.map_err(Into::into).boxed_unsync() }
}

/// How a body was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At its end.
    Whole,
    /// It broke off.
    Broken,
    /// Nobody wanted the rest.
    Abandoned,
}

/// Hears, once, how a body was left.
pub trait OnEnd: Send + Unpin {
    /// These are its trailers.
    fn trailers(&mut self, _: &HeaderMap) {}

    /// It is over.
    fn end(self, end: End);
}

/// A body that tells `on_end` when it is over.
pub struct Watched<B, E: OnEnd> {
    body: B,
    on_end: Option<E>,
}

impl<B: http_body::Body, E: OnEnd> Watched<B, E> {
    /// Watches `body`, which may be over already.
    pub fn new(body: B, on_end: E) -> Self {
        let mut watched = Self { body, on_end: Some(on_end) };
        if watched.body.is_end_stream() {
            watched.over(End::Whole);
        }
        watched
    }
}

impl<B, E: OnEnd> Watched<B, E> {
    fn over(&mut self, end: End) {
        if let Some(on_end) = self.on_end.take() {
            on_end.end(end);
        }
    }
}

impl<B, E: OnEnd> Drop for Watched<B, E> {
    fn drop(&mut self) {
        self.over(End::Abandoned);
    }
}

impl<B, E> http_body::Body for Watched<B, E>
where
    B: http_body::Body<Data = Bytes> + Unpin,
    E: OnEnd,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(on_end), Some(trailers)) = (&mut self.on_end, frame.trailers_ref()) {
                    on_end.trailers(trailers);
                }
                // Nobody asks for what comes after the end that a body itself announces.
                if self.body.is_end_stream() {
                    self.over(End::Whole);
                }
            }
            Some(Err(_)) => self.over(End::Broken),
            None => self.over(End::Whole),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
