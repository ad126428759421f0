//! Lets so many requests in as [`Concurrency`] allows, and turns the others away before anything of them is read.
//!
//! A request is under way until its response's body has ended. What is measured, though, is the time to the response's head: how
//! long a body takes is up to who reads it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::Body;
use parking_lot::Mutex;
use tower::{Layer, Service};

use super::{Clock, Failed, Overload, held::Held};
use crate::policy::{
    classify::{Fault, Outcome},
    concurrency::{Concurrency, Ended},
};

/// Lets so many requests in as `concurrency` allows.
#[derive(Clone, Debug)]
pub struct ConcurrencyLayer {
    /// The clock of `concurrency`.
    pub clock: Clock,
    /// Shared by all that count together.
    pub concurrency: Arc<Mutex<Concurrency>>,
}

impl<S> Layer<S> for ConcurrencyLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited { layer: self.clone(), inner }
    }
}

/// See [`ConcurrencyLayer`].
#[derive(Clone, Debug)]
pub struct Limited<S> {
    layer: ConcurrencyLayer,
    inner: S,
}

/// A request that is under way.
#[derive(Debug)]
pub struct UnderWay {
    layer: ConcurrencyLayer,
    began: Duration,
    ended: Ended,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.layer.concurrency.lock().release(self.ended, self.layer.clock.now());
    }
}

impl UnderWay {
    fn began(layer: &ConcurrencyLayer) -> Option<Self> {
        let admitted = layer.concurrency.lock().try_admit();
        admitted.then(|| Self { layer: layer.clone(), began: layer.clock.now(), ended: Ended::Ignored })
    }

    /// Notes how it ended, for when it has.
    fn note(&mut self, outcome: Outcome) {
        let took = self.layer.clock.now().saturating_sub(self.began);
        self.ended = match outcome {
            Outcome::Response { .. } if matches!(outcome.effective_status(), 429 | 503 | 504) => Ended::Dropped(took),
            Outcome::Response { .. } => Ended::Answered(took),
            Outcome::Fault(Fault::TryTimeout | Fault::LocalOverload) => Ended::Dropped(took),
            Outcome::Fault(_) => Ended::Ignored,
        };
    }
}

impl<S, R, RB> Service<R> for Limited<S>
where
    S: Service<R, Response = Response<RB>, Error = Failed>,
    S::Future: Unpin,
    RB: Body<Data = Bytes>,
{
    type Response = Response<Held<RB, Option<UnderWay>>>;
    type Error = Failed;
    type Future = Admission<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        Admission(UnderWay::began(&self.layer).map(|under_way| (under_way, self.inner.call(request))))
    }
}

/// A request on its way in, with what goes on; `None`: it is turned away.
#[derive(Debug)]
pub struct Admission<F>(Option<(UnderWay, F)>);

impl<F, RB> Future for Admission<F>
where
    F: Future<Output = Result<Response<RB>, Failed>> + Unpin,
    RB: Body<Data = Bytes>,
{
    type Output = Result<Response<Held<RB, Option<UnderWay>>>, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((under_way, inner)) = &mut self.0 else {
            return Poll::Ready(Err(Failed::Overloaded(Overload::Concurrency)));
        };
        let answer = ready!(Pin::new(inner).poll(cx));
        under_way.note(match &answer {
            Ok(response) => {
                let grpc = super::grpc::status(response.headers());
                Outcome::Response { status: response.status().as_u16(), grpc }
            }
            Err(failed) => failed.outcome(),
        });
        let under_way = self.0.take().map(|(under_way, _)| under_way);
        Poll::Ready(answer.map(|response| response.map(|body| Held::new(body, under_way))))
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        layer::{
            Asked,
            testing::{Frames, Mock, answer, failed},
        },
        policy::concurrency::{Aimd, Settings},
    };

    fn layer(settings: Settings) -> ConcurrencyLayer {
        let clock = Clock::start();
        ConcurrencyLayer { clock, concurrency: Arc::new(Mutex::new(Concurrency::new(settings, clock.now()))) }
    }

    fn request() -> Asked<Frames> {
        Request::new(Frames::default()).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_is_under_way_until_its_body_has_ended() {
        let layer = layer(Settings::Fixed(1));
        let mock = Mock::new([answer(200).body(Frames::of(&["x"])), answer(200).body(Frames::of(&["x"]))]);
        let mut response = layer.layer(mock.clone()).oneshot(request()).await.unwrap();
        let refused = layer.layer(mock.clone()).oneshot(request()).await;
        assert!(matches!(refused, Err(Failed::Overloaded(Overload::Concurrency))));
        assert_eq!(mock.calls(), 1, "turned away before anything was sent");
        response.body_mut().frame().await.unwrap().unwrap();
        let dropped = layer.layer(mock.clone()).oneshot(request()).await.unwrap();
        drop(dropped);
        assert_eq!(layer.concurrency.lock().in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_goes_away_is_not_under_way() {
        let layer = layer(Settings::Fixed(1));
        let waits = layer.layer(Mock::new([answer(200).after(1_000)])).oneshot(request());
        assert!(tokio::time::timeout(Duration::from_millis(10), waits).await.is_err());
        assert_eq!(layer.concurrency.lock().in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn drops_are_drops_and_the_rest_is_not() {
        for (answers, limit) in [
            (vec![answer(503)], 90),
            (vec![answer(429)], 90),
            (vec![answer(500)], 100),
            (vec![failed(Failed::upstream(Fault::TryTimeout))], 90),
            (vec![failed(Failed::upstream(Fault::Connect)), answer(200)], 100),
        ] {
            let layer = layer(Settings::Aimd(Aimd { initial: 100, ..Aimd::default() }));
            let mut answers: Vec<_> = answers.into_iter().collect();
            answers.extend((0..10).map(|_| answer(200)));
            let mock = Mock::new(answers);
            tokio::time::advance(Duration::from_secs(1)).await;
            for _ in 0..12 {
                let _ = layer.layer(mock.clone()).oneshot(request()).await;
            }
            assert_eq!(layer.concurrency.lock().limit(), limit);
        }
    }
}
