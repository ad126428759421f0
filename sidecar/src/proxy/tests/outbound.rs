//! What the application's requests meet.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::support::{Answer, Backend, Client, DEADLINE, Sidecar, cluster, request, retries, route_to, snapshot};
use crate::{
    config::{
        routes::{Action, HeaderEdit},
        snapshot::{ClusterSettings, Protocol, Snapshot},
    },
    layer::BoxError,
    policy::deadline::RouteTimeout,
    proxy::body::{self, boxed},
};

fn http2() -> ClusterSettings {
    ClusterSettings { protocol: Protocol::Http2, ..ClusterSettings::default() }
}

/// Says what reached it.
async fn echo() -> Backend {
    Backend::start(async move |request| {
        let said = format!("{:?} {} {} {:?}", request.version(), request.method(), request.uri(), request.headers());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(body::full(format!("{said} {}", String::from_utf8_lossy(&body))))
    })
    .await
}

#[tokio::test]
async fn a_request_arrives_with_its_body_and_without_what_is_of_the_connection() {
    let backend = echo().await;
    let sidecar =
        Sidecar::start(snapshot(cluster("c", &[backend.address], ClusterSettings::default()), route_to("c", None)))
            .await;
    let mut client = Client::connect(sidecar.address).await;
    let mut asked = request("POST", "/a?b=c", "hello");
    asked.headers_mut().insert("connection", HeaderValue::from_static("x-mine"));
    asked.headers_mut().insert("x-mine", HeaderValue::from_static("1"));
    asked.headers_mut().insert("x-kept", HeaderValue::from_static("1"));
    let answer = client.send(asked).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(text.starts_with("HTTP/1.1 POST /a?b=c "), "{text}");
    assert!(text.contains("\"host\": \"shop\"") && text.contains("x-kept") && text.ends_with(" hello"), "{text}");
    assert!(!text.contains("x-mine"), "{text}");
}

#[tokio::test]
async fn http2_goes_on_as_http2_with_trailers() {
    let backend = Backend::start(async move |request: Request<hyper::body::Incoming>| {
        assert_eq!(request.version(), Version::HTTP_2);
        assert_eq!(request.uri().authority().unwrap(), "shop");
        let body = request.into_body().collect().await.unwrap();
        let received = body.trailers().is_some_and(|trailers| trailers["x-end"] == "yes");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(if received { "0" } else { "2" }));
        let frames = [Ok::<_, BoxError>(Frame::data(body.to_bytes())), Ok(Frame::trailers(trailers))];
        let mut response = Response::new(boxed(StreamBody::new(futures_util::stream::iter(frames))));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        response
    })
    .await;
    let sidecar = Sidecar::start(snapshot(cluster("c", &[backend.address], http2()), route_to("c", retries(1)))).await;
    let stream = TcpStream::connect(sidecar.address).await.unwrap();
    let (mut sender, connection) =
        http2::handshake::<_, _, body::Body>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", HeaderValue::from_static("yes"));
        let frames = [Ok::<_, BoxError>(Frame::data(Bytes::from("message"))), Ok(Frame::trailers(trailers))];
        let request = Request::post("http://shop/service/method").header("content-type", "application/grpc");
        let request = request.body(boxed(StreamBody::new(futures_util::stream::iter(frames)))).unwrap();
        let answer = Answer::of(timeout(DEADLINE, sender.send_request(request)).await.unwrap().unwrap()).await;
        assert_eq!(answer.body, "message");
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn who_cannot_be_asked_is_not_waited_for() {
    let sidecar = Sidecar::start(snapshot(cluster("c", &[], ClusterSettings::default()), route_to("c", None))).await;
    let mut client = Client::connect(sidecar.address).await;
    let answer = client.get("/").await;
    assert_eq!((answer.status, answer.reason()), (503, "no-endpoint"));
    let mut other = request("GET", "/", "");
    other.headers_mut().insert("host", HeaderValue::from_static("elsewhere"));
    let answer = client.send(other).await;
    assert_eq!((answer.status, answer.reason()), (404, "no-route"));
    let mut grpc = request("POST", "/", "");
    grpc.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let answer = client.send(grpc).await;
    assert_eq!((answer.status, &answer.headers["grpc-status"]), (200, &HeaderValue::from_static("14")));
    sidecar.configure(snapshot(cluster("other", &[], ClusterSettings::default()), route_to("c", None)));
    let answer = client.get("/").await;
    assert_eq!((answer.status, answer.reason()), (503, "no-cluster"));
    sidecar.configure(Snapshot::default());
    assert_eq!(client.get("/").await.reason(), "no-route");
}

#[tokio::test]
async fn one_of_three_that_fails_is_seen_by_nobody() {
    let bad = Backend::failing(500).await;
    let (one, two) = (Backend::saying("ok").await, Backend::saying("ok").await);
    let at = [bad.address, one.address, two.address];
    let snapshot = snapshot(cluster("c", &at, ClusterSettings::default()), route_to("c", retries(2)));
    let sidecar = Sidecar::start(snapshot).await;
    let mut client = Client::connect(sidecar.address).await;
    for _ in 0..200 {
        assert_eq!(client.get("/").await.status, 200);
    }
    // It fails fast, and attracts nothing by that.
    assert!((1..50).contains(&bad.requests()), "{} of 200", bad.requests());
    assert!(one.requests() > 50 && two.requests() > 50, "{} and {}", one.requests(), two.requests());
}

