//! A port: who may connect, how much one connection may ask for, and how it all ends.
//!
//! HTTP/1.1 or HTTP/2 is told apart by the first bytes. Everything a stranger can make long has a limit here: connections,
//! handshakes, heads, streams, and the time until a request is there. The end has two steps: first connections are
//! asked to finish (`GOAWAY`, `connection: close`), new ones included; then those that have not are closed.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use chancery_runtime::tls::{PeerInfo, ServerTls, handshake};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use super::{body::Body, stall::Deliveries};

/// Answers that callers did not take.
const STALLED: &str = "chancery_sidecar_stalled_total";

/// How long to wait when the system cannot give another connection (out of file descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Flow control of an HTTP/2 stream and of its connection.
const WINDOWS: (u32, u32) = (256 * 1024, 1024 * 1024);

/// HTTP/2 pings, and how long one may go unanswered.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// What a port takes on.
#[derive(Clone, Copy, Debug)]
pub struct AcceptLimits {
    /// Connections at the same time; more wait in the system's backlog.
    pub connections: usize,
    /// How long TLS may take.
    pub handshake: Duration,
    /// How long the first request of a connection may take to be there.
    pub first_request: Duration,
    /// How long the head of a later one may, the time before its first byte included: so long may HTTP/1.1 lie idle.
    pub idle: Duration,
    /// How long a caller may neither go on with what it sends nor take what it asked for.
    pub stall: Duration,
    /// Bytes of a head (HTTP/1.1), or of the headers (HTTP/2).
    pub head_bytes: usize,
    /// Headers of a request (HTTP/1.1).
    pub headers: usize,
    /// Streams of an HTTP/2 connection at the same time.
    pub streams: u32,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            handshake: Duration::from_secs(10),
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(300),
            head_bytes: 64 * 1024,
            headers: 100,
            streams: 250,
        }
    }
}

/// A port.
pub struct Port {
    listener: TcpListener,
    /// `None`: plaintext.
    tls: Option<ServerTls>,
    limits: AcceptLimits,
    open: watch::Sender<usize>,
    /// When connections are to finish.
    pub finish: CancellationToken,
    /// When they are closed.
    pub close: CancellationToken,
}

/// How many connections of a port are open.
pub type Open = watch::Receiver<usize>;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// What it proved to be; `None` in plaintext.
    pub identity: Option<PeerInfo>,
}

impl Port {
    /// Serves `listener`, once it is told to.
    pub fn new(listener: TcpListener, tls: Option<ServerTls>, limits: AcceptLimits) -> Self {
        let (finish, close) = (CancellationToken::new(), CancellationToken::new());
        Self { listener, tls, limits, open: watch::Sender::new(0), finish, close }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Nowhere.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// How many connections are open, as it changes.
    pub fn open(&self) -> Open {
        self.open.subscribe()
    }

    /// Serves until `close`, and returns when every connection is closed. `service` makes one for each connection.
    pub async fn serve<M, S>(self, service: M)
    where
        M: Fn(&Peer) -> S + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let room = Arc::new(Semaphore::new(self.limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
        let connections = TaskTracker::new();
        let service = Arc::new(service);
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&room) => accepted,
                () = self.close.cancelled() => break,
            };
            let Some((stream, address, place)) = accepted else { continue };
            self.open.send_modify(|open| *open += 1);
            let one = One {
                _open: Closing(self.open.clone()),
                limits: self.limits,
                finish: self.finish.clone(),
                close: self.close.clone(),
                _place: place,
            };
            let (tls, service) = (self.tls.clone(), service.clone());
            connections.spawn(async move {
                let close = one.close.clone();
                tokio::select! {
                    () = one.run(stream, address, tls, &*service) => {}
                    () = close.cancelled() => {}
                }
            });
        }
        connections.close();
        connections.wait().await;
    }

    async fn accept(&self, room: &Arc<Semaphore>) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let place = room.clone().acquire_owned().await.ok()?;
        match self.listener.accept().await {
            Ok((stream, address)) => Some((stream, address, place)),
            Err(error) => {
                if !concerns_one_connection(&error) {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
                None
            }
        }
    }
}

/// Counts a connection as open while it exists.
struct Closing(watch::Sender<usize>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// One connection.
struct One {
    limits: AcceptLimits,
    finish: CancellationToken,
    close: CancellationToken,
    _open: Closing,
    _place: OwnedSemaphorePermit,
}

impl One {
    async fn run<M, S>(self, stream: TcpStream, address: SocketAddr, tls: Option<ServerTls>, service: &M)
    where
        M: Fn(&Peer) -> S,
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        match tls {
            None => {
                if stream.set_nodelay(true).is_ok() {
                    let service = service(&Peer { address, identity: None });
                    self.serve(stream, service).await;
                }
            }
            Some(tls) => {
                // What is refused has been logged and counted.
                if let Some(stream) = handshake(stream, address, &tls, self.limits.handshake).await {
                    let service = service(&Peer { address, identity: Some(stream.peer().clone()) });
                    self.serve(stream, service).await;
                }
            }
        }
    }

    async fn serve<I, S>(self, stream: I, service: S)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let (begun, mut first) = watch::channel(false);
        let deliveries = Deliveries::new(self.limits.stall);
        let (looked_after, one_at_a_time) = (deliveries.clone(), Arc::new(AtomicBool::new(false)));
        let http1 = one_at_a_time.clone();
        let service = tower::service_fn(move |mut request: Request<Incoming>| {
            begun.send_if_modified(|begun| !std::mem::replace(begun, true));
            http1.store(request.version() < Version::HTTP_2, Relaxed);
            request.extensions_mut().insert(looked_after.patience());
            let (mut service, looked_after) = (service.clone(), looked_after.clone());
            async move {
                std::future::poll_fn(|context| service.poll_ready(context)).await?;
                Ok::<_, Infallible>(service.call(request).await?.map(|body| looked_after.look_after(body)))
            }
        });
        let builder = builder(&self.limits);
        let service = TowerToHyperService::new(service);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let late = tokio::time::sleep(self.limits.first_request);
        tokio::pin!(late);
        let (mut finishing, mut has_begun) = (false, false);
        // Often enough that nobody stalls for much longer than it may.
        let mut looks = tokio::time::interval((self.limits.stall / 4).max(Duration::from_millis(1)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection of a caller ended");
                    }
                    return;
                }
                () = self.finish.cancelled(), if !finishing => {
                    finishing = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = first.wait_for(|begun| *begun), if !has_begun => has_begun = true,
                _ = looks.tick() => {
                    let stalled = deliveries.sweep();
                    metrics::counter!(STALLED).increment(stalled as u64);
                    // Nothing else is under way on it.
                    if stalled > 0 && one_at_a_time.load(Relaxed) {
                        return;
                    }
                }
                // Neither a preface nor a head came: nobody else watches over the first bytes.
                () = late.as_mut(), if !has_begun => {
                    metrics::counter!("chancery_sidecar_slow_connections_total").increment(1);
                    return;
                }
            }
        }
    }
}

fn builder(limits: &AcceptLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(limits.head_bytes.max(8 * 1024))
        .max_headers(limits.headers)
        .half_close(false)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(1024)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1);
    builder
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionRefused | Kind::ConnectionReset)
}
