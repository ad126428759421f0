//! HTTP/2: one connection, opened when it is needed, by one of those who need it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason,
    client::{self, Connection, SendRequest},
};
use http::{HeaderMap, Request, Version, request::Parts};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::{
    MAX_HEAD, Sent, Shared,
    exchange::{Ended, Exchange},
    no_connection,
};
use crate::{
    layer::{Failed, held::Held},
    policy::classify::Fault,
    proxy::{
        body::{Body, boxed},
        connect::Stream,
    },
};

/// Pings tell when a connection is dead; the sum of both is how long that may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Flow control of a stream and of the connection.
const WINDOWS: (u32, u32) = (256 * 1024, 1024 * 1024);

/// The connection.
#[derive(Default)]
pub(super) struct Http2 {
    current: Mutex<Option<Current>>,
    /// Held by who connects.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Current {
    sender: SendRequest<Bytes>,
    uses: Uses,
    last_used: Instant,
}

/// Held by each request under way, besides the pool and the task that drives the connection; and whether that has come to its end.
#[derive(Clone, Default)]
struct Uses(Arc<AtomicBool>);

impl Uses {
    fn are_over(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Whether no request is under way.
    fn are_none(&self) -> bool {
        Arc::strong_count(&self.0) <= 2
    }
}

impl Http2 {
    pub(super) async fn send(&self, shared: &Shared, request: Request<Body>) -> Result<Sent, Failed> {
        let mut current = match self.take() {
            Some(current) => current,
            None => {
                // In a box: few requests connect, and none of the others is to be as large as that takes.
                let opening = Box::pin(self.open(shared));
                let opened = timeout(shared.settings.connect_timeout, opening).await;
                opened.map_err(no_connection)??
            }
        };
        let (head, body) = request.into_parts();
        match Exchange::begin(&mut current.sender, on_the_wire(&head), body, &shared.tasks).await {
            Ok(response) => Ok(Sent::Response(response.map(|body| boxed(Held::new(body, current.uses))))),
            // The caller's own doing, whatever became of the stream.
            Err(Ended::Upload(source)) => Err(Failed::Upstream { fault: Fault::Reset, source: Some(source) }),
            Err(Ended::Stream { error, sent, body }) => {
                // Not sent at all, or not looked at.
                if !sent || gone_away(&error) {
                    self.leave(&current);
                    if let Some(body) = body {
                        return Ok(Sent::Not(Box::new(Request::from_parts(head, body))));
                    }
                }
                Err(failed(error))
            }
        }
    }

    /// Does not use this connection for others.
    fn leave(&self, failed: &Current) {
        let mut current = self.current.lock();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.uses.0, &failed.uses.0)) {
            *current = None;
        }
    }

    fn take(&self) -> Option<Current> {
        let mut current = self.current.lock();
        let current = current.as_mut().filter(|current| !current.uses.are_over())?;
        current.last_used = Instant::now();
        Some(current.clone())
    }

    async fn open(&self, shared: &Shared) -> Result<Current, Failed> {
        let _connecting = self.connecting.lock().await;
        if let Some(opened_meanwhile) = self.take() {
            return Ok(opened_meanwhile);
        }
        let stream = shared.connect().await?;
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_header_list_size(MAX_HEAD as u32);
        let (sender, connection) = builder.handshake(stream).await.map_err(no_connection)?;
        let uses = Uses::default();
        shared.drive(drive(connection, uses.clone()));
        let current = Current { sender, uses, last_used: Instant::now() };
        *self.current.lock() = Some(current.clone());
        Ok(current)
    }

    pub(super) fn sweep(&self, idle_timeout: Duration) {
        let mut current = self.current.lock();
        let unused = |one: &Current| one.uses.are_none() && one.last_used.elapsed() >= idle_timeout;
        if current.as_ref().is_some_and(|one| one.uses.are_over() || unused(one)) {
            *current = None;
        }
    }

    pub(super) fn idle(&self) -> usize {
        usize::from(self.current.lock().as_ref().is_some_and(|current| current.uses.are_none()))
    }
}

/// Of a head, what goes out: the rest stays here, in case the request has to be sent anew.
fn on_the_wire(head: &Parts) -> Request<()> {
    let mut going = Request::new(());
    *going.method_mut() = head.method.clone();
    *going.uri_mut() = head.uri.clone();
    *going.version_mut() = Version::HTTP_2;
    *going.headers_mut() = HeaderMap::clone(&head.headers);
    going
}

/// Whether the server has ended the connection, and the last stream that it will look at is an earlier one.
fn gone_away(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR)
}

/// What an error means, for a request of which something was sent.
fn failed(error: h2::Error) -> Failed {
    let refused = error.reason() == Some(Reason::REFUSED_STREAM) || gone_away(&error);
    let fault = if refused { Fault::RefusedStream } else { Fault::Reset };
    Failed::Upstream { fault, source: Some(error.into()) }
}

/// Runs a connection to its end, which is also when it does not answer any more.
async fn drive(mut connection: Connection<Stream, Bytes>, uses: Uses) -> Result<(), Dead> {
    let pings = connection.ping_pong();
    let ended = tokio::select! {
        biased;
        ended = connection => ended.map_err(Dead::Failed),
        () = silence(pings, &uses) => Err(Dead::Silent),
    };
    uses.0.store(true, Relaxed);
    ended
}

/// Until a ping is not answered in time. One on which nothing is under way is not asked: it is closed when it has been idle for long.
async fn silence(pings: Option<PingPong>, uses: &Uses) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        sleep(KEEPALIVE.0).await;
        if uses.are_none() {
            continue;
        }
        match timeout(KEEPALIVE.1, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection itself says what is wrong.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// Why a connection came to its end.
#[derive(Debug, thiserror::Error)]
enum Dead {
    #[error(transparent)]
    Failed(h2::Error),
    #[error("a ping was not answered in {} s", KEEPALIVE.1.as_secs())]
    Silent,
}
