//! Answers that go on for as long as the client likes: they end when the server stops.
//!
//! A watch of health, a reflection and a quota stream have no end of their own. Each would hold up the shutdown until its connection is cut
//! off. So the stream of a call is ended, with a status that says to come again elsewhere, as soon as it has nothing more to say.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

/// Ends a response when `stop` is cancelled.
pub(super) async fn answer(State(stop): State<CancellationToken>, response: Response) -> Response {
    let mut unavailable = HeaderMap::with_capacity(2);
    // It only fails for metadata, of which there is none.
    let _ = Status::unavailable("the server is stopping").add_header(&mut unavailable);
    response.map(|body| UntilStopped::of(body, stop, Some(unavailable)))
}

/// Ends a request when `stop` is cancelled, for services that read on whatever becomes of their answer.
pub(super) async fn question(State(stop): State<CancellationToken>, request: Request) -> Request {
    request.map(|body| UntilStopped::of(body, stop, None))
}

struct UntilStopped {
    body: Body,
    /// Taken when it was heeded.
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// What comes last then.
    trailers: Option<HeaderMap>,
}

impl UntilStopped {
    fn of(body: Body, stop: CancellationToken, trailers: Option<HeaderMap>) -> Body {
        Body::new(Self { body, stop: Some(Box::pin(stop.cancelled_owned())), trailers })
    }
}

impl http_body::Body for UntilStopped {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        if let Some(stop) = &mut this.stop {
            ready!(stop.as_mut().poll(context));
            this.stop = None;
            // What it holds is let go of now, not when the other end has read this.
            this.body = Body::empty();
        }
        Poll::Ready(this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && (self.stop.is_some() || self.trailers.is_none())
    }
}
