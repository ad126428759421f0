//! The cluster's limits: how many requests are sent at once, how many wait for that, and for how long.
//!
//! Who waits in vain tells the others: from the first request that waited for too long until one gets through, whoever would
//! have to wait fails at once ("failfast", linkerd2-proxy). A cluster that has stopped answering then costs its callers no more
//! than that first wait.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tower::{Layer, Service, ServiceExt};

use super::{BoxFuture, Failed, Overload, held::Held};

/// How much of a cluster's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Under way at once; 1024 (Envoy's `max_requests`).
    pub requests: usize,
    /// Waiting for that; 1024 (Envoy's `max_pending_requests`).
    pub pending: usize,
    /// For how long; 1 s.
    pub wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests: 1_024, pending: 1_024, wait: Duration::from_secs(1) }
    }
}

/// Where the requests to one cluster wait.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    places: Arc<Semaphore>,
    pending: AtomicUsize,
    failing_fast: AtomicBool,
}

/// A request that waits.
struct Pending<'a>(&'a AtomicUsize);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    /// An empty one.
    pub fn new(limits: Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.requests.min(Semaphore::MAX_PERMITS)));
        Self { limits, places, pending: AtomicUsize::new(0), failing_fast: AtomicBool::new(false) }
    }

    /// How many requests wait.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// How many requests are under way.
    pub fn under_way(&self) -> usize {
        self.limits.requests.min(Semaphore::MAX_PERMITS).saturating_sub(self.places.available_permits())
    }

    /// Whether requests that would have to wait fail at once.
    pub fn is_failing_fast(&self) -> bool {
        self.failing_fast.load(Ordering::Relaxed)
    }

    /// A place, if one is free.
    fn enter(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        self.failing_fast.store(false, Ordering::Relaxed);
        Some(place)
    }

    /// A place, when it is the request's turn.
    async fn wait(&self) -> Result<OwnedSemaphorePermit, Overload> {
        if self.is_failing_fast() {
            return Err(Overload::FailFast);
        }
        let waiting = self.pending.fetch_add(1, Ordering::Relaxed);
        let _pending = Pending(&self.pending);
        if waiting >= self.limits.pending {
            return Err(Overload::QueueFull);
        }
        // The semaphore is never closed; if it were, there would be no place.
        match timeout(self.limits.wait, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => {
                self.failing_fast.store(false, Ordering::Relaxed);
                Ok(place)
            }
            Ok(Err(_)) | Err(_) => {
                self.failing_fast.store(true, Ordering::Relaxed);
                Err(Overload::QueueTimeout)
            }
        }
    }
}

/// Sends requests through `queue`.
#[derive(Clone, Debug)]
pub struct QueueLayer {
    /// Shared by all requests to one cluster.
    pub queue: Arc<Queue>,
}

impl<S> Layer<S> for QueueLayer {
    type Service = Queued<S>;

    fn layer(&self, inner: S) -> Queued<S> {
        Queued { queue: Arc::clone(&self.queue), inner }
    }
}

/// See [`QueueLayer`].
#[derive(Clone, Debug)]
pub struct Queued<S> {
    queue: Arc<Queue>,
    inner: S,
}

impl<S, R, RB> Service<R> for Queued<S>
where
    S: Service<R, Response = Response<RB>, Error = Failed> + Clone + Send + 'static,
    S::Future: Send + Unpin,
    R: Send + 'static,
    RB: Body<Data = Bytes>,
{
    type Response = Response<Held<RB, Option<OwnedSemaphorePermit>>>;
    type Error = Failed;
    type Future = Turn<S::Future, Self::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        if let Some(place) = self.queue.enter() {
            return Turn::Now { place: Some(place), inner: self.inner.call(request) };
        }
        let (queue, inner) = (Arc::clone(&self.queue), self.inner.clone());
        Turn::Later(Box::pin(async move {
            let place = queue.wait().await.map_err(Failed::Overloaded)?;
            Ok(inner.oneshot(request).await?.map(|body| Held::new(body, Some(place))))
        }))
    }
}

