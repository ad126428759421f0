//! Holds a request to its [`Deadline`]: the shortest of what the route, `grpc-timeout` and `x-envoy-expected-rq-timeout-ms` say.
//!
//! A request whose time has passed on arrival is answered at once. Otherwise the deadline [goes along](Asked),
//! for those further in who wait or try again, and what remains goes to the endpoint in the headers. It holds to the end
//! of the response's body, which fails when it has passed.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{Layer, Service};

use super::{Asked, BoxError, BoxFuture, Clock, Failed, at, breaker::Tried};
use crate::policy::deadline::{self, Deadline, RouteTimeout, Timeouts};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// Holds requests to their deadline.
#[derive(Clone, Debug)]
pub struct DeadlineLayer {
    /// The clock of all deadlines.
    pub clock: Clock,
    /// What the route says; zero and none are for ever.
    pub route: Option<RouteTimeout>,
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = WithDeadline<S>;

    fn layer(&self, inner: S) -> WithDeadline<S> {
        WithDeadline { layer: self.clone(), inner }
    }
}

/// See [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct WithDeadline<S> {
    layer: DeadlineLayer,
    inner: S,
}

impl<S, B, RB> Service<Request<B>> for WithDeadline<S>
where
    S: Service<Asked<B>, Response = Response<RB>, Error = Failed>,
    S::Future: Send + Unpin + 'static,
{
    type Response = Response<Timed<RB>>;
    type Error = Failed;
    type Future = BoxFuture<Result<Self::Response, Failed>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let now = self.layer.clock.now();
        let route = self.layer.route.as_ref();
        let deadline = Deadline::new(now, timeouts(route.map(RouteTimeout::after), request.headers()));
        let remaining = deadline.remaining(now);
        if remaining == Some(Duration::ZERO) {
            return Box::pin(async { Err(Failed::Deadline) });
        }
        match route.filter(|route| Some(route.after()) == remaining) {
            Some(route) => say(request.headers_mut(), route.after(), route.said()),
            None => pass_on(request.headers_mut(), remaining),
        }
        let ends = remaining.map(|remaining| self.layer.clock.at(now + remaining));
        let mut response = self.inner.call(Asked { request, deadline, tried: Tried::once() });
        Box::pin(async move {
            tokio::select! {
                biased;
                // Borrowed, since it would be kept twice otherwise.
                response = &mut response => Ok(response?.map(|body| Timed { body, ends, timer: None })),
                () = at(ends) => Err(Failed::Deadline),
            }
        })
    }
}

fn timeouts(route: Option<Duration>, headers: &HeaderMap) -> Timeouts {
    let value = |name| headers.get(name).map(HeaderValue::as_bytes);
    Timeouts {
        route,
        grpc: value(GRPC_TIMEOUT).and_then(deadline::parse_grpc_timeout),
        expected: value(EXPECTED_TIMEOUT).and_then(deadline::parse_expected_timeout),
    }
}

/// Tells the endpoint what remains, if anything limits it: in `x-envoy-expected-rq-timeout-ms`, and in `grpc-timeout` if the caller
/// used that.
pub fn pass_on(headers: &mut HeaderMap, remaining: Option<Duration>) {
    if let Some(remaining) = remaining {
        say(headers, remaining, deadline::expected_timeout(remaining));
    }
}

/// Says that so much remains; `expected` does, too.
fn say(headers: &mut HeaderMap, remaining: Duration, expected: HeaderValue) {
    headers.insert(EXPECTED_TIMEOUT, expected);
    if let Some(value) = headers.get_mut(GRPC_TIMEOUT)
        && let Ok(shorter) = HeaderValue::try_from(deadline::format_grpc_timeout(remaining))
    {
        *value = shorter;
    }
}

