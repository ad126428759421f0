//! Tries in stopped time, against services that fail as they are told.

use http_body_util::{BodyExt, StreamBody};
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::*;
use crate::{
    layer::testing::{Answer, Frames, Mock, answer, failed},
    policy::{deadline::Timeouts, retry::Conditions, retry_budget},
};

fn on(list: &str, retries: u32) -> RetryPolicy {
    RetryPolicy { on: Conditions::parse(list).0, retries, ..RetryPolicy::default() }
}

fn layer(policy: RetryPolicy) -> RetryLayer {
    RetryLayer {
        clock: Clock::start(),
        policy: Arc::new(policy),
        retriable_headers: None,
        budget: Arc::new(Mutex::new(RetryBudget::new(retry_budget::Settings::default()))),
        cluster: "c".into(),
    }
}

fn get() -> Request<Frames> {
    Request::new(Frames::of(&["he", "llo"]))
}

async fn send(
    layer: &RetryLayer,
    mock: &Mock,
    request: impl Into<Asked<Frames>>,
) -> Result<Response<Peeked<Frames>>, Failed> {
    layer.layer(mock.clone()).oneshot(request.into()).await
}

async fn status(layer: &RetryLayer, mock: &Mock, request: impl Into<Asked<Frames>>) -> Option<u16> {
    send(layer, mock, request).await.ok().map(|response| response.status().as_u16())
}

#[tokio::test(start_paused = true)]
async fn each_try_sends_the_whole_body() {
    let mock = Mock::new([answer(503), failed(Failed::upstream(Fault::Reset)), answer(200)]);
    assert_eq!(status(&layer(on("5xx", 2)), &mock, get()).await, Some(200));
    let bodies: Vec<_> = mock.seen.lock().iter().map(|seen| seen.body.clone()).collect();
    assert_eq!(bodies, ["hello"; 3]);
}

