//! Sends a second request beside one that takes longer than nearly all others of its route; the first good answer counts.
//!
//! Goes inside [`retry`](super::retry), whose kept body it needs: a hedge is sent only when the client has sent its whole body. The tries
//! share the list of endpoints that were tried, so a hedge goes to another one. Whichever is not needed any more is dropped,
//! and gives back what it held; that is no failure of its endpoint.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use parking_lot::Mutex;
use tokio::time::sleep;
use tower::{Layer, Service, ServiceExt};

use super::{Asked, BoxFuture, Clock, Failed, grpc, replay::Replay, retry::is_idempotent};
use crate::{
    metrics as m,
    policy::{
        classify::{Outcome, Verdict},
        hedge::{Latencies, Settings},
        retry_budget::RetryBudget,
    },
};

/// Hedges.
#[derive(Clone, Debug)]
pub struct HedgeLayer {
    /// The clock of `budget`.
    pub clock: Clock,
    /// When to.
    pub settings: Settings,
    /// Whether every request of the route may be repeated, whatever its method.
    pub repeatable: bool,
    /// Shared by all requests of one route.
    pub latencies: Arc<Mutex<Latencies>>,
    /// Shared by all requests to one cluster.
    pub budget: Arc<Mutex<RetryBudget>>,
}

impl<S> Layer<S> for HedgeLayer {
    type Service = Hedge<S>;

    fn layer(&self, inner: S) -> Hedge<S> {
        Hedge { layer: self.clone(), inner }
    }
}

/// See [`HedgeLayer`].
#[derive(Clone, Debug)]
pub struct Hedge<S> {
    layer: HedgeLayer,
    inner: S,
}

impl<S, B, RB> Service<Asked<Replay<B>>> for Hedge<S>
where
    S: Service<Asked<Replay<B>>, Response = Response<RB>, Error = Failed> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    RB: Send + 'static,
{
    type Response = Response<RB>;
    type Error = Failed;
    type Future = BoxFuture<Result<Self::Response, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, asked: Asked<Replay<B>>) -> Self::Future {
        let (layer, inner) = (self.layer.clone(), self.inner.clone());
        Box::pin(async move {
            let began = layer.clock.now();
            let result = layer.first_good(inner, asked).await;
            if is_good(&result) {
                layer.latencies.lock().record(layer.clock.now().saturating_sub(began));
            }
            result
        })
    }
}

impl HedgeLayer {
    async fn first_good<S, B, RB>(&self, inner: S, asked: Asked<Replay<B>>) -> Result<Response<RB>, Failed>
    where
        S: Service<Asked<Replay<B>>, Response = Response<RB>, Error = Failed> + Clone,
        B: Body<Data = Bytes>,
    {
        let remaining = asked.deadline.remaining(self.clock.now());
        let repeatable = self.repeatable || is_idempotent(asked.request.method());
        let delay = repeatable.then(|| self.settings.delay(&self.latencies.lock(), remaining)).flatten();
        let Some(delay) = delay else { return inner.oneshot(asked).await };

        let Asked { request, deadline, tried } = asked;
        let (parts, body) = request.into_parts();
        let kept = body.handle();
        let asked = |parts, body| Asked { request: Request::from_parts(parts, body), deadline, tried: tried.clone() };
        let first = inner.clone().oneshot(asked(parts.clone(), body));
        tokio::pin!(first);
        tokio::select! {
            biased;
            result = &mut first => return result,
            () = sleep(delay) => {}
        }
        let beside = kept.beside();
        let now = self.clock.now();
        let hedge = self.settings.may_hedge(repeatable, beside.is_some(), &mut self.budget.lock(), now);
        if beside.is_some() && !hedge {
            count("unpaid");
        }
        let Some(body) = beside.filter(|_| hedge) else { return first.await };
        let second = inner.oneshot(asked(parts, body));
        tokio::pin!(second);
        // Of two that are not good, the one that came first is as good as the other.
        let (won, result) = tokio::select! {
            biased;
            result = &mut first => if is_good(&result) { (false, result) } else { better(true, second.await, result) },
            result = &mut second => if is_good(&result) { (true, result) } else { better(false, first.await, result) },
        };
        count(if won { "won" } else { "lost" });
        result
    }
}

