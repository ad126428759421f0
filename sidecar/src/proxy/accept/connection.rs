//! One connection, from its first byte to its last.
//!
//! How it is asked to finish: HTTP/2 has a word for it, `GOAWAY`, after which what is under way ends and nothing new begins.
//! HTTP/1.1 can only say so in an answer, `connection: close`; to close a connection on which nothing is under way would meet a
//! request that has just been sent. So an idle one is given a while to bring one more. A connection that is new when the end has
//! begun is served like the others: whoever made it has not heard of the end yet.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use chancery_runtime::tls::{ServerTls, handshake};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use hyper::{
    body::Incoming,
    rt::{Sleep, Timer},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Notify,
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{AcceptLimits, Carries, Opaque, Peer};
use crate::{
    config::tcp::IDLE,
    layer::at,
    metrics as m,
    proxy::{
        body::Body,
        detect::{Spoken, detect},
        stall::Deliveries,
        tunnel::{self, Counters},
    },
};

/// Flow control of an HTTP/2 stream and of its connection.
const WINDOWS: (u32, u32) = (256 * 1024, 1024 * 1024);

/// So many headers hyper takes where nothing else is asked of it.
const HYPER_HEADERS: usize = 100;

/// HTTP/2 pings, and how long one may go unanswered.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// How long an idle connection of HTTP/1.1 may bring one more request once it is to finish.
const LINGER: Duration = Duration::from_secs(3);

/// How long connecting to whom bytes are carried may take.
const CONNECT: Duration = Duration::from_secs(1);

/// One connection.
pub(super) struct Connection {
    pub(super) limits: AcceptLimits,
    pub(super) carries: Carries,
    pub(super) finish: CancellationToken,
}

impl Connection {
    pub(super) async fn run<M, S>(self, stream: TcpStream, address: SocketAddr, tls: Option<ServerTls>, service: &M)
    where
        M: Fn(&Peer) -> S,
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        match tls {
            None => {
                if stream.set_nodelay(true).is_ok() {
                    self.carry(stream, Peer { address, identity: None }, false, service).await;
                }
            }
            // In a box: larger than what a connection in plaintext needs.
            Some(tls) => Box::pin(self.secure(stream, address, tls, service)).await,
        }
    }

    async fn secure<M, S>(self, stream: TcpStream, address: SocketAddr, tls: ServerTls, service: &M)
    where
        M: Fn(&Peer) -> S,
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        // What is refused has been logged and counted. In a box: it takes more room than what follows, which stays for long.
        let Some(stream) = Box::pin(handshake(stream, address, &tls, self.limits.handshake)).await else { return };
        let peer = Peer { address, identity: Some(stream.peer().clone()) };
        // All that is offered there is HTTP.
        let agreed = stream.protocol().is_some();
        self.carry(stream, peer, agreed, service).await;
    }

    /// Finds out what is spoken, as far as it is not known, and serves it.
    async fn carry<I, M, S>(self, stream: I, peer: Peer, is_http: bool, service: &M)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        M: Fn(&Peer) -> S,
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        match &self.carries {
            Carries::All(opaque) => Box::pin(tunnelled(stream, &peer, opaque)).await,
            Carries::Detected(opaque) if !is_http => match timeout(self.limits.first_request, detect(stream)).await {
                Ok(Ok((Spoken::Opaque, stream))) => Box::pin(tunnelled(stream, &peer, opaque)).await,
                Ok(Ok((Spoken::Http, stream))) => Box::pin(self.serve(stream, service(&peer))).await,
                Ok(Err(error)) => tracing::debug!(%error, "a connection ended before it said anything"),
                Err(_) => slow(),
            },
            _ => Box::pin(self.serve(stream, service(&peer))).await,
        }
    }

    async fn serve<I, S>(self, stream: I, service: S)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let all = Arc::new(All {
            spoken: OnceLock::new(),
            begun: Notify::new(),
            finish: self.finish,
            deliveries: Deliveries::new(self.limits.stall),
        });
        let requests = all.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            requests.begins(&request);
            let (version, all, mut service) = (request.version(), requests.clone(), service.clone());
            // In a box: hyper keeps the room of a request for as long as its connection lasts.
            Box::pin(async move {
                std::future::poll_fn(|context| service.poll_ready(context)).await?;
                let mut response = service.call(request).await?;
                // A connection that changes its protocol says so in this header.
                if version < Version::HTTP_2 && all.finish.is_cancelled() && !response.status().is_informational() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response.map(|body| all.deliveries.look_after(body)))
            })
        });
        let builder = builder(&self.limits);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let mut lookout = Lookout::new(&all, &self.limits);
        loop {
            // Of its own waker: it is polled when it has something to say, and not whenever a request moves.
            let mut next = FuturesUnordered::from_iter([Box::pin(lookout.next())]);
            tokio::select! {
                biased;
                Some(event) = next.next() => match event {
                    Event::Finish => connection.as_mut().graceful_shutdown(),
                    Event::Close => return,
                },
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection of a caller ended");
                    }
                    return;
                }
            }
        }
    }
}