#[tokio::test]
async fn without_a_policy_nothing_is_tried_again() {
    let bad = Backend::failing(503).await;
    let sidecar =
        Sidecar::start(snapshot(cluster("c", &[bad.address], ClusterSettings::default()), route_to("c", None))).await;
    let mut client = Client::connect(sidecar.address).await;
    let answer = client.get("/").await;
    assert_eq!((answer.status, answer.reason(), bad.requests()), (503, "", 1));
}

#[tokio::test]
async fn a_slow_endpoint_is_answered_for_in_time() {
    let slow = Backend::start(async move |_| {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Response::new(body::empty())
    })
    .await;
    let mut route = route_to("c", None);
    let Action::Forward(forward) = &mut route.action else { unreachable!() };
    forward.timeout = Some(RouteTimeout::new(Duration::from_millis(100)));
    let sidecar = Sidecar::start(snapshot(cluster("c", &[slow.address], ClusterSettings::default()), route)).await;
    let answer = Client::connect(sidecar.address).await.get("/").await;
    assert_eq!((answer.status, answer.reason()), (504, "deadline"));
}

#[tokio::test]
async fn a_response_is_passed_on_while_it_comes() {
    let (release, held) = tokio::sync::oneshot::channel::<()>();
    let held = std::sync::Arc::new(tokio::sync::Mutex::new(Some(held)));
    let backend = Backend::start(move |_| {
        let held = held.clone();
        async move {
            let held = held.lock().await.take();
            let first = futures_util::stream::once(async { Ok::<_, BoxError>(Frame::data(Bytes::from("first"))) });
            let second = futures_util::stream::once(async move {
                held.unwrap().await?;
                Ok(Frame::data(Bytes::from("second")))
            });
            Response::new(boxed(StreamBody::new(Box::pin(futures_util::StreamExt::chain(first, second)))))
        }
    })
    .await;
    let sidecar = Sidecar::start(snapshot(
        cluster("c", &[backend.address], ClusterSettings::default()),
        route_to("c", retries(1)),
    ))
    .await;
    let stream = TcpStream::connect(sidecar.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let response = timeout(DEADLINE, sender.send_request(request("GET", "/", ""))).await.unwrap().unwrap();
    let mut body = response.into_body();
    let first = timeout(DEADLINE, body.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first");
    release.send(()).unwrap();
    assert_eq!(timeout(DEADLINE, body.collect()).await.unwrap().unwrap().to_bytes(), "second");
}

#[tokio::test]
async fn a_changed_protocol_is_tunnelled() {
    let backend = Backend::start(async move |mut request: Request<hyper::body::Incoming>| {
        assert_eq!(request.headers()["upgrade"], "echo");
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgraded.await.unwrap());
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            word.reverse();
            stream.write_all(&word).await.unwrap();
        });
        let mut response = Response::new(body::empty());
        *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("upgrade", HeaderValue::from_static("echo"));
        response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
        response
    })
    .await;
    let at = cluster("c", &[backend.address], ClusterSettings::default());
    let sidecar = Sidecar::start(snapshot(at, route_to("c", retries(1)))).await;
    let exchange = async {
        let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nabcd")
            .await
            .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    };
    let answer = timeout(DEADLINE, exchange).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("dcba"), "{answer}");
    sidecar.configure(snapshot(cluster("c", &[backend.address], http2()), route_to("c", None)));
    let mut refused = request("GET", "/", "");
    refused.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
    refused.headers_mut().insert("upgrade", HeaderValue::from_static("echo"));
    let answer = Client::connect(sidecar.address).await.send(refused).await;
    assert_eq!((answer.status, answer.reason()), (501, "no-upgrade"));
}

#[tokio::test]
async fn a_change_of_configuration_keeps_what_is_known_of_endpoints() {
    let backend = Backend::saying("ok").await;
    let at = |settings| cluster("c", &[backend.address], settings);
    let sidecar = Sidecar::start(snapshot(at(ClusterSettings::default()), route_to("c", None))).await;
    let mut client = Client::connect(sidecar.address).await;
    client.get("/").await;
    let mut route = route_to("c", None);
    route.response_headers.push(HeaderEdit::Set("x-new".parse().unwrap(), HeaderValue::from_static("1")));
    let more = ClusterSettings { max_requests: 7, ..ClusterSettings::default() };
    sidecar.configure(snapshot(at(more), route));
    assert_eq!(client.get("/").await.headers["x-new"], "1");
    assert_eq!((backend.connections(), backend.requests.load(SeqCst)), (1, 2));
    let faster = ClusterSettings { connect_timeout: Duration::from_secs(1), ..ClusterSettings::default() };
    sidecar.configure(snapshot(at(faster), route_to("c", None)));
    client.get("/").await;
    assert_eq!(backend.connections(), 2);
}
