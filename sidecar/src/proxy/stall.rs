//! Callers that stall: who has begun to send a request and does not go on, or has asked for something and does not take it.
//!
//! Each holds a place under the limits and a connection to an endpoint, and may have no deadline. So whoever does nothing for as
//! long as a port has [`Patience`] loses what it holds. Only waiting for the caller counts: an application may think for as long
//! as the deadline allows, and a stream whose answer has begun may rest for as long as both sides want.
//!
//! A body that arrives is asked for more, so a timer in it is enough. One that nobody takes is not asked (there is no room for it in the
//! window or in the socket), so its connection looks after it, and takes it away from whoever does not want it.
//!
//! What breaks off is the caller's doing, too: [`Arrival`] knows, so that no endpoint is blamed for it.

use std::{
    future::Future as _,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep};

use super::body::{Body, BoxError, boxed, empty};
use crate::{layer::Failed, policy::classify::Fault};

/// How long a caller may do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience(pub Duration);

/// The caller did nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error("the caller did not go on")]
pub struct Stalled;

/// How the body of a request arrives; `None`: there is none.
#[derive(Clone, Debug)]
pub struct Arrival(Option<Arc<AtomicU8>>);

const ARRIVES: u8 = 0;
const ANSWERED: u8 = 1;
const BROKEN_OFF: u8 = 2;
const STALLED: u8 = 3;

impl Arrival {
    /// The answer has begun.
    pub fn answered(&self) {
        if let Some(arrives) = &self.0 {
            // What went wrong before stays.
            let _ = arrives.compare_exchange(ARRIVES, ANSWERED, SeqCst, SeqCst);
        }
    }

    /// Why there is no answer: the caller's own doing, if its request did not come to its end.
    pub fn judge(&self, failed: Failed) -> Failed {
        let Some(arrives) = &self.0 else { return failed };
        match (arrives.load(SeqCst), failed) {
            (STALLED, _) => Failed::Upstream { fault: Fault::Cancelled, source: Some(Stalled.into()) },
            (BROKEN_OFF, Failed::Upstream { source, .. }) => Failed::Upstream { fault: Fault::Cancelled, source },
            (_, failed) => failed,
        }
    }
}

/// `body` as it arrives, from a caller that may rest for so long until it is answered.
pub fn arriving<B>(body: B, patience: Patience) -> (Body, Arrival)
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    if body.is_end_stream() {
        return (empty(), Arrival(None));
    }
    let arrival = Arc::new(AtomicU8::new(ARRIVES));
    let arriving = Arriving { body, patience, waiting: None, arrival: arrival.clone() };
    (boxed(arriving), Arrival(Some(arrival)))
}

struct Arriving<B> {
    body: B,
    patience: Patience,
    /// Since the caller is waited for.
    waiting: Option<Pin<Box<Sleep>>>,
    arrival: Arc<AtomicU8>,
}