#[tokio::test(start_paused = true)]
async fn the_last_failure_is_the_answer() {
    let mock = Mock::new([answer(500), answer(503)]);
    assert_eq!(status(&layer(on("5xx", 1)), &mock, get()).await, Some(503));
    let mock = Mock::new([failed(Failed::upstream(Fault::Connect)), failed(Failed::upstream(Fault::Reset))]);
    let result = send(&layer(on("5xx", 1)), &mock, get()).await;
    assert!(matches!(result, Err(Failed::Upstream { fault: Fault::Reset, .. })));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_to_keep_is_sent_once() {
    let piece = "x".repeat(40 * 1_024);
    let mock = Mock::new([answer(503)]);
    let request = Request::new(Frames::of(&[&piece, &piece]));
    assert_eq!(status(&layer(on("5xx", 3)), &mock, request).await, Some(503));
    assert_eq!((mock.calls(), mock.seen.lock()[0].body.len()), (1, 80 * 1_024));
    // But if nothing of it was read, it can be sent.
    let mock = Mock::new([failed(Failed::upstream(Fault::Connect)).unread()]);
    let request = Request::new(Frames::of(&[&piece, &piece]));
    assert_eq!(status(&layer(on("5xx", 3)), &mock, request).await, Some(200));
    assert_eq!(mock.seen.lock()[1].body.len(), 80 * 1_024);
}

#[tokio::test(start_paused = true)]
async fn only_what_never_was_seen_is_repeated_of_a_post() {
    for (answer, calls) in [
        (answer(503), 1),
        (failed(Failed::upstream(Fault::Reset)), 1),
        (failed(Failed::upstream(Fault::RefusedStream)), 2),
        (failed(Failed::upstream(Fault::Unsent)), 2),
    ] {
        let mock = Mock::new([answer]);
        let mut request = get();
        *request.method_mut() = Method::POST;
        let _ = send(&layer(on("5xx", 3)), &mock, request).await;
        assert_eq!(mock.calls(), calls);
    }
}

/// A request that has so many milliseconds.
fn within(layer: &RetryLayer, milliseconds: u64) -> Asked<Frames> {
    let route = Some(Duration::from_millis(milliseconds));
    Asked { deadline: Deadline::new(layer.clock.now(), Timeouts { route, ..Timeouts::default() }), ..get().into() }
}

#[tokio::test(start_paused = true)]
async fn waits_are_taken_and_the_deadline_is_kept() {
    let pushed_back = || Mock::new([answer(503).headers(&[("retry-after", "2")]), answer(200)]);
    let started = Instant::now();
    assert_eq!(status(&layer(on("5xx", 1)), &pushed_back(), get()).await, Some(200));
    assert!((2_000..=2_026).contains(&started.elapsed().as_millis()));

    let layer = layer(on("5xx", 1));
    let request = within(&layer, 1_900);
    let started = Instant::now();
    assert_eq!(status(&layer, &pushed_back(), request).await, Some(503));
    assert_eq!(started.elapsed().as_millis(), 0, "there is no use in waiting");
}

#[tokio::test(start_paused = true)]
async fn one_try_may_take_less_than_all() {
    let policy = RetryPolicy { per_try: Some(Duration::from_millis(100)), ..on("5xx", 1) };
    let mock = Mock::new([answer(200).after(500), answer(200).after(50)]);
    let layer = layer(policy);
    let request = within(&layer, 15_000);
    let started = Instant::now();
    assert_eq!(status(&layer, &mock, request).await, Some(200));
    assert!((150..=176).contains(&started.elapsed().as_millis()));
    assert_eq!(mock.seen.lock()[1].headers["x-envoy-expected-rq-timeout-ms"], "100");
    let mock = Mock::new([answer(200).after(500), answer(200).after(500)]);
    assert!(matches!(send(&layer, &mock, get()).await, Err(Failed::Upstream { fault: Fault::TryTimeout, .. })));
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_for_all_requests_together() {
    let layer = layer(on("5xx", 10));
    *layer.budget.lock() =
        RetryBudget::new(retry_budget::Settings { least_per_second: 1, ..retry_budget::Settings::default() });
    let mut calls = 0;
    for _ in 0..100 {
        let mock = Mock::new((0..11).map(|_| answer(503)));
        assert_eq!(status(&layer, &mock, get()).await, Some(503));
        calls += mock.calls();
    }
    // A fifth of what was asked, and a second's reserve for ten.
    assert_eq!(calls, 100 + 20 + 10);
}

fn grpc(pieces: &[&str], trailers: &[(&'static str, &str)]) -> Answer {
    answer(200).headers(&[("content-type", "application/grpc")]).body(Frames::of(pieces).with_trailers(trailers))
}

async fn text(response: Response<Peeked<Frames>>) -> (String, Option<String>) {
    let collected = response.into_body().collect().await.unwrap();
    let status = collected.trailers().and_then(|trailers| trailers.get("grpc-status"));
    let status = status.map(|status| status.to_str().unwrap().to_owned());
    (String::from_utf8(collected.to_bytes().to_vec()).unwrap(), status)
}

#[tokio::test(start_paused = true)]
async fn a_grpc_status_is_found_wherever_it_is() {
    let unavailable = &[("grpc-status", "14")];
    for first in [
        answer(200).headers(&[("content-type", "application/grpc"), ("grpc-status", "14")]),
        grpc(&[], unavailable),
        grpc(&["message"], unavailable),
    ] {
        let mock = Mock::new([first, grpc(&["message"], &[("grpc-status", "0")])]);
        let layer = layer(RetryPolicy { repeatable: true, ..on("unavailable", 1) });
        let response = send(&layer, &mock, get()).await.unwrap();
        assert_eq!(text(response).await, ("message".into(), Some("0".into())));
        assert_eq!(mock.calls(), 2);
    }
    // A stream that has begun is given on as it is.
    let mock = Mock::new([grpc(&["one", "two"], unavailable)]);
    let response = send(&layer(on("unavailable", 1)), &mock, get()).await.unwrap();
    assert_eq!(text(response).await, ("onetwo".into(), Some("14".into())));
    assert_eq!(mock.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_server_can_forbid_another_try() {
    let mock = Mock::new([grpc(&[], &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "-1")])]);
    let response = send(&layer(on("unavailable", 1)), &mock, get()).await.unwrap();
    assert_eq!(text(response).await.1, Some("14".into()));
    assert_eq!(mock.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_head_of_a_response_does_not_wait_for_a_client_that_waits_for_it() {
    // The service answers with a head and nothing else until it has read all, and the client sends the rest after the head.
    let silent = tower::service_fn(|_: Asked<Replay<_>>| async {
        let body = StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<Bytes>, BoxError>>());
        Ok::<_, Failed>(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
    });
    let endless = StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<Bytes>, BoxError>>());
    let response = layer(on("unavailable", 1)).layer(silent).oneshot(Request::new(endless).into());
    assert!(timeout(Duration::from_secs(1), response).await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn headers_that_the_route_lists_count() {
    let mut layer = layer(on("retriable-headers", 1));
    layer.retriable_headers = Some(Arc::new(|headers| headers.contains_key("x-again")));
    let mock = Mock::new([answer(200).headers(&[("x-again", "1")])]);
    assert_eq!(status(&layer, &mock, get()).await, Some(200));
    assert_eq!(mock.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_still_reads_for_a_try_that_failed_does_not_hold_up_the_next() {
    /// The first try fails at once, while what drives its connection goes on to read the body. The second reads all of it.
    fn service(first: bool, mut body: Replay<Slow>) -> BoxFuture<Result<Response<Frames>, Failed>> {
        Box::pin(async move {
            if first {
                tokio::spawn(async move {
                    sleep(Duration::from_millis(5)).await;
                    while let Some(Ok(_)) = body.frame().await {}
                });
                return Err(Failed::upstream(Fault::Reset));
            }
            let whole = body.collect().await.unwrap().to_bytes();
            Ok(Response::builder().status(if whole == "ab" { 200 } else { 400 }).body(Frames::default()).unwrap())
        })
    }
    type Slow = StreamBody<
        std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<http_body::Frame<Bytes>, std::io::Error>> + Send>>,
    >;
    let pieces = futures_util::stream::unfold(["a", "b"].into_iter(), |mut pieces| async move {
        sleep(Duration::from_millis(20)).await;
        Some((Ok(http_body::Frame::data(Bytes::from(pieces.next()?))), pieces))
    });
    let slow: Slow = StreamBody::new(Box::pin(pieces));
    let layer = layer(RetryPolicy {
        backoff: crate::policy::backoff::FullJitter { base: Duration::ZERO, most: Duration::ZERO },
        ..on("5xx", 1)
    });
    let calls = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let service = tower::service_fn(move |Asked { request, .. }: Asked<Replay<Slow>>| {
        service(calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0, request.into_body())
    });
    let started = Instant::now();
    let response = timeout(Duration::from_secs(1), layer.layer(service).oneshot(Request::new(slow).into())).await;
    assert_eq!(response.unwrap().unwrap().status(), 200);
    assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
}
