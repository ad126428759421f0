//! The spans of requests: which there are, below which others, what they say, and when they end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use chancery_runtime::traces::{SpanData, Spans, traces};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use opentelemetry::trace::{SpanKind, Status};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::Notify,
    task::JoinSet,
    time::timeout,
};

use super::{
    inbound::{self, serve_as},
    support::{Backend, Client, DEADLINE, Sidecar, base, cluster, raw, request, retries, route_to, snapshot},
};
use crate::{
    config::{
        routes::Route,
        snapshot::{ClusterSettings, Protocol},
    },
    layer::BoxError,
    policy::retry::RetryPolicy,
    proxy::{
        body::{self, Body, boxed},
        world::Base,
    },
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// What reached a backend, of all requests.
type Seen = Arc<Mutex<Vec<HeaderMap>>>;

/// A backend that gives these answers, one after the other, and the last of them for ever.
async fn backend(answers: Vec<fn() -> Response<Body>>) -> (Backend, Seen) {
    let seen = Seen::default();
    let noted = seen.clone();
    let backend = Backend::start(move |request| {
        let mut seen = noted.lock();
        let answer = answers[seen.len().min(answers.len() - 1)];
        seen.push(request.headers().clone());
        async move { answer() }
    })
    .await;
    (backend, seen)
}

fn ok() -> Response<Body> {
    Response::new(body::full("ok"))
}

fn unavailable() -> Response<Body> {
    let mut response = Response::new(body::full("not now"));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// A gRPC answer with UNAVAILABLE in its trailers.
fn call_fails() -> Response<Body> {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("14"))]);
    let frames = [Ok::<_, BoxError>(Frame::data("message".into())), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(boxed(StreamBody::new(futures_util::stream::iter(frames))));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// Of all traces that begin here, so many.
fn recording(ratio: f64) -> (Base, Spans) {
    let (traces, spans) = traces(ratio);
    (Base { traces, ..base() }, spans)
}

async fn way_out(at: &[SocketAddr], settings: ClusterSettings, route: Route, base: Base) -> Sidecar {
    Sidecar::start_as(snapshot(cluster("c", at, settings), route), base).await
}

async fn ended<const N: usize>(spans: &mut Spans) -> [SpanData; N] {
    let mut ended = Vec::new();
    while ended.len() < N {
        ended.push(timeout(DEADLINE, spans.next()).await.expect("a span ends").unwrap());
    }
    ended.try_into().unwrap()
}

fn attribute(span: &SpanData, name: &str) -> String {
    let found = span.attributes.iter().find(|one| one.key.as_str() == name);
    found.map(|one| one.value.to_string()).unwrap_or_default()
}

/// Why it failed, if it did.
fn failed(span: &SpanData) -> String {
    let reason = attribute(span, "error.type");
    assert_eq!(matches!(span.status, Status::Error { .. }), !reason.is_empty(), "{span:?}");
    reason
}

fn id(span: &SpanData) -> String {
    span.span_context.span_id().to_string()
}

fn traceparent(span: &SpanData) -> String {
    format!("00-{}-{}-01", span.span_context.trace_id(), id(span))
}

fn traced(name: &'static str, value: &str) -> Request<Full<Bytes>> {
    let mut request = request("GET", "/cart?token=secret", "");
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

#[tokio::test]
async fn each_try_has_a_span_below_that_of_its_request() {
    let (backend, seen) = backend(vec![unavailable, ok]).await;
    let (base, mut spans) = recording(0.0);
    let at = [backend.address];
    let sidecar = way_out(&at, ClusterSettings::default(), route_to("c", retries(2)), base).await;
    let mut client = Client::connect(sidecar.address).await;
    let caller = format!("00-{TRACE}-{CALLER}-01");
    assert_eq!(client.send(traced("traceparent", &caller)).await.status, 200);

    let [first, second, server] = ended(&mut spans).await;
    assert_eq!((&server.span_kind, server.parent_span_id.to_string().as_str()), (&SpanKind::Server, CALLER));
    for span in [&first, &second, &server] {
        assert_eq!(span.span_context.trace_id().to_string(), TRACE);
        assert_eq!((span.name.as_ref(), attribute(span, "http.request.method").as_str()), ("GET", "GET"));
        assert_eq!((attribute(span, "url.path"), attribute(span, "url.scheme")), ("/cart".into(), "http".into()));
        assert_eq!(attribute(span, "server.address"), "shop");
        assert!(!format!("{span:?}").contains("secret"), "{span:?}");
    }
    for span in [&first, &second] {
        assert_eq!((&span.span_kind, span.parent_span_id.to_string()), (&SpanKind::Client, id(&server)));
        assert_eq!(attribute(span, "chancery.cluster"), "c");
        assert_eq!(attribute(span, "chancery.endpoint"), backend.address.to_string());
    }
    assert_eq!((failed(&first), attribute(&first, "http.response.status_code")), ("503".into(), "503".into()));
    assert_eq!((failed(&second), attribute(&second, "http.response.status_code")), (String::new(), "200".into()));
    assert_eq!(attribute(&first, "http.request.resend_count"), "");
    assert_eq!(attribute(&second, "http.request.resend_count"), "1");
    assert_eq!((failed(&server), attribute(&server, "http.response.status_code")), (String::new(), "200".into()));
    assert_eq!(attribute(&server, "chancery.direction"), "outbound");
    let passed_on: Vec<_> = seen.lock().iter().map(|headers| headers["traceparent"].clone()).collect();
    assert_eq!(passed_on, [traceparent(&first), traceparent(&second)]);
}

#[tokio::test]
async fn the_application_works_below_the_span_of_the_way_in() {
    let (application, seen) = backend(vec![ok]).await;
    let (base, mut spans) = recording(0.0);
    let (address, _serving) = serve_as(inbound::settings(&application), base, 10, None).await;
    let mut client = Client::connect(address).await;
    assert_eq!(client.send(traced("b3", &format!("{TRACE}-{CALLER}-1"))).await.status, 200);
    let [server] = ended(&mut spans).await;
    assert_eq!((&server.span_kind, server.parent_span_id.to_string().as_str()), (&SpanKind::Server, CALLER));
    assert_eq!(attribute(&server, "chancery.direction"), "inbound");
    let headers = seen.lock()[0].clone();
    assert_eq!(headers["b3"], format!("{TRACE}-{}-1-{CALLER}", id(&server)));
    assert!(!headers.contains_key("traceparent"), "{headers:?}");
}

#[tokio::test]
async fn what_is_not_recorded_is_passed_on_as_such() {
    let (backend, seen) = backend(vec![ok]).await;
    let (base, mut spans) = recording(0.0);
    let at = [backend.address];
    let sidecar = way_out(&at, ClusterSettings::default(), route_to("c", None), base).await;
    let mut client = Client::connect(sidecar.address).await;
    client.send(traced("traceparent", &format!("00-{TRACE}-{CALLER}-00"))).await;
    client.get("/").await;
    let seen = seen.lock().clone();
    let parent = seen[0]["traceparent"].to_str().unwrap();
    assert!(parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-00"), "{parent}");
    assert!(!parent.contains(CALLER), "{parent}");
    assert!(!seen[1].contains_key("traceparent"), "{:?}", seen[1]);
    drop(sidecar);
    assert!(timeout(Duration::from_millis(50), spans.next()).await.is_err(), "there is a span");
}

#[tokio::test]
async fn a_trace_that_begins_here_goes_on() {
    let (backend, seen) = backend(vec![ok]).await;
    let (base, mut spans) = recording(1.0);
    let at = [backend.address];
    let sidecar = way_out(&at, ClusterSettings::default(), route_to("c", None), base).await;
    Client::connect(sidecar.address).await.get("/").await;
    let [client, server] = ended(&mut spans).await;
    assert_eq!(server.parent_span_id.to_string(), "0".repeat(16));
    assert_eq!(client.parent_span_id.to_string(), id(&server));
    assert_eq!(seen.lock()[0]["traceparent"], traceparent(&client));
}

#[tokio::test]
async fn a_call_ends_with_the_status_in_its_trailers() {
    let (backend, _) = backend(vec![call_fails]).await;
    let (base, mut spans) = recording(1.0);
    let http2 = ClusterSettings { protocol: Protocol::Http2, ..ClusterSettings::default() };
    let sidecar = way_out(&[backend.address], http2, route_to("c", None), base).await;
    let mut call = request("POST", "/shop.Items/Find", "");
    call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Client::connect(sidecar.address).await.send(call).await;
    for span in ended::<2>(&mut spans).await {
        assert_eq!((failed(&span), attribute(&span, "rpc.grpc.status_code")), ("14".into(), "14".into()));
        assert_eq!(attribute(&span, "rpc.system"), "grpc");
    }
}

#[tokio::test]
async fn what_the_sidecar_answers_itself_has_its_reason() {
    let (base, mut spans) = recording(1.0);
    let gone = Backend::saying("ok").await.address;
    let settings = ClusterSettings { connect_timeout: Duration::from_secs(5), ..ClusterSettings::default() };
    let sidecar = way_out(&[gone], settings, route_to("c", None), base).await;
    let mut client = Client::connect(sidecar.address).await;
    assert_eq!(client.get("/").await.reason(), "connect");
    let [attempt, server] = ended(&mut spans).await;
    assert_eq!((failed(&attempt), attribute(&attempt, "http.response.status_code")), ("connect".into(), "".into()));
    assert_eq!((failed(&server), attribute(&server, "http.response.status_code")), ("connect".into(), "503".into()));

    for method in ["GET", "HEAD"] {
        let mut other = request(method, "/", "");
        other.headers_mut().insert("host", HeaderValue::from_static("elsewhere"));
        client.send(other).await;
        let [server] = ended(&mut spans).await;
        let said = ["error.type", "http.response.status_code"].map(|name| attribute(&server, name));
        assert_eq!((said, server.status), (["no-route".into(), "404".into()], Status::Unset), "{method}");
    }
}

#[tokio::test]
async fn a_try_that_takes_too_long_says_so() {
    let backend = Backend::start(async |_| std::future::pending().await).await;
    let (base, mut spans) = recording(1.0);
    let per_try = Some(Duration::from_millis(50));
    let policy = RetryPolicy { per_try, retries: 0, ..RetryPolicy::default() };
    let at = [backend.address];
    let sidecar = way_out(&at, ClusterSettings::default(), route_to("c", Some(policy)), base).await;
    assert_eq!(Client::connect(sidecar.address).await.get("/").await.reason(), "try-timeout");
    let [attempt, server] = ended(&mut spans).await;
    assert_eq!((failed(&attempt), failed(&server)), ("try-timeout".into(), "try-timeout".into()));
}

#[tokio::test]
async fn who_goes_away_ends_the_spans() {
    let (asked, waiting) = (Arc::<Notify>::default(), Arc::<Notify>::default());
    let reached = asked.clone();
    let backend = Backend::start(move |_| {
        reached.notify_one();
        let waiting = waiting.clone();
        async move {
            waiting.notified().await;
            ok()
        }
    })
    .await;
    let (base, mut spans) = recording(1.0);
    let at = [backend.address];
    let sidecar = way_out(&at, ClusterSettings::default(), route_to("c", None), base).await;
    let mut client = Client::connect(sidecar.address).await;
    tokio::select! {
        _ = client.get("/") => panic!("nobody answered"),
        () = asked.notified() => drop(client),
    }
    for span in ended::<2>(&mut spans).await {
        assert_eq!(failed(&span), "cancelled");
    }
}

#[tokio::test]
async fn a_span_ends_with_the_body() {
    let rest = Arc::<Notify>::default();
    let go_on = rest.clone();
    let backend = Backend::start(move |_| {
        let go_on = go_on.clone();
        async move {
            let first = futures_util::stream::once(async { Ok::<_, BoxError>(Frame::data(Bytes::from("some"))) });
            let rest = futures_util::stream::once(async move {
                go_on.notified().await;
                Ok(Frame::data(Bytes::from("more")))
            });
            Response::new(boxed(StreamBody::new(Box::pin(futures_util::StreamExt::chain(first, rest)))))
        }
    })
    .await;
    let (base, mut spans) = recording(1.0);
    let at = [backend.address];
    let sidecar = way_out(&at, ClusterSettings::default(), route_to("c", None), base).await;
    let mut client = Client::connect(sidecar.address).await;
    let answer = client.get("/");
    tokio::pin!(answer);
    tokio::select! {
        _ = &mut answer => panic!("it is not whole"),
        ended = timeout(Duration::from_millis(300), spans.next()) => assert!(ended.is_err(), "{ended:?}"),
    }
    rest.notify_one();
    assert_eq!(answer.await.body, "somemore");
    for span in ended::<2>(&mut spans).await {
        assert_eq!(failed(&span), "");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = [listener.local_addr().unwrap()];
    let mut backend = JoinSet::new();
    backend.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nsome").await.unwrap();
        // All of the request is read, so that the end is no reset of the connection.
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await.unwrap());
        }
    });
    let (base, mut spans) = recording(1.0);
    let sidecar = way_out(&at, ClusterSettings::default(), route_to("c", None), base).await;
    raw(sidecar.address, "GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    for span in ended::<2>(&mut spans).await {
        assert_eq!((failed(&span), attribute(&span, "http.response.status_code")), ("reset".into(), "200".into()));
    }
}