/// The later one if it is good; beside it, whether what is taken is the hedge's answer.
fn better<R>(
    later_is_hedge: bool,
    later: Result<Response<R>, Failed>,
    earlier: Result<Response<R>, Failed>,
) -> (bool, Result<Response<R>, Failed>) {
    if is_good(&later) { (later_is_hedge, later) } else { (!later_is_hedge, earlier) }
}

fn count(result: &'static str) {
    metrics::counter!(m::HEDGES, "result" => result).increment(1);
}

fn is_good<R>(result: &Result<Response<R>, Failed>) -> bool {
    result.as_ref().is_ok_and(|response| {
        let grpc = grpc::status(response.headers());
        Outcome::Response { status: response.status().as_u16(), grpc }.verdict() == Verdict::Success
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::Full;
    use tokio::time::Instant;

    use super::*;
    use crate::{
        layer::testing::{Answer, Frames, Mock, answer, failed},
        policy::{classify::Fault, retry_budget},
    };

    /// Of a route whose requests take 10 ms, with a budget for so many hedges.
    fn layer(hedges: u32) -> HedgeLayer {
        let mut latencies = Latencies::default();
        (0..100).for_each(|_| latencies.record(Duration::from_millis(10)));
        let settings = retry_budget::Settings { ratio: 1.0, least_per_second: 0, ..retry_budget::Settings::default() };
        let mut budget = RetryBudget::new(settings);
        (0..hedges).for_each(|_| budget.deposit(Duration::ZERO));
        HedgeLayer {
            clock: Clock::start(),
            settings: Settings::default(),
            repeatable: false,
            latencies: Arc::new(Mutex::new(latencies)),
            budget: Arc::new(Mutex::new(budget)),
        }
    }

    async fn ask(layer: &HedgeLayer, method: &str, answers: Vec<Answer>) -> (Option<u16>, u128, Vec<String>) {
        let mock = Mock::new(answers);
        let started = Instant::now();
        let body = Replay::new(Full::new(Bytes::from("body")));
        let request = Request::builder().method(method).body(body).unwrap();
        let result: Result<Response<Frames>, Failed> = layer.layer(mock.clone()).oneshot(Asked::from(request)).await;
        let bodies = mock.seen.lock().iter().map(|seen| seen.body.clone()).collect();
        (result.ok().map(|response| response.status().as_u16()), started.elapsed().as_millis(), bodies)
    }

    /// The bucket that 10 ms are in ends below this.
    const DELAY: u128 = 11;

    #[tokio::test(start_paused = true)]
    async fn the_first_good_answer_counts() {
        for (answers, expected, took) in [
            (vec![answer(200).after(5), answer(201)], Some(200), 5),
            (vec![answer(200).after(500), answer(201).after(3)], Some(201), DELAY + 3),
            (vec![answer(200).after(50), answer(201).after(500)], Some(200), 50),
            (vec![answer(200).after(50), answer(503).after(3)], Some(200), 50),
            (vec![answer(200).after(50), failed(Failed::upstream(Fault::Connect))], Some(200), 50),
            (vec![answer(503).after(20), answer(201).after(100)], Some(201), DELAY + 100),
            (vec![answer(503).after(20), failed(Failed::upstream(Fault::Reset)).after(100)], Some(503), DELAY + 100),
        ] {
            let (status, elapsed, bodies) = ask(&layer(1), "GET", answers).await;
            assert_eq!(status, expected);
            assert!(elapsed.abs_diff(took) <= 1, "{elapsed} ms, not {took}");
            assert!(bodies.iter().all(|body| body == "body"), "{bodies:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_hedge_for_what_may_not_be_repeated_or_paid() {
        for (hedges, method, repeatable, calls) in
            [(1, "GET", false, 2), (0, "GET", false, 1), (1, "POST", false, 1), (1, "POST", true, 2)]
        {
            let layer = HedgeLayer { repeatable, ..layer(hedges) };
            let (_, _, bodies) = ask(&layer, method, vec![answer(200).after(100)]).await;
            assert_eq!(bodies.len(), calls, "{method}, {hedges} paid");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_hedge_while_the_client_still_sends() {
        let mock = Mock::new([answer(200).after(100).unread()]);
        let request = Request::new(Replay::new(Full::new(Bytes::from("body"))));
        let _ = layer(1).layer(mock.clone()).oneshot(Asked::from(request)).await;
        assert_eq!(mock.calls(), 1);
    }
}
