//! HTTP/2: connections that many requests share, opened when they are needed, by one of those who need them.
//!
//! A request goes over the first that has room, so that those that are not needed become idle. One has room for as many as its
//! server takes at the same time; beyond the last connection that there may be, requests wait in the one with the fewest.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason,
    client::{self, Connection, SendRequest},
};
use http::{HeaderName, HeaderValue, Request, Version, request::Parts};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, timeout},
};

use super::{
    MAX_HEAD, Received, Sent, Shared,
    exchange::{Ended, Exchange},
    no_connection,
};
use crate::{
    layer::{Failed, held::Held},
    policy::classify::Fault,
    proxy::body::Body,
};

/// Pings tell when a connection is dead; the sum of both is how long that may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Flow control of a stream and of the connection.
const WINDOWS: (u32, u32) = (256 * 1024, 1024 * 1024);

/// How many requests may be under way on a connection until its server has said how many it takes.
const FIRST_STREAMS: usize = 100;

/// The connections.
pub(super) struct Http2 {
    all: Mutex<Vec<Open>>,
    most: usize,
    /// Held by who connects.
    connecting: tokio::sync::Mutex<()>,
}

struct Open {
    sender: SendRequest<Bytes>,
    life: Arc<Life>,
    last_used: Instant,
}

impl Open {
    fn has_room(&self) -> bool {
        self.life.requests() < self.sender.current_max_send_streams()
    }

    fn sender(&mut self) -> (SendRequest<Bytes>, UnderWay) {
        self.last_used = Instant::now();
        (self.sender.clone(), UnderWay::new(&self.life))
    }
}

/// What is known of a connection, to all who have to do with it.
#[derive(Default)]
struct Life {
    /// Whether it has come to its end.
    over: AtomicBool,
    /// Requests under way.
    requests: AtomicUsize,
}

impl Life {
    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }

    fn is_unused(&self) -> bool {
        self.requests() == 0
    }
}

/// A request under way.
pub struct UnderWay(Arc<Life>);

