//! One connection, from its first byte to its last.
//!
//! How it is asked to finish: HTTP/2 has a word for it, `GOAWAY`, after which what is under way ends and nothing new begins.
//! HTTP/1.1 can only say so in an answer, `connection: close`; to close a connection on which nothing is under way would meet a
//! request that has just been sent. So an idle one is given a while to bring one more. A connection that is new when the end has
//! begun is served like the others: whoever made it has not heard of the end yet.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use chancery_runtime::tls::{ServerTls, handshake};
use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{AcceptLimits, Carries, Opaque, Peer};
use crate::{
    config::tcp::IDLE,
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
            Some(tls) => {
                // What is refused has been logged and counted.
                if let Some(stream) = handshake(stream, address, &tls, self.limits.handshake).await {
                    let peer = Peer { address, identity: Some(stream.peer().clone()) };
                    // All that is offered there is HTTP.
                    let agreed = stream.protocol().is_some();
                    // Larger than what a connection in plaintext needs.
                    Box::pin(self.carry(stream, peer, agreed, service)).await;
                }
            }
        }
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
        let (begun, mut first) = watch::channel(None);
        let finish = self.finish.clone();
        let deliveries = Deliveries::new(self.limits.stall);
        let (looked_after, one_at_a_time) = (deliveries.clone(), Arc::new(AtomicBool::new(false)));
        let http1 = one_at_a_time.clone();
        let service = tower::service_fn(move |mut request: Request<Incoming>| {
            let version = request.version();
            begun.send_if_modified(|begun| begun.replace(version).is_none());
            http1.store(version < Version::HTTP_2, Relaxed);
            request.extensions_mut().insert(looked_after.patience());
            let (mut service, finish, looked_after) = (service.clone(), finish.clone(), looked_after.clone());
            async move {
                std::future::poll_fn(|context| service.poll_ready(context)).await?;
                let mut response = service.call(request).await?;
                // A connection that changes its protocol says so in this header.
                if version < Version::HTTP_2 && finish.is_cancelled() && !response.status().is_informational() {
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response.map(|body| looked_after.look_after(body)))
            }
        });
        let builder = builder(&self.limits);
        let service = TowerToHyperService::new(service);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let late = Instant::now() + self.limits.first_request;
        // What is spoken, once a request has begun; when the connection is closed though nothing is under way; whether it was.
        let (mut spoken, mut goes_at, mut going) = (None, None, false);
        // Often enough that nobody stalls for much longer than it may.
        let mut looks = interval((self.limits.stall / 4).max(Duration::from_millis(1)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection of a caller ended");
                    }
                    return;
                }
                version = version_of(&mut first), if spoken.is_none() => spoken = Some(version),
                // Neither a preface nor a head came: nobody else watches over the first bytes.
                () = sleep_until(late), if spoken.is_none() => return slow(),
                () = self.finish.cancelled(), if spoken.is_some() && goes_at.is_none() => {
                    let at_once = spoken == Some(Version::HTTP_2);
                    goes_at = Some(Instant::now() + if at_once { Duration::ZERO } else { LINGER });
                }
                // What is left is what is under way.
                () = at(goes_at), if !going => {
                    going = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ = looks.tick() => {
                    let stalled = deliveries.sweep();
                    metrics::counter!(m::STALLED).increment(stalled as u64);
                    // Nothing else is under way on it.
                    if stalled > 0 && one_at_a_time.load(Relaxed) {
                        return;
                    }
                }
            }
        }
    }
}

/// The version of the first request, once it has begun.
async fn version_of(first: &mut watch::Receiver<Option<Version>>) -> Version {
    let version = first.wait_for(Option::is_some).await.ok().and_then(|version| *version);
    match version {
        Some(version) => version,
        // The connection is over, and says so itself.
        None => std::future::pending().await,
    }
}

/// That moment; never, if there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
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
