//! A response's body whose beginning has been looked at: a gRPC status comes in trailers, after the message if there is one, and a
//! retry must know it before the client sees anything.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// A body, and the frames of it that were looked at and still are to be read.
#[derive(Debug)]
pub struct Peeked<B: Body> {
    front: VecDeque<Result<Frame<Bytes>, B::Error>>,
    body: B,
}

/// How a response begins, beyond its head.
#[derive(Clone, Copy, Debug)]
pub enum Beginning<'a> {
    /// With trailers, after one message at most.
    Trailers(&'a HeaderMap),
    /// With an error.
    Broken,
    /// In another way, or not yet.
    Other,
}

impl<B: Body<Data = Bytes> + Unpin> Peeked<B> {
    /// Without looking.
    pub fn new(body: B) -> Self {
        Self { front: VecDeque::new(), body }
    }

    /// Waits for the first frame. If that is a message, looks whether another is there already: a stream's next message is not
    /// waited for.
    pub async fn look(&mut self) -> Beginning<'_> {
        let first = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
        let is_message = matches!(&first, Some(Ok(frame)) if frame.is_data());
        self.front.extend(first);
        if is_message {
            let second = poll_fn(|cx| {
                Poll::Ready(match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(frame) => frame,
                    Poll::Pending => None,
                })
            });
            self.front.extend(second.await);
        }
        match self.front.back() {
            Some(Ok(frame)) => frame.trailers_ref().map_or(Beginning::Other, Beginning::Trailers),
            Some(Err(_)) => Beginning::Broken,
            None => Beginning::Other,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Peeked<B>
where
    B::Error: Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.front.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.front.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let looked_at =
            self.front.iter().flatten().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum::<u64>();
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(looked_at));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(looked_at)) {
            hint.set_upper(upper);
        }
        hint
    }
}
