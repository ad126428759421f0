//! xDS connections: HTTP/2 on each that TLS has let in, until it is old enough.
//!
//! A connection ends after a while, so that proxies spread anew over the replicas and show their certificates again. Its
//! streams are told to be opened elsewhere, and so is the connection itself; each at a moment of its own, or
//! all that came after a restart would come back together too.
//!
//! Not tonic's server: it ends connections at one age for all, and leaves streams that do not end by themselves open.

mod whole;

use std::{convert::Infallible, future::ready, sync::Arc, time::Duration};

use chancery_runtime::tls::{TlsConnection, TlsListener};
use chancery_xds::{Retire, RunStream};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::Request;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::whole::{Beside, Whole};
use crate::services::Services;

/// HTTP/2 keepalive: a dead peer is noticed after the sum of both.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Part of the age by which connections differ.
const SPREAD: f64 = 0.1;

/// How long a connection may take to end once its streams were told to.
const GRACE: Duration = Duration::from_secs(10);

/// Streams of one connection. A proxy needs one or one per type, and one for its load.
const STREAMS: u32 = 128;

/// Serves the connections that come in, each for about `age`, until `stop`. Each is a task of `tasks`, with all its streams.
pub async fn serve(
    services: Services,
    mut incoming: TlsListener,
    age: Duration,
    tasks: TaskTracker,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    loop {
        let connection = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            connection = incoming.next() => connection,
        };
        // The listener ends with the program, and never yields an error.
        let Some(Ok(connection)) = connection else { return Ok(()) };
        let age = spread(age, rand::random());
        tasks.spawn(serve_one(services.clone(), connection, age, stop.clone()));
    }
}

/// `age`, up to a tenth longer or shorter; `draw` is in [0, 1).
fn spread(age: Duration, draw: f64) -> Duration {
    age.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * draw)
}

async fn serve_one(services: Services, connection: TlsConnection, age: Duration, stop: CancellationToken) {
    let (peer, retire, beside) = (connection.peer().clone(), Retire::default(), Beside::default());
    let service = {
        let (peer, retire, beside) = (peer.clone(), retire.clone(), beside.clone());
        let run = RunStream(Arc::new(move |stream| beside.run(stream)));
        service_fn(move |mut request: Request<Incoming>| {
            let extensions = request.extensions_mut();
            extensions.insert(peer.clone());
            extensions.insert(retire.clone());
            extensions.insert(run.clone());
            ready(Ok::<_, Infallible>(services.call(request)))
        })
    };
    let serving = protocol(KEEPALIVE, beside.clone()).serve_connection(TokioIo::new(connection), service);
    let mut serving = Whole::new(serving, beside);
    let old_enough = async {
        tokio::select! {
            () = sleep(age) => {}
            // The streams hear of it themselves.
            () = stop.cancelled() => {}
        }
    };
    // With a waker of its own, as in a stream: it is not polled with each message.
    let mut old_enough = FuturesUnordered::from_iter([Box::pin(old_enough)]);
    let result = tokio::select! {
        result = &mut serving => Some(result),
        _ = old_enough.next() => None,
    };
    match result {
        Some(result) => ended(result, &peer),
        None => {
            retire.0.cancel();
            serving.connection().graceful_shutdown();
            match timeout(GRACE, &mut serving).await {
                Ok(result) => ended(result, &peer),
                Err(_) => tracing::debug!(peer = %peer.address, "xDS connection cut off, its streams did not end"),
            }
        }
    }
    serving.end().await;
}

/// HTTP/2 as it is spoken with everybody; `keepalive` is how often a peer is asked, and how long it has for the answer.
fn protocol(keepalive: (Duration, Duration), beside: Beside) -> http2::Builder<Beside> {
    let mut protocol = http2::Builder::new(beside);
    protocol
        .timer(TokioTimer::new())
        .keep_alive_interval(keepalive.0)
        .keep_alive_timeout(keepalive.1)
        .max_concurrent_streams(STREAMS);
    protocol
}

fn ended(result: hyper::Result<()>, peer: &chancery_runtime::tls::PeerInfo) {
    if let Err(error) = result {
        let error = chancery_runtime::telemetry::chain(&error);
        tracing::debug!(peer = %peer.address, error, "xDS connection failed");
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use http::Response;
    use tokio::io::{AsyncWriteExt as _, duplex};
    use tonic::body::Body;

    use super::*;

    /// Long enough for anything here.
    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_peer_that_answers_no_ping_is_given_up() {
        let (ours, mut peer) = duplex(1 << 16);
        let service = service_fn(|_: Request<Incoming>| pending::<Result<Response<Body>, Infallible>>());
        let keepalive = (Duration::from_millis(20), Duration::from_millis(20));
        let beside = Beside::default();
        let serving = protocol(keepalive, beside.clone()).serve_connection(TokioIo::new(ours), service);
        let serving = Whole::new(serving, beside);
        // The preface and empty settings; then nothing any more.
        peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let error = timeout(DEADLINE, serving).await.unwrap().unwrap_err();
        assert!(error.is_timeout(), "{error}");
    }

    #[test]
    fn ages_differ_by_a_tenth_at_most() {
        let age = Duration::from_secs(1800);
        assert_eq!((spread(age, 0.0), spread(age, 0.5)), (Duration::from_secs(1620), age));
        assert!(spread(age, 0.999) < Duration::from_secs(1980));
    }
}