impl<B> HttpBody for Arriving<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waiting = None;
            if matches!(frame, Some(Err(_))) {
                this.arrival.store(BROKEN_OFF, SeqCst);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if this.arrival.load(SeqCst) == ANSWERED {
            return Poll::Pending;
        }
        let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(this.patience.0)));
        if waiting.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        match this.arrival.compare_exchange(ARRIVES, STALLED, SeqCst, SeqCst) {
            Ok(_) => Poll::Ready(Some(Err(Stalled.into()))),
            // Answered meanwhile.
            Err(_) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The answers that a connection has to deliver.
#[derive(Clone, Debug)]
pub struct Deliveries {
    patience: Patience,
    all: Arc<Mutex<Vec<Weak<Mutex<Delivery>>>>>,
}

/// What has become of an answer that is delivered.
#[derive(Debug)]
pub struct Delivery {
    /// `None`: taken away.
    body: Option<Body>,
    /// Since when the caller could take what there is; `None`: there is nothing.
    ready: Option<Instant>,
}

impl Deliveries {
    /// None yet.
    pub fn new(patience: Patience) -> Self {
        Self { patience, all: Arc::default() }
    }

    /// `body`, looked after.
    pub fn look_after(&self, body: Body) -> Delivering {
        if body.is_end_stream() {
            return Delivering::Ended(body);
        }
        let delivery = Arc::new(Mutex::new(Delivery { body: Some(body), ready: Some(Instant::now()) }));
        let mut all = self.all.lock();
        if all.len() == all.capacity() {
            // Before it grows: as long as those under way, and half as long again at most.
            all.retain(|one| one.strong_count() > 0);
        }
        all.push(Arc::downgrade(&delivery));
        drop(all);
        Delivering::LookedAfter(delivery)
    }

    /// Takes away what nobody has taken for too long; how many those are. To be called now and then.
    pub fn sweep(&self) -> usize {
        let now = Instant::now();
        let mut taken = Vec::new();
        self.all.lock().retain(|one| {
            let Some(delivery) = one.upgrade() else { return false };
            let mut delivery = delivery.lock();
            let late = delivery.ready.is_some_and(|since| now.duration_since(since) >= self.patience.0);
            if late {
                taken.extend(delivery.body.take());
            }
            !late
        });
        // Dropped here, without a lock.
        taken.len()
    }
}

/// An answer on its way to its caller.
#[derive(Debug)]
pub enum Delivering {
    /// There is nothing to take.
    Ended(Body),
    /// It may be taken away.
    LookedAfter(Arc<Mutex<Delivery>>),
}

impl HttpBody for Delivering {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut delivery = match &mut *self {
            Self::Ended(body) => return Pin::new(body).poll_frame(cx),
            Self::LookedAfter(delivery) => delivery.lock(),
        };
        let Some(body) = &mut delivery.body else { return Poll::Ready(Some(Err(Stalled.into()))) };
        let polled = Pin::new(body).poll_frame(cx);
        delivery.ready = polled.is_ready().then(Instant::now);
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Ended(body) => body.is_end_stream(),
            Self::LookedAfter(delivery) => delivery.lock().body.as_ref().is_some_and(HttpBody::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Ended(body) => body.size_hint(),
            Self::LookedAfter(delivery) => delivery.lock().body.as_ref().map(HttpBody::size_hint).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;
    use crate::proxy::body::full;

    const PATIENCE: Patience = Patience(Duration::from_secs(60));

    fn frames(waits: &[u64]) -> Body {
        let frames = stream::iter(waits.to_vec()).then(|wait| async move {
            sleep(Duration::from_secs(wait)).await;
            Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"x")))
        });
        boxed(StreamBody::new(Box::pin(frames)))
    }

    fn failed() -> Failed {
        Failed::upstream(Fault::Reset)
    }

    fn fault(failed: &Failed) -> Fault {
        match failed {
            Failed::Upstream { fault, .. } => *fault,
            other => panic!("{other}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_may_be_slow_but_not_stall() {
        let (slow, arrival) = arriving(frames(&[50, 50, 50]), PATIENCE);
        assert_eq!(slow.collect().await.unwrap().to_bytes().len(), 3);
        assert_eq!(fault(&arrival.judge(failed())), Fault::Reset, "it came to its end");
        let (stalled, arrival) = arriving(frames(&[1, 70]), PATIENCE);
        let began = Instant::now();
        assert!(stalled.collect().await.unwrap_err().is::<Stalled>());
        assert_eq!(began.elapsed(), Duration::from_secs(61));
        assert_eq!(fault(&arrival.judge(failed())), Fault::Cancelled);
        let (answered, arrival) = arriving(frames(&[1, 7000]), PATIENCE);
        arrival.answered();
        assert!(answered.collect().await.is_ok());
    }

    #[tokio::test]
    async fn what_a_caller_breaks_off_is_its_own_doing() {
        let broken = stream::iter([Ok(Frame::data(Bytes::from_static(b"x"))), Err(std::io::Error::other("gone"))]);
        let (broken, arrival) = arriving(StreamBody::new(broken), PATIENCE);
        assert!(broken.collect().await.is_err());
        arrival.answered();
        assert_eq!(fault(&arrival.judge(failed())), Fault::Cancelled);
        assert!(matches!(arrival.judge(Failed::Deadline), Failed::Deadline));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_taken_away() {
        let held = Arc::new(());
        let body = |held: Arc<()>| boxed(crate::layer::held::Held::new(full("text"), held));
        let deliveries = Deliveries::new(PATIENCE);
        let mut untouched = deliveries.look_after(body(held.clone()));
        let mut thinking = deliveries.look_after(frames(&[7000]));
        assert!(thinking.frame().now_or_never().is_none(), "there is nothing to take yet");
        tokio::time::advance(PATIENCE.0 / 2).await;
        assert_eq!((deliveries.sweep(), Arc::strong_count(&held)), (0, 2));
        tokio::time::advance(PATIENCE.0 / 2).await;
        assert_eq!((deliveries.sweep(), Arc::strong_count(&held)), (1, 1));
        assert!(untouched.frame().await.unwrap().unwrap_err().is::<Stalled>());
        assert!(thinking.frame().await.unwrap().is_ok());
        tokio::time::advance(PATIENCE.0).await;
        assert_eq!(deliveries.sweep(), 1, "now there was something");
    }

    #[tokio::test]
    async fn what_was_delivered_is_forgotten() {
        let deliveries = Deliveries::new(PATIENCE);
        for _ in 0..1000 {
            assert_eq!(deliveries.look_after(full("text")).collect().await.unwrap().to_bytes(), "text");
        }
        assert!(deliveries.all.lock().capacity() < 10);
    }
}
