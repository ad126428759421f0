//! What strangers send.

use std::time::Duration;

use tokio::{io::AsyncReadExt as _, net::TcpStream, time::timeout};

use super::support::{Backend, DEADLINE, Sidecar, cluster, raw, route_to, snapshot};
use crate::{config::snapshot::ClusterSettings, proxy::accept::AcceptLimits};

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