/// A request on its way through a queue.
pub enum Turn<F, R> {
    /// Nearly always there is a place.
    Now {
        /// It.
        place: Option<OwnedSemaphorePermit>,
        /// What may go on.
        inner: F,
    },
    /// It waits for one first.
    Later(BoxFuture<Result<R, Failed>>),
}

impl<F, RB> Future for Turn<F, Response<Held<RB, Option<OwnedSemaphorePermit>>>>
where
    F: Future<Output = Result<Response<RB>, Failed>> + Unpin,
    RB: Body<Data = Bytes>,
{
    type Output = Result<Response<Held<RB, Option<OwnedSemaphorePermit>>>, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Later(later) => later.as_mut().poll(cx),
            Self::Now { place, inner } => {
                let answer = ready!(Pin::new(inner).poll(cx));
                let place = place.take();
                Poll::Ready(answer.map(|response| response.map(|body| Held::new(body, place))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use tokio::time::Instant;

    use super::*;
    use crate::layer::{
        Asked,
        testing::{Frames, Mock, answer},
    };

    fn queue(requests: usize, pending: usize) -> QueueLayer {
        let wait = Duration::from_millis(100);
        QueueLayer { queue: Arc::new(Queue::new(Limits { requests, pending, wait })) }
    }

    type Answered = Result<Response<Held<Frames, Option<OwnedSemaphorePermit>>>, Failed>;

    fn ask(layer: &QueueLayer, takes: u64) -> tokio::task::JoinHandle<Answered> {
        tokio::spawn(
            layer.layer(Mock::new([answer(200).after(takes)])).oneshot(Asked::from(Request::new(Frames::default()))),
        )
    }

    fn overload(answered: &Answered) -> Option<Overload> {
        match answered {
            Err(Failed::Overloaded(overload)) => Some(*overload),
            _ => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_for_their_turn_and_no_more_than_may() {
        let layer = queue(1, 1);
        let (first, second, third) = (ask(&layer, 50), ask(&layer, 10), ask(&layer, 10));
        assert_eq!(overload(&third.await.unwrap()), Some(Overload::QueueFull));
        assert_eq!((layer.queue.under_way(), layer.queue.pending()), (1, 1));
        let started = Instant::now();
        assert!(first.await.unwrap().is_ok() && second.await.unwrap().is_ok());
        assert_eq!(started.elapsed().as_millis(), 60);
        assert_eq!((layer.queue.under_way(), layer.queue.pending()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn after_one_has_waited_in_vain_the_others_do_not() {
        let layer = queue(1, 9);
        let stuck = ask(&layer, 500);
        let started = Instant::now();
        assert_eq!(overload(&ask(&layer, 1).await.unwrap()), Some(Overload::QueueTimeout));
        assert_eq!(started.elapsed().as_millis(), 100);
        assert_eq!(overload(&ask(&layer, 1).await.unwrap()), Some(Overload::FailFast));
        assert_eq!(started.elapsed().as_millis(), 100, "at once");
        drop(stuck.await.unwrap());
        assert!(ask(&layer, 1).await.unwrap().is_ok());
        assert!(!layer.queue.is_failing_fast());
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_while_waiting_leaves_no_trace() {
        let layer = queue(1, 1);
        let first = ask(&layer, 50);
        let second = ask(&layer, 1);
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(layer.queue.pending(), 1);
        second.abort();
        assert!(second.await.unwrap_err().is_cancelled());
        assert_eq!(layer.queue.pending(), 0);
        assert!(first.await.unwrap().is_ok() && ask(&layer, 1).await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_read_keeps_its_place() {
        let layer = queue(1, 0);
        let response = layer
            .layer(Mock::new([answer(200).body(Frames::of(&["x"]))]))
            .oneshot(Asked::from(Request::new(Frames::default())));
        let response = response.await.unwrap();
        assert_eq!(overload(&ask(&layer, 1).await.unwrap()), Some(Overload::QueueFull));
        drop(response);
        assert!(ask(&layer, 1).await.unwrap().is_ok());
    }
}
