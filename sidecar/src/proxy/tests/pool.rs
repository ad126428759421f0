//! Connections that are used again, and those that turn out to be dead.

use std::{sync::Arc, time::Duration};

use http::Response;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::Notify,
    task::JoinSet,
};

use super::support::{Backend, Client, Sidecar, cluster, request, route_to, snapshot};
use crate::{config::snapshot::ClusterSettings, proxy::body};

#[tokio::test]
async fn one_connection_serves_one_caller_after_another() {
    let backend = Backend::saying("ok").await;
    let at = cluster("c", &[backend.address], ClusterSettings::default());
    let sidecar = Sidecar::start(snapshot(at, route_to("c", None))).await;
    for _ in 0..20 {
        Client::connect(sidecar.address).await.get("/").await;
    }
    assert_eq!((backend.requests(), backend.connections()), (20, 1));
}

#[tokio::test]
async fn no_more_connections_are_made_than_allowed() {
    let backend = Backend::start(async move |_| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Response::new(body::full("ok"))
    })
    .await;
    let settings = ClusterSettings { max_connections: 2, ..ClusterSettings::default() };
    let at = cluster("c", &[backend.address], settings);
    let sidecar = Sidecar::start(snapshot(at, route_to("c", None))).await;
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let address = sidecar.address;
        clients.spawn(async move { Client::connect(address).await.get("/").await.status });
    }
    assert!(clients.join_all().await.iter().all(|status| *status == 200));
    assert!(backend.connections() <= 2, "{}", backend.connections());
}

#[tokio::test]
async fn idle_connections_are_closed_before_the_server_does_it() {
    let backend = Backend::saying("ok").await;
    let settings = ClusterSettings { idle_timeout: Duration::from_millis(50), ..ClusterSettings::default() };
    let at = cluster("c", &[backend.address], settings);
    let sidecar = Sidecar::start(snapshot(at, route_to("c", None))).await;
    let mut client = Client::connect(sidecar.address).await;
    client.get("/").await;
    let pool = sidecar.outbound.world.load().upstreams["c"].members[0].pool.clone();
    assert_eq!(pool.idle(), 1);
    tokio::time::timeout(super::support::DEADLINE, async {
        while pool.idle() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            sidecar.outbound.world.load().sweep();
        }
    })
    .await
    .unwrap();
    client.get("/").await;
    assert_eq!(backend.connections(), 2);
}

/// Answers one request on each connection, which it then closes when it is told to, without a word.
async fn closing() -> (std::net::SocketAddr, Arc<Notify>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let close = Arc::new(Notify::new());
    let told = close.clone();
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            told.notified().await;
        }
    });
    (address, close, task)
}

#[tokio::test]
async fn a_request_that_meets_a_dead_connection_goes_over_another() {
    let (address, close, _server) = closing().await;
    let at = cluster("c", &[address], ClusterSettings::default());
    let sidecar = Sidecar::start(snapshot(at, route_to("c", None))).await;
    let mut client = Client::connect(sidecar.address).await;
    for _ in 0..30 {
        // Neither the method nor the lack of a retry policy matters: nothing was sent.
        assert_eq!(client.send(request("POST", "/", "body")).await.status, 200);
        close.notify_one();
        // Give the end of the connection a chance to be known, or not.
        tokio::task::yield_now().await;
    }
}
