//! What strangers send.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::support::{Backend, DEADLINE, Sidecar, cluster, raw, route_to, snapshot};
use crate::{
    config::{
        routes::Action,
        snapshot::{ClusterSettings, Protocol},
    },
    proxy::{accept::AcceptLimits, stall::Patience},
};

async fn sidecar(backend: &Backend, limits: AcceptLimits) -> Sidecar {
    let at = cluster("c", &[backend.address], ClusterSettings::default());
    Sidecar::start_with(snapshot(at, route_to("c", None)), limits).await
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_reaches_nobody() {
    let backend = Backend::saying("ok").await;
    let sidecar = sidecar(&backend, AcceptLimits::default()).await;
    let start = "POST / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n";
    for rest in [
        "content-length: 4\r\ncontent-length: 5\r\n\r\nabcd",
        "content-length: -1\r\n\r\n",
        "transfer-encoding: gzip\r\n\r\n",
        "transfer-encoding: chunked, gzip\r\n\r\n",
        "host: other\r\n\r\n",
        "a\u{0}b: c\r\n\r\n",
        "no colon\r\n\r\n",
    ] {
        let answer = raw(sidecar.address, &format!("{start}{rest}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{rest:?}: {answer}");
    }
    for request in ["GET / HTTP/1.1\r\nconnection: close\r\n\r\n", "CONNECT shop:80 HTTP/1.1\r\nhost: shop:80\r\n\r\n"]
    {
        let answer = raw(sidecar.address, request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer}");
    }
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn a_length_beside_chunks_goes_no_further() {
    let backend = Backend::start(async move |request: http::Request<hyper::body::Incoming>| {
        let length = request.headers().contains_key("content-length");
        let body = http_body_util::BodyExt::collect(request.into_body()).await.unwrap().to_bytes();
        http::Response::new(crate::proxy::body::full(format!("{length} {}", body.len())))
    })
    .await;
    let sidecar = sidecar(&backend, AcceptLimits::default()).await;
    let start = "POST / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n";
    for headers in
        ["content-length: 1\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 1"]
    {
        let answer = raw(sidecar.address, &format!("{start}{headers}\r\n\r\n3\r\nabc\r\n0\r\n\r\n")).await;
        assert!(answer.ends_with("false 3"), "{headers}: {answer}");
    }
}

#[tokio::test]
async fn heads_have_a_size_and_a_number() {
    let backend = Backend::saying("ok").await;
    let sidecar = sidecar(&backend, AcceptLimits::default()).await;
    let large = format!("GET / HTTP/1.1\r\nhost: shop\r\nx: {}\r\n\r\n", "x".repeat(200_000));
    assert!(raw(sidecar.address, &large).await.starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\nhost: shop\r\n{}\r\n", "x: y\r\n".repeat(200));
    assert!(raw(sidecar.address, &many).await.starts_with("HTTP/1.1 431 "));
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn who_says_nothing_is_not_kept() {
    let backend = Backend::saying("ok").await;
    let limits = AcceptLimits { first_request: Duration::from_millis(100), ..AcceptLimits::default() };
    let sidecar = sidecar(&backend, limits).await;
    for begun in ["", "GET / HTTP/1.1\r\nhost:", "PRI * HT"] {
        let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, begun.as_bytes()).await.unwrap();
        let closed = timeout(DEADLINE, stream.read(&mut [0; 64])).await.expect("it is closed");
        assert!(closed.is_ok_and(|read| read == 0) || begun.is_empty(), "{begun:?}");
    }
}

#[tokio::test]
async fn who_asks_no_more_is_not_kept() {
    let backend = Backend::saying("ok").await;
    let limits = AcceptLimits { idle: Duration::from_millis(200), ..AcceptLimits::default() };
    let sidecar = sidecar(&backend, limits).await;
    for begun in ["", "GET / HTTP/1.1\r\nhost:"] {
        let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
        let bytes = format!("GET / HTTP/1.1\r\nhost: shop\r\n\r\n{begun}");
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        timeout(DEADLINE, stream.read_to_end(&mut all)).await.expect("it is closed").unwrap();
        assert!(all.starts_with(b"HTTP/1.1 200 "), "{begun:?}");
    }
}

#[tokio::test]
async fn an_end_lets_requests_finish() {
    let backend = Backend::start(async move |_| {
        tokio::time::sleep(Duration::from_millis(200)).await;
        http::Response::new(crate::proxy::body::full("ok"))
    })
    .await;
    let sidecar = sidecar(&backend, AcceptLimits::default()).await;
    let address = sidecar.address;
    let first = tokio::spawn(async move { raw(address, "GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await });
    timeout(DEADLINE, async {
        while backend.requests() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    sidecar.finish.cancel();
    // Who was there is answered, and so is who comes now; both are told that this was the last answer.
    let second = raw(address, "GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    for answer in [first.await.unwrap(), second] {
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    }
}

/// So much that no socket takes it all at once.
const LARGE: usize = 32 << 20;

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let wait = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test]
async fn who_breaks_off_its_request_harms_no_endpoint() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let (one, two) = (Backend::reading().await, Backend::reading().await);
        let settings = ClusterSettings { protocol, ..ClusterSettings::default() };
        let at = cluster("c", &[one.address, two.address], settings);
        let sidecar = Sidecar::start(snapshot(at, route_to("c", None))).await;
        for _ in 0..40 {
            let start = "POST / HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n";
            let answer = raw(sidecar.address, &format!("{start}3\r\nabc\r\nno size\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("connection: close"), "{answer}");
            assert!(answer.contains("x-chancery-reason: cancelled"), "{answer}");
        }
        assert!(one.requests() + two.requests() > 0, "they were asked");
        let counts = sidecar.outbound.world.load().upstreams["c"].endpoints.counts();
        assert_eq!((counts.opened, counts.refused), (0, 0), "{protocol:?}");
    }
}

#[tokio::test]
async fn who_does_not_go_on_with_its_request_is_not_waited_for() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let backend = Backend::reading().await;
        let at = cluster("c", &[backend.address], ClusterSettings { protocol, ..ClusterSettings::default() });
        let mut route = route_to("c", None);
        let Action::Forward(forward) = &mut route.action else { unreachable!() };
        forward.timeout = None;
        let limits = AcceptLimits { stall: Patience(Duration::from_millis(100)), ..AcceptLimits::default() };
        let sidecar = Sidecar::start_with(snapshot(at, route), limits).await;
        let begun = "POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 10\r\n\r\nabc";
        let answer = raw(sidecar.address, begun).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("reason: cancelled"), "{protocol:?}: {answer}");
        assert_eq!(sidecar.outbound.concurrency.lock().in_flight(), 0);
    }
}

#[tokio::test]
async fn who_does_not_take_its_answer_holds_nothing_for_long() {
    let backend = Backend::start(async move |_| http::Response::new(crate::proxy::body::full(vec![b'x'; LARGE]))).await;
    let limits = AcceptLimits { stall: Patience(Duration::from_millis(200)), ..AcceptLimits::default() };
    let sidecar = sidecar(&backend, limits).await;
    let concurrency = sidecar.outbound.concurrency.clone();
    // HTTP/1.1: nobody reads from the socket.
    let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await.unwrap();
    until("it is under way", || concurrency.lock().in_flight() == 1).await;
    until("it holds nothing", || concurrency.lock().in_flight() == 0).await;
    let mut rest = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("it is closed");
    assert!(read.is_err() || rest.len() < LARGE);
    // HTTP/2: there is no window for the answer; another stream of the connection goes on.
    let stream = TcpStream::connect(sidecar.address).await.unwrap();
    let (mut sender, connection) =
        h2::client::Builder::new().initial_window_size(0).handshake::<_, bytes::Bytes>(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = || http::Request::get("http://shop/").body(()).unwrap();
    let (stalled, _) = sender.send_request(request(), true).unwrap();
    let mut body = timeout(DEADLINE, stalled).await.unwrap().unwrap().into_body();
    until("it holds nothing", || concurrency.lock().in_flight() == 0).await;
    body.flow_control().release_capacity(0).unwrap();
    let (next, _) = sender.send_request(request(), true).unwrap();
    assert_eq!(timeout(DEADLINE, next).await.unwrap().unwrap().status(), 200);
    driver.abort();
}