/// A body that fails when the deadline passes before its end.
#[derive(Debug)]
pub struct Timed<B> {
    body: B,
    ends: Option<Instant>,
    /// Since it had to be waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> Body for Timed<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(ends) = self.ends else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(ends)));
        timer.as_mut().poll(cx).map(|()| Some(Err(Failed::Deadline.into())))
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
    use http_body_util::{BodyExt, Empty, StreamBody};
    use tokio::time::sleep;
    use tower::ServiceExt as _;

    use super::*;
    use crate::layer::testing::{Mock, answer};

    async fn ask(mock: &Mock, route: u64, headers: &[(&str, &str)]) -> (Result<u16, Failed>, u128) {
        let started = Instant::now();
        let layer =
            DeadlineLayer { clock: Clock::start(), route: Some(RouteTimeout::new(Duration::from_millis(route))) };
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = layer.layer(mock.clone()).oneshot(request.body(Empty::<Bytes>::new()).unwrap()).await;
        (response.map(|response| response.status().as_u16()), started.elapsed().as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_timeout_ends_a_request() {
        for (route, headers, ends) in [
            (500, &[][..], 500),
            (500, &[("grpc-timeout", "100m")], 100),
            (500, &[("x-envoy-expected-rq-timeout-ms", "200")], 200),
            (50, &[("grpc-timeout", "100m"), ("x-envoy-expected-rq-timeout-ms", "200")], 50),
            (0, &[("grpc-timeout", "100m")], 100),
            (500, &[("grpc-timeout", "soon")], 500),
        ] {
            let (answer, took) = ask(&Mock::new([answer(200).after(10_000)]), route, headers).await;
            assert!(matches!(answer, Err(Failed::Deadline)), "{headers:?}");
            assert_eq!(took, ends, "{headers:?}");
        }
        let (answer, took) = ask(&Mock::new([answer(200).after(10_000)]), 0, &[]).await;
        assert_eq!((answer.unwrap(), took), (200, 10_000), "no timeout at all");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_expired_is_not_sent() {
        let mock = Mock::default();
        let (answer, _) = ask(&mock, 500, &[("grpc-timeout", "0S")]).await;
        assert!(matches!(answer, Err(Failed::Deadline)));
        assert_eq!(mock.calls(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_endpoint_is_told_what_remains() {
        let mock = Mock::default();
        for (headers, grpc, expected) in [
            (&[][..], None, Some("500")),
            (&[("grpc-timeout", "20S")], Some("500000u"), Some("500")),
            (&[("grpc-timeout", "50m")], Some("50000000n"), Some("50")),
        ] {
            ask(&mock, 500, headers).await.0.unwrap();
            let seen = mock.seen.lock().pop().unwrap().headers;
            let value = |name| seen.get(name).map(|value| value.to_str().unwrap());
            assert_eq!((value("grpc-timeout"), value("x-envoy-expected-rq-timeout-ms")), (grpc, expected));
        }
        ask(&mock, 0, &[]).await.0.unwrap();
        assert!(mock.seen.lock().pop().unwrap().headers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_ends_at_the_deadline() {
        let started = Instant::now();
        let drips = tower::service_fn(|_: Asked<()>| {
            std::future::ready(Ok::<_, Failed>(Response::new(StreamBody::new(drip(Duration::from_millis(30))))))
        });
        let layer = DeadlineLayer { clock: Clock::start(), route: Some(RouteTimeout::new(Duration::from_millis(100))) };
        let mut body = layer.layer(drips).oneshot(Request::new(())).await.unwrap().into_body();
        let mut frames = 0;
        let error = loop {
            match body.frame().await.unwrap() {
                Ok(_) => frames += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((frames, started.elapsed().as_millis()), (3, 100));
        assert!(matches!(error.downcast_ref(), Some(Failed::Deadline)));
    }

    /// A frame every `pause`, without end.
    fn drip(pause: Duration) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, BoxError>> + Unpin {
        Box::pin(futures_util::stream::unfold((), move |()| async move {
            sleep(pause).await;
            Some((Ok(Frame::data(Bytes::from("x"))), ()))
        }))
    }
}
