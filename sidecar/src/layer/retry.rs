//! Tries again what failed, as a [`RetryPolicy`] decides.
//!
//! The body is [kept](super::replay) while it is sent. Each try [carries along](Asked) its own
//! [`Deadline`], which is the request's or that of the try, and the endpoints that were [`Tried`], which all tries share. A try that takes
//! longer than one may is dropped; the request as a whole is dropped by whoever holds it to its deadline.
//!
//! Of a gRPC response the [beginning](super::peek) is looked at, if it matters and the client has sent all it has to say: one
//! that has not might wait for the head of the response before it goes on.

use std::{
    fmt,
    future::{Future, poll_fn},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, request::Parts};
use http_body::Body;
use metrics::SharedString;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tower::{Layer, Service};

use super::{
    Asked, BoxError, BoxFuture, Clock, Failed,
    breaker::Tried,
    chance, deadline, grpc,
    peek::{Beginning, Peeked},
    replay::Replay,
};
use crate::{
    metrics as m,
    policy::{
        classify::{Fault, Outcome},
        deadline::Deadline,
        pushback::Pushback,
        retry::{Decision, Ended, RetryPolicy, Stop},
        retry_budget::RetryBudget,
    },
};

const RATELIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

/// Says whether a response's headers are among those that a route lists for retries.
pub type HeaderTest = Arc<dyn Fn(&HeaderMap) -> bool + Send + Sync>;

/// Tries again.
#[derive(Clone)]
pub struct RetryLayer {
    /// The clock of `budget`.
    pub clock: Clock,
    /// When to.
    pub policy: Arc<RetryPolicy>,
    /// For [`Conditions::RETRIABLE_HEADERS`](crate::policy::retry::Conditions::RETRIABLE_HEADERS).
    pub retriable_headers: Option<HeaderTest>,
    /// Shared by all requests to one cluster.
    pub budget: Arc<Mutex<RetryBudget>>,
    /// For whom retries are counted.
    pub cluster: Arc<str>,
}

impl fmt::Debug for RetryLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer").field("policy", &self.policy).field("budget", &self.budget).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { layer: self.clone(), inner }
    }
}

/// See [`RetryLayer`].
#[derive(Clone, Debug)]
pub struct Retry<S> {
    layer: RetryLayer,
    inner: S,
}

impl<S, B, RB> Service<Asked<B>> for Retry<S>
where
    S: Service<Asked<Replay<B>>, Response = Response<RB>, Error = Failed> + Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<BoxError>,
    RB: Body<Data = Bytes> + Unpin + Send + 'static,
    RB::Error: Send,
{
    type Response = Response<Peeked<RB>>;
    type Error = Failed;
    type Future = BoxFuture<Result<Self::Response, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, asked: Asked<B>) -> Self::Future {
        let (layer, mut inner) = (self.layer.clone(), self.inner.clone());
        layer.budget.lock().deposit(layer.clock.now());
        Box::pin(async move {
            let Asked { request, deadline, .. } = asked;
            let (parts, body) = request.into_parts();
            let tried = Tried::default();
            let mut body = Replay::new(body);
            let mut tries = 0;
            loop {
                tries += 1;
                poll_fn(|cx| inner.poll_ready(cx)).await?;
                let (head, of_try) = layer.head_of_try(&parts, deadline, tries);
                let within = (of_try != deadline).then(|| of_try.remaining(layer.clock.now())).flatten();
                let request = Request::from_parts(head, body.handle());
                let response = inner.call(Asked { request, deadline: of_try, tried: tried.clone() });
                let mut result = one_try(within, response).await.map(|response| response.map(Peeked::new));
                let may_follow = tries <= layer.policy.retries && body.is_complete();
                let end = match &mut result {
                    Ok(response) => End::of(response, may_follow).await,
                    Err(failed) => End { outcome: failed.outcome(), pushback: Pushback::Unsaid },
                };
                let now = layer.clock.now();
                let ended = Ended {
                    outcome: end.outcome,
                    tries,
                    idempotent: is_idempotent(&parts.method),
                    replayable: body.can_be_sent_again(),
                    // They are still here.
                    headers_sent: false,
                    remaining: deadline.remaining(now),
                    pushback: end.pushback,
                    retriable_header: layer.lists_a_header_of(&result),
                    ratelimited: has_header(&result, &RATELIMITED),
                    overloaded: has_header(&result, &OVERLOADED),
                };
                let decision = layer.policy.decide(&ended, &mut layer.budget.lock(), now, chance());
                match decision {
                    Decision::Stop(stop) => {
                        layer.count_stop(stop);
                        return result;
                    }
                    Decision::Retry(wait) => {
                        layer.count_retry(&result, end.outcome);
                        // Whatever it holds is given back before the wait.
                        drop(result);
                        body = body.again();
                        sleep(wait).await;
                    }
                }
            }
        })
    }
}

