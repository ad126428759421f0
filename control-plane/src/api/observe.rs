//! What surrounds every request: an id, a span, a time limit, security headers, a metric, a log line, and the promise that every
//! error is problem details.

use std::{any::Any, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use chancery_runtime::traces::{Arrived, SpanKind, Step};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    Api,
    error::ApiError,
    params::LONGEST_WAIT,
    problem::{MEDIA_TYPE, ProblemDetails},
};
use crate::metrics::API_REQUEST_DURATION;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");

/// The time for a request that does not wait for proxies, its body included.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The longest path and query: a message of the greatest length fits in, however it is encoded.
const LONGEST_URI: usize = 16 << 10;

/// The largest headers, names and values together.
const LARGEST_HEADERS: usize = 32 << 10;

/// Gives the request its id and its place in a trace, and says afterwards what became of it.
pub(super) async fn observe(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known(request.method());
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", |matched| matched.as_str()).to_owned();
    let id = given_id(&request).unwrap_or_else(new_id);
    let shown_id = id.to_str().unwrap_or_default();
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let arrived = Arrived::of(request.headers());
    let mut step = begun(&api, method, &route, &arrived);
    step.says("chancery.request_id", shown_id.to_owned());
    request.extensions_mut().insert(step.place().clone());
    let trace = step.trace().or(arrived.parent.map(|parent| parent.trace_id())).map(|trace| trace.to_string());

    let span = tracing::info_span!("request", request_id = shown_id, trace_id = trace, method, path);
    let mut response = next.run(request).instrument(span.clone()).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response.headers_mut().extend(trace.and_then(|trace| Some((TRACE_ID, HeaderValue::try_from(trace).ok()?))));

    let (status, elapsed) = (response.status(), started.elapsed());
    step.says("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        step.failed(status.canonical_reason().unwrap_or_default());
    }
    metrics::histogram!(API_REQUEST_DURATION, "route" => route, "method" => method, "status" => status.as_str().to_owned())
        .record(elapsed.as_secs_f64());
    span.in_scope(|| tracing::debug!(status = status.as_u16(), ?elapsed, "answered"));
    response
}

/// What the request is in a trace. Of its path only the route is told: what a caller has made up may be a secret in the wrong place.
fn begun(api: &Api, method: &'static str, route: &str, arrived: &Arrived) -> Step {
    let traces = api.publisher.trails().traces();
    if !traces.are_made() {
        return Step::default();
    }
    let mut step = traces.step(format!("{method} {route}"), SpanKind::Server, arrived);
    step.says("http.request.method", method);
    step.says("http.route", route.to_owned());
    step
}

/// A caller may make up methods, but not time series.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// An id from the caller is kept if it is short and plain: it will stand in logs.
fn given_id(request: &Request) -> Option<HeaderValue> {
    let id = request.headers().get(REQUEST_ID)?;
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b);
    (1..=128).contains(&id.len()).then_some(id).filter(|id| id.as_bytes().iter().all(plain)).cloned()
}

fn new_id() -> HeaderValue {
    HeaderValue::try_from(format!("{:032x}", rand::random::<u128>())).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Ends a request that takes too long.
pub(super) async fn limit_time(request: Request, next: Next) -> Response {
    within(time_limit(request.uri()), next.run(request)).await
}

/// The time runs until the answer begins: events are followed for hours.
async fn within(limit: Duration, answer: impl Future<Output = Response>) -> Response {
    match tokio::time::timeout(limit, answer).await {
        Ok(response) => response,
        Err(_) => ApiError::Timeout.into_response(),
    }
}

/// The wait for proxies comes on top; the handler bounds it more closely.
fn time_limit(uri: &Uri) -> Duration {
    let waits = uri.query().is_some_and(|query| query.split('&').any(|param| param.starts_with("wait=")));
    if waits { TIME_LIMIT + LONGEST_WAIT } else { TIME_LIMIT }
}

/// Refuses a request whose head is larger than any that makes sense.
pub(super) async fn limit_head(request: Request, next: Next) -> Response {
    let uri = request.uri().path_and_query().map_or(0, |whole| whole.as_str().len());
    if uri > LONGEST_URI {
        return ApiError::LongUri { limit: LONGEST_URI }.into_response();
    }
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers > LARGEST_HEADERS {
        return ApiError::LargeHeaders { limit: LARGEST_HEADERS }.into_response();
    }
    next.run(request).await
}

/// An answer is not sniffed, framed, kept by a shared cache or without a need, or able to load anything from elsewhere.
pub(super) async fn secure(request: Request, next: Next) -> Response {
    let page = request.uri().path().starts_with("/docs");
    let mut response = next.run(request).await;
    let policy = if page {
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
    } else {
        "default-src 'none'; frame-ancestors 'none'"
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What has a tag is asked for anew with it, and the page's own files never change; all else is kept nowhere.
    let kept = page || headers.contains_key(header::ETAG);
    let keeping = HeaderValue::from_static(if kept { "private, no-cache" } else { "no-store" });
    headers.entry(header::CACHE_CONTROL).or_insert(keeping);
    response
}

/// Gives an error that something below us made (an unknown method, a path that cannot be decoded) the form of ours.
pub(super) async fn unify_errors(response: Response) -> Response {
    let status = response.status();
    let ours = response.headers().get(header::CONTENT_TYPE).is_some_and(|given| given == MEDIA_TYPE);
    if ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (slug, detail) = match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            ("method-not-allowed", "this path does not have the method; Allow says which it has")
        }
        StatusCode::NOT_FOUND => ("not-found", "there is nothing at this path"),
        status if status.is_server_error() => ("internal", "the request failed inside the control plane"),
        _ => ("malformed-request", "the request cannot be read"),
    };
    let mut unified = ProblemDetails::new(status, slug, detail).into_response();
    unified.headers_mut().extend(response.headers().get(header::ALLOW).map(|allow| (header::ALLOW, allow.clone())));
    unified
}

/// What a panic becomes: logged whole, told without details.
#[expect(clippy::needless_pass_by_value, reason = "the signature that CatchPanicLayer wants")]
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    ApiError::Internal("a handler (it panicked)", message.unwrap_or("without a message").into()).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[tokio::test]
    async fn a_body_may_take_longer_than_the_request() {
        const LIMIT: Duration = Duration::from_millis(50);
        let late = async |after: Duration| {
            tokio::time::sleep(after).await;
            Ok::<_, std::convert::Infallible>("late")
        };
        let body = Body::from_stream(futures_util::stream::once(late(LIMIT * 2)));
        let response = within(LIMIT, std::future::ready(Response::new(body))).await;
        assert_eq!(axum::body::to_bytes(response.into_body(), 10).await.unwrap(), "late");
        let response = within(LIMIT, std::future::pending()).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn who_waits_for_proxies_has_more_time() {
        for (uri, seconds) in [("/a", 30), ("/a?message=wait=1", 30), ("/a?x=1&wait=applied&timeout=60s", 90)] {
            assert_eq!(time_limit(&Uri::from_static(uri)), Duration::from_secs(seconds), "{uri}");
        }
    }
}