impl UnderWay {
    fn new(on: &Arc<Life>) -> Self {
        on.requests.fetch_add(1, Relaxed);
        Self(on.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

impl Http2 {
    pub(super) fn new(max_connections: u32) -> Self {
        let most = usize::try_from(max_connections).unwrap_or(usize::MAX).max(1);
        Self { all: Mutex::default(), most, connecting: tokio::sync::Mutex::default() }
    }

    pub(super) async fn send(&self, shared: &Shared, request: Request<Body>) -> Result<Sent, Failed> {
        let (mut sender, under_way) = match self.take() {
            Some(taken) => taken,
            None => {
                // In a box: few requests connect, and none of the others is to be as large as that takes.
                let opening = Box::pin(self.open(shared));
                let opened = timeout(shared.settings.connect_timeout, opening).await;
                opened.map_err(no_connection)??
            }
        };
        let (mut head, body) = request.into_parts();
        let (going, kept) = on_the_wire(&mut head);
        match Exchange::begin(&mut sender, going, body, &shared.tasks).await {
            Ok(response) => Ok(Sent::Response(response.map(|body| Received::Http2(Held::new(body, under_way))))),
            // The caller's own doing, whatever became of the stream.
            Err(Ended::Upload(source)) => Err(Failed::Upstream { fault: Fault::Reset, source: Some(source) }),
            Err(Ended::Stream { error, sent, body }) => {
                // Not sent at all, or not looked at.
                if !sent || gone_away(&error) {
                    self.leave(&under_way.0);
                    if let Some(body) = body {
                        head.headers = kept.into_iter().collect();
                        return Ok(Sent::Not(Box::new(Request::from_parts(head, body))));
                    }
                }
                Err(failed(error))
            }
        }
    }

    /// Does not use this connection for others.
    fn leave(&self, failed: &Arc<Life>) {
        self.all.lock().retain(|one| !Arc::ptr_eq(&one.life, failed));
    }

    /// A connection for a request; `None`: one more is to be opened.
    fn take(&self) -> Option<(SendRequest<Bytes>, UnderWay)> {
        let mut all = self.all.lock();
        all.retain(|one| !one.life.is_over());
        let least = || all.iter().enumerate().min_by_key(|(_, one)| one.life.requests());
        let at = match all.iter().position(Open::has_room) {
            Some(first) => first,
            None if all.len() < self.most => return None,
            None => least()?.0,
        };
        Some(all[at].sender())
    }

    async fn open(&self, shared: &Shared) -> Result<(SendRequest<Bytes>, UnderWay), Failed> {
        let _connecting = self.connecting.lock().await;
        if let Some(opened_meanwhile) = self.take() {
            return Ok(opened_meanwhile);
        }
        let stream = shared.connect().await?;
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(self.first_streams())
            .initial_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_header_list_size(MAX_HEAD as u32);
        let (sender, connection) = builder.handshake(stream).await.map_err(no_connection)?;
        let life = Arc::<Life>::default();
        let driven = drive(connection, life.clone());
        shared.tasks.spawn(async {
            if let Err(error) = driven.await {
                tracing::debug!(%error, "connection to an endpoint ended");
            }
        });
        let mut open = Open { sender, life, last_used: Instant::now() };
        let taken = open.sender();
        self.all.lock().push(open);
        Ok(taken)
    }

    /// How many requests a new connection is taken to have room for until its server says so: as many as the others, if there are any.
    fn first_streams(&self) -> usize {
        let all = self.all.lock();
        all.iter().map(|one| one.sender.current_max_send_streams()).fold(FIRST_STREAMS, usize::min)
    }

    pub(super) fn sweep(&self, idle_timeout: Duration) {
        let unused = |one: &Open| one.life.is_unused() && one.last_used.elapsed() >= idle_timeout;
        self.all.lock().retain(|one| !one.life.is_over() && !unused(one));
    }

    pub(super) fn idle(&self) -> usize {
        self.all.lock().iter().filter(|one| one.life.is_unused()).count()
    }
}

/// What of a head goes out, and its headers once more, in case the request has to be sent anew.
fn on_the_wire(head: &mut Parts) -> (Request<()>, Vec<(HeaderName, HeaderValue)>) {
    let headers = mem::take(&mut head.headers);
    // A list takes less than a map, and hardly any is asked for.
    let kept = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut going = Request::new(());
    *going.method_mut() = head.method.clone();
    *going.uri_mut() = head.uri.clone();
    *going.version_mut() = Version::HTTP_2;
    *going.headers_mut() = headers;
    (going, kept)
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
async fn drive<T>(mut connection: Connection<T, Bytes>, life: Arc<Life>) -> Result<(), Dead>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let pings = connection.ping_pong();
    let ended = tokio::select! {
        biased;
        ended = connection => ended.map_err(Dead::Failed),
        () = silence(pings, &life) => Err(Dead::Silent),
    };
    life.over.store(true, Relaxed);
    ended
}

/// Until a ping is not answered in time. One on which nothing is under way is not asked: it is closed when it has been idle for long.
async fn silence(pings: Option<PingPong>, life: &Life) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        sleep(KEEPALIVE.0).await;
        if life.is_unused() {
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

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// How long a connection lasts whose server says nothing after its SETTINGS, if a request is `under_way` on it.
    async fn lasts(under_way: bool) -> Option<Duration> {
        let (near, far) = duplex(1 << 16);
        let (client, server) = tokio::join!(client::handshake(near), h2::server::handshake(far));
        // Never asked for anything, it reads nothing.
        let (sender, _silent) = (client.as_ref().unwrap().0.clone(), server.unwrap());
        let life = Arc::<Life>::default();
        let _request = under_way.then(|| UnderWay::new(&life));
        let began = Instant::now();
        let ended = timeout(10 * KEEPALIVE.0, drive(client.unwrap().1, life)).await;
        drop(sender);
        ended.ok().map(|ended| {
            assert!(matches!(ended, Err(Dead::Silent)), "{ended:?}");
            began.elapsed()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_dead_if_it_is_silent_though_somebody_waits() {
        assert_eq!(lasts(true).await, Some(KEEPALIVE.0 + KEEPALIVE.1), "whether the pool has it still or not");
        assert_eq!(lasts(false).await, None);
    }
}