impl RetryLayer {
    /// How one try begins, and when it has to be answered.
    fn head_of_try(&self, parts: &Parts, deadline: Deadline, number: u32) -> (Parts, Deadline) {
        let mut head = parts.clone();
        if number == 1 && self.policy.per_try.is_none() {
            // The request itself says what remains: it has just begun.
            return (head, deadline);
        }
        let now = self.clock.now();
        let of_try = deadline.of_try(now, self.policy.per_try);
        deadline::pass_on(&mut head.headers, of_try.remaining(now));
        (head, of_try)
    }

    fn count_retry<R>(&self, result: &Result<R, Failed>, outcome: Outcome) {
        let reason = match result {
            Ok(_) => outcome.effective_status().to_string().into(),
            Err(failed) => SharedString::const_str(failed.reason()),
        };
        metrics::counter!(m::RETRIES, "cluster" => self.cluster.clone(), "reason" => reason).increment(1);
    }

    fn count_stop(&self, stop: Stop) {
        let reason = match stop {
            // Nearly always since all is well.
            Stop::NoCondition => return,
            Stop::HeadersSent => "headers-sent",
            Stop::TriesSpent => "tries-spent",
            Stop::NotIdempotent => "not-idempotent",
            Stop::BodyNotKept => "body-not-kept",
            Stop::PushedBack => "pushed-back",
            Stop::Deadline => "deadline",
            Stop::Budget => "budget",
        };
        metrics::counter!(m::RETRIES_NOT_MADE, "cluster" => self.cluster.clone(), "reason" => reason).increment(1);
    }

    fn lists_a_header_of<B>(&self, result: &Result<Response<B>, Failed>) -> bool {
        let response = result.as_ref().ok();
        self.retriable_headers.as_ref().zip(response).is_some_and(|(lists, response)| lists(response.headers()))
    }
}

async fn one_try<R>(within: Option<Duration>, response: impl Future<Output = Result<R, Failed>>) -> Result<R, Failed> {
    match within {
        Some(within) => timeout(within, response).await.unwrap_or_else(|_| Err(Failed::upstream(Fault::TryTimeout))),
        None => response.await,
    }
}

fn has_header<B>(result: &Result<Response<B>, Failed>, name: &HeaderName) -> bool {
    result.as_ref().is_ok_and(|response| response.headers().contains_key(name))
}

/// What a try says at its end.
struct End {
    outcome: Outcome,
    pushback: Pushback,
}

impl End {
    /// Of a response, at the beginning of whose body is looked if that `may` matter.
    async fn of<B: Body<Data = Bytes> + Unpin>(response: &mut Response<Peeked<B>>, may: bool) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers());
        let pushback = grpc::pushback(headers);
        let in_head = grpc::status(headers);
        if may && status == 200 && in_head.is_none() && grpc::is_grpc(headers) {
            match response.body_mut().look().await {
                Beginning::Trailers(trailers) => {
                    let outcome = Outcome::Response { status, grpc: grpc::status(trailers) };
                    return Self { outcome, pushback: grpc::pushback(trailers) };
                }
                Beginning::Broken => return Self { outcome: Outcome::Fault(Fault::Reset), pushback },
                Beginning::Other => {}
            }
        }
        Self { outcome: Outcome::Response { status, grpc: in_head }, pushback }
    }
}

/// Whether to do it twice is to do it once (RFC 9110, 9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

#[cfg(test)]
mod tests;
