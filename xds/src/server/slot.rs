//! Between a stream and its connection: at most one response that the connection has not taken.
//!
//! Not a channel: a channel keeps room for more, in each of thousands of streams.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use tonic::Status;

/// Both ends of a place for one response.
pub(super) fn slot<R>() -> (Outlet<R>, Inlet<R>) {
    let slot = Arc::new(Mutex::new(Slot {
        response: None,
        end: None,
        ended: false,
        closed: false,
        on_response: None,
        on_room: None,
        on_closed: None,
    }));
    (Outlet(slot.clone()), Inlet(slot))
}

struct Slot<R> {
    response: Option<R>,
    /// Why there will be no more responses, if not because all is said.
    end: Option<Status>,
    ended: bool,
    /// Whether nothing will be taken any more.
    closed: bool,
    on_response: Option<Waker>,
    on_room: Option<Waker>,
    on_closed: Option<Waker>,
}

/// The sending end of a stream.
pub(crate) struct Outlet<R>(Arc<Mutex<Slot<R>>>);

impl<R> Outlet<R> {
    /// Sends `response`, or gives it back if the connection has not taken the one before, or takes nothing any more.
    pub(crate) fn try_send(&self, response: R) -> Result<(), R> {
        let mut slot = self.0.lock();
        if slot.response.is_some() || slot.closed {
            return Err(response);
        }
        slot.response = Some(response);
        let waker = slot.on_response.take();
        drop(slot);
        wake(waker);
        Ok(())
    }

    /// Returns whether there is still somebody at the other end, as soon as there is room for a response.
    pub(crate) async fn room(&self) -> bool {
        poll_fn(|context| {
            let mut slot = self.0.lock();
            if slot.closed || slot.response.is_none() {
                return Poll::Ready(!slot.closed);
            }
            slot.on_room = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Returns when nothing will be taken any more.
    pub(crate) async fn closed(&self) {
        poll_fn(|context| {
            let mut slot = self.0.lock();
            if slot.closed {
                return Poll::Ready(());
            }
            slot.on_closed = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Ends the stream with `status`, after the response it was given. Does not wait for that.
    pub(crate) fn end(self, status: Status) {
        self.0.lock().end = Some(status);
    }
}

impl<R> Drop for Outlet<R> {
    fn drop(&mut self) {
        let mut slot = self.0.lock();
        slot.ended = true;
        let waker = slot.on_response.take();
        drop(slot);
        wake(waker);
    }
}

/// The connection's end of a stream.
pub(super) struct Inlet<R>(Arc<Mutex<Slot<R>>>);

impl<R> Inlet<R> {
    /// The next response, or how the stream ended.
    pub(super) fn poll_next(&mut self, context: &Context<'_>) -> Poll<Result<R, Status>> {
        let mut slot = self.0.lock();
        if let Some(response) = slot.response.take() {
            let waker = slot.on_room.take();
            drop(slot);
            wake(waker);
            return Poll::Ready(Ok(response));
        }
        if slot.ended {
            return Poll::Ready(Err(slot.end.take().unwrap_or_else(|| Status::ok(""))));
        }
        slot.on_response = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<R> Drop for Inlet<R> {
    fn drop(&mut self) {
        let mut slot = self.0.lock();
        slot.closed = true;
        let (response, wakers) = (slot.response.take(), [slot.on_room.take(), slot.on_closed.take()]);
        drop(slot);
        drop(response);
        wakers.into_iter().for_each(wake);
    }
}

/// Without the lock: who is woken may come at once.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
        time::Duration,
    };

    use futures_util::FutureExt as _;
    use tokio::{task::yield_now, time::timeout};
    use tonic::Code;

    use super::*;

    /// Long enough for anything here.
    const DEADLINE: Duration = Duration::from_secs(10);

    async fn next<R>(inlet: &mut Inlet<R>) -> Result<R, Status> {
        timeout(DEADLINE, poll_fn(|context| inlet.poll_next(context))).await.unwrap()
    }

    #[tokio::test]
    async fn there_is_one_response_at_a_time_and_then_the_end() {
        let (outlet, mut inlet) = slot();
        assert_eq!(outlet.try_send(1), Ok(()));
        assert_eq!(outlet.try_send(2), Err(2), "the first was not taken");
        assert!(outlet.room().now_or_never().is_none());
        assert_eq!(next(&mut inlet).await.unwrap(), 1);
        assert_eq!(outlet.room().now_or_never(), Some(true));
        assert_eq!(outlet.try_send(2), Ok(()));
        outlet.end(Status::aborted("enough"));
        assert_eq!(next(&mut inlet).await.unwrap(), 2);
        assert_eq!(next(&mut inlet).await.unwrap_err().code(), Code::Aborted);
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_is_woken() {
        let (outlet, mut inlet) = slot();
        let woken = Arc::<Woken>::default();
        let (waker, times) = (Waker::from(woken.clone()), || woken.0.load(Ordering::Relaxed));
        let mut context = Context::from_waker(&waker);
        assert!(inlet.poll_next(&context).is_pending());
        outlet.try_send(1).unwrap();
        assert_eq!(times(), 1, "there is a response");
        assert!(pin!(outlet.room()).poll(&mut context).is_pending());
        assert!(inlet.poll_next(&context).is_ready());
        assert_eq!(times(), 2, "there is room");
        assert!(inlet.poll_next(&context).is_pending());
        drop(outlet);
        assert_eq!(times(), 3, "there is an end");
        let Poll::Ready(Err(end)) = inlet.poll_next(&context) else { panic!("it goes on") };
        assert_eq!(end.code(), Code::Ok, "all is said");
    }

    #[tokio::test]
    async fn a_connection_that_is_gone_takes_nothing() {
        let (outlet, inlet) = slot();
        outlet.try_send(1).unwrap();
        let outlet = Arc::new(outlet);
        let waiting = [
            tokio::spawn({
                let outlet = outlet.clone();
                async move { outlet.room().await }
            }),
            tokio::spawn({
                let outlet = outlet.clone();
                async move {
                    outlet.closed().await;
                    true
                }
            }),
        ];
        yield_now().await;
        drop(inlet);
        let [room, closed] = waiting.map(|waiting| timeout(DEADLINE, waiting));
        assert!(!room.await.unwrap().unwrap());
        assert!(closed.await.unwrap().unwrap());
        assert_eq!(outlet.try_send(2), Err(2));
    }
}
