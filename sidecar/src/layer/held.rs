//! A body that holds something until it has ended or is dropped: a place under a limit, or a request under way.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// A body and what it holds.
#[derive(Debug)]
pub struct Held<B, G> {
    body: B,
    guard: Option<G>,
}

impl<B: Body, G> Held<B, G> {
    /// Gives `guard` to `body`. A body that has ended already holds nothing.
    pub fn new(body: B, guard: G) -> Self {
        let guard = (!body.is_end_stream()).then_some(guard);
        Self { body, guard }
    }

    /// The body alone.
    pub fn into_inner(self) -> B {
        self.body
    }
}

impl<B: Body<Data = Bytes> + Unpin, G: Unpin> Body for Held<B, G> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) || self.body.is_end_stream() {
            self.guard = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::{BodyExt, Empty, Full};

    use super::*;

    #[tokio::test]
    async fn it_holds_until_the_end_or_until_dropped() {
        let guard = Arc::new(());
        let mut body = Held::new(Full::new(Bytes::from("x")), Arc::clone(&guard));
        assert_eq!(Arc::strong_count(&guard), 2);
        body.frame().await.unwrap().unwrap();
        assert_eq!(Arc::strong_count(&guard), 1, "it has ended");
        let body = Held::new(Full::new(Bytes::from("x")), Arc::clone(&guard));
        assert_eq!(Arc::strong_count(&guard), 2);
        drop(body);
        assert_eq!(Arc::strong_count(&guard), 1);
        let _empty = Held::new(Empty::<Bytes>::new(), Arc::clone(&guard));
        assert_eq!(Arc::strong_count(&guard), 1);
    }
}