/// What all requests of a connection share.
struct All {
    /// The version of the first, once it has begun.
    spoken: OnceLock<Version>,
    begun: Notify,
    finish: CancellationToken,
    deliveries: Deliveries,
}

impl All {
    fn begins(&self, request: &Request<Incoming>) {
        if self.spoken.set(request.version()).is_ok() {
            self.begun.notify_one();
        }
    }

    fn is_one_at_a_time(&self) -> bool {
        self.spoken.get().is_some_and(|version| *version < Version::HTTP_2)
    }
}

/// Waits for what a connection does not notice itself.
struct Lookout<'a> {
    all: &'a All,
    /// Until when the first request has to be there.
    late: Instant,
    /// When the connection is closed though nothing is under way.
    goes_at: Option<Instant>,
    /// Whether it has been.
    going: bool,
    looks: Interval,
}

/// What is to be done with a connection.
enum Event {
    /// Nothing new begins.
    Finish,
    /// It ends at once.
    Close,
}

impl<'a> Lookout<'a> {
    fn new(all: &'a All, limits: &AcceptLimits) -> Self {
        // Often enough that nobody stalls, or is idle, for much longer than it may.
        let mut looks = interval((limits.stall.0.min(limits.idle) / 4).max(Duration::from_millis(1)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { all, late: Instant::now() + limits.first_request, goes_at: None, going: false, looks }
    }

    async fn next(&mut self) -> Event {
        loop {
            let spoken = self.all.spoken.get().copied();
            tokio::select! {
                () = self.all.begun.notified(), if spoken.is_none() => {}
                // Neither a preface nor a head came: nobody else watches over the first bytes.
                () = sleep_until(self.late), if spoken.is_none() => {
                    slow();
                    return Event::Close;
                }
                () = self.all.finish.cancelled(), if spoken.is_some() && self.goes_at.is_none() => {
                    let at_once = spoken == Some(Version::HTTP_2);
                    self.goes_at = Some(Instant::now() + if at_once { Duration::ZERO } else { LINGER });
                }
                // What is left is what is under way.
                () = at(self.goes_at), if !self.going => {
                    self.going = true;
                    return Event::Finish;
                }
                _ = self.looks.tick() => {
                    let stalled = self.all.deliveries.sweep();
                    metrics::counter!(m::STALLED).increment(stalled as u64);
                    // Nothing else is under way on it.
                    if stalled > 0 && self.all.is_one_at_a_time() {
                        return Event::Close;
                    }
                }
            }
        }
    }
}

fn slow() {
    metrics::counter!(m::SLOW_CONNECTIONS).increment(1);
}

/// Carries what is not HTTP, until both sides are done, or nothing has come for long.
async fn tunnelled<I: AsyncRead + AsyncWrite>(stream: I, peer: &Peer, opaque: &Opaque) {
    let Some(connector) = opaque(peer) else { return };
    let carried = async {
        let there = connector.connect(CONNECT).await?;
        metrics::counter!(m::TUNNELS).increment(1);
        tunnel::join(stream, there, Some(IDLE), &Counters::default()).await
    };
    if let Err(error) = carried.await {
        tracing::debug!(%error, peer = %peer.address, "a connection that is no HTTP broke off");
    }
}

/// The time for HTTP/1.1, which sets a timer for each head. These wake nobody: a connection is looked at now and then, and looks
/// at its timer when it is.
#[derive(Clone)]
struct LookedAt;

/// Whether that moment is there, for who looks.
struct Until(std::time::Instant);

impl Timer for LookedAt {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Until(deadline))
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

impl Sleep for Until {}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if Instant::now().into_std() < self.0 { Poll::Pending } else { Poll::Ready(()) }
    }
}

fn builder(limits: &AcceptLimits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(LookedAt)
        .header_read_timeout(limits.idle)
        .max_buf_size(limits.head_bytes.max(8 * 1024))
        .half_close(false)
        .keep_alive(true);
    // Asked for as many as it has room for anyway, it fills that room for each head.
    if limits.headers != HYPER_HEADERS {
        builder.http1().max_headers(limits.headers);
    }
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
