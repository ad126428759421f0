//! The connections of the HTTP port, and how long and how many.
//!
//! axum's own server waits for a request for ever and takes any number of connections; and it finds out which HTTP is spoken by waiting
//! as well. So this one speaks HTTP/1.1 only, as envoyproxy/ratelimit's port does. Who holds a place without asking anything loses it
//! soon, so that probes get one.

use std::{convert::Infallible, io, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// How long to wait when the system cannot give another connection (out of file descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What connections are held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Open at the same time; more wait in the system's backlog.
    pub(super) connections: usize,
    /// How long a client may take to send the head of its next request.
    pub(super) head: Duration,
}

/// Serves until `stop`, and then until every connection has ended.
pub(super) async fn serve(listener: TcpListener, router: Router, bounds: Bounds, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let Some((stream, place)) = accepted else { continue };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            speak(stream, router, bounds.head, stop).await;
            drop(place);
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    // The semaphore is never closed.
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            if error.kind() != io::ErrorKind::ConnectionAborted {
                tracing::warn!(%error, "cannot accept HTTP connections");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
            None
        }
    }
}

async fn speak(stream: TcpStream, router: Router, head: Duration, stop: CancellationToken) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            Ok::<_, Infallible>(router.oneshot(request.map(Body::new)).await.unwrap_or_else(|never| match never {}))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = chancery_runtime::telemetry::chain(&error), "HTTP connection ended");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: limiter\r\n\r\n";

    async fn port(bounds: Bounds, tasks: &mut JoinSet<()>) -> std::net::SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "hello"));
        tasks.spawn(serve(listener, router, bounds, CancellationToken::new()));
        address
    }

    /// Whether a whole answer comes.
    async fn is_answered(stream: &mut TcpStream) -> bool {
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            if stream.read_buf(&mut answer).await.unwrap() == 0 {
                return false;
            }
        }
        true
    }

    #[tokio::test]
    async fn who_asks_nothing_is_not_waited_for() {
        let mut tasks = JoinSet::new();
        let address = port(Bounds { connections: 10, head: Duration::from_millis(50) }, &mut tasks).await;
        for (sent, answered) in [(&b""[..], false), (&REQUEST[..9], false), (REQUEST, true)] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(sent).await.unwrap();
            let ends = async {
                assert_eq!(is_answered(&mut stream).await, answered);
                stream.read_to_end(&mut Vec::new()).await
            };
            assert!(tokio::time::timeout(SOON, ends).await.is_ok(), "after {} bytes", sent.len());
        }
    }

    #[tokio::test]
    async fn more_connections_than_allowed_wait() {
        let mut tasks = JoinSet::new();
        let address = port(Bounds { connections: 1, head: SOON }, &mut tasks).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(REQUEST).await.unwrap();
        assert!(is_answered(&mut first).await);
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(REQUEST).await.unwrap();
        for _ in 0..10 {
            first.write_all(REQUEST).await.unwrap();
            assert!(is_answered(&mut first).await);
        }
        assert!(second.try_read(&mut [0; 1]).is_err(), "it was answered");
        drop(first);
        assert!(tokio::time::timeout(SOON, is_answered(&mut second)).await.unwrap());
    }
}
