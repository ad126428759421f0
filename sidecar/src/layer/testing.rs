//! What the tests of the layers share: services that answer as they are told, and bodies in pieces.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tower::Service;

use super::{
    Asked, BoxFuture, Failed,
    breaker::{Ticket, Watched},
};

/// A body in frames, which are all there.
#[derive(Debug, Default)]
pub(crate) struct Frames(pub(crate) VecDeque<Frame<Bytes>>);

impl Frames {
    pub(crate) fn of(pieces: &[&str]) -> Self {
        Self(pieces.iter().map(|piece| Frame::data(Bytes::copy_from_slice(piece.as_bytes()))).collect())
    }

    pub(crate) fn with_trailers(mut self, trailers: &[(&'static str, &str)]) -> Self {
        self.0.push_back(Frame::trailers(headers(trailers)));
        self
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

pub(crate) fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
    of.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}

/// What a [`Mock`] is to do with a request.
pub(crate) struct Answer {
    pub(crate) after: Duration,
    pub(crate) with: Result<Response<Frames>, Failed>,
    /// Whether to read the request's body first.
    pub(crate) reads: bool,
}

pub(crate) fn answer(status: u16) -> Answer {
    let response = Response::builder().status(status).body(Frames::default()).unwrap();
    Answer { after: Duration::ZERO, with: Ok(response), reads: true }
}

pub(crate) fn failed(failed: Failed) -> Answer {
    Answer { with: Err(failed), ..answer(200) }
}

impl Answer {
    pub(crate) fn after(self, milliseconds: u64) -> Self {
        Self { after: Duration::from_millis(milliseconds), ..self }
    }

    pub(crate) fn headers(mut self, of: &[(&'static str, &str)]) -> Self {
        if let Ok(response) = &mut self.with {
            response.headers_mut().extend(headers(of));
        }
        self
    }

    pub(crate) fn body(self, body: Frames) -> Self {
        Self { with: self.with.map(|response| response.map(|_| body)), ..self }
    }

    pub(crate) fn unread(self) -> Self {
        Self { reads: false, ..self }
    }
}

/// A request as a [`Mock`] saw it.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// Gives the answers it was told, in turn, and then 200; and keeps what it saw.
#[derive(Clone, Default)]
pub(crate) struct Mock {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
}

impl Mock {
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), ..Self::default() }
    }

    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().len()
    }
}

impl<B> Service<Asked<B>> for Mock
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: std::fmt::Debug,
{
    type Response = Response<Frames>;
    type Error = Failed;
    type Future = BoxFuture<Result<Response<Frames>, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, asked: Asked<B>) -> Self::Future {
        let answer = self.answers.lock().pop_front().unwrap_or_else(|| answer(200));
        let (parts, mut body) = asked.request.into_parts();
        let index = {
            let mut seen = self.seen.lock();
            seen.push(Seen { headers: parts.headers, body: String::new() });
            seen.len() - 1
        };
        let seen = Arc::clone(&self.seen);
        Box::pin(async move {
            while answer.reads
                && let Some(frame) = body.frame().await
            {
                let frame = frame.expect("a body that can be read");
                if let Some(data) = frame.data_ref() {
                    seen.lock()[index].body.push_str(std::str::from_utf8(data).unwrap());
                }
            }
            tokio::time::sleep(answer.after).await;
            answer.with
        })
    }
}

/// Waits for the response to a try.
pub(crate) async fn watch<B: Body>(
    ticket: Ticket,
    response: impl Future<Output = Result<Response<B>, Failed>>,
) -> Result<Response<Watched<B>>, Failed> {
    ticket.met(response.await)
}
