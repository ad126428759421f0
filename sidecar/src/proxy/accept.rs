//! A port: who may connect, how much one connection may ask for, and how it all ends.
//!
//! HTTP/1.1 or HTTP/2 is told apart by the first bytes, and HTTP from other protocols, where these are
//! [carried](Carries). Everything a stranger can make long has a limit here: connections,
//! handshakes, heads, streams, and the time until a request is there. The end has two steps: first connections are
//! asked to finish (`GOAWAY`, `connection: close`), new ones included; then those that have not are closed.
//!
//! - `connection`: one connection, from its first byte to its last.

mod connection;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use chancery_runtime::tls::{PeerInfo, ServerTls};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use self::connection::Connection;
use super::{body::Body, connect::Connector, stall::Patience};

/// How long to wait when the system cannot give another connection (out of file descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What a port takes on.
#[derive(Clone, Copy, Debug)]
pub struct AcceptLimits {
    /// Connections at the same time; more wait in the system's backlog.
    pub connections: usize,
    /// How long TLS may take.
    pub handshake: Duration,
    /// How long the first request of a connection may take to be there.
    pub first_request: Duration,
    /// How long the head of a later one may, the time before its first byte included: so long may HTTP/1.1 lie idle. A quarter
    /// more at most.
    pub idle: Duration,
    /// How long a caller may neither go on with what it sends nor take what it asked for.
    pub stall: Patience,
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
            stall: Patience(Duration::from_secs(300)),
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
    carries: Carries,
    end: PortEnd,
    /// When no more connections are accepted, while those that are open go on.
    pub retire: CancellationToken,
}

/// How many connections are open, and when they end. Ports may have it in common.
#[derive(Clone, Debug)]
pub struct PortEnd {
    open: watch::Sender<usize>,
    /// When connections are to finish.
    pub finish: CancellationToken,
    /// When they are closed.
    pub close: CancellationToken,
}

/// Counts a connection as open while it exists.
struct Closing(watch::Sender<usize>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// What a port carries beside HTTP.
#[derive(Clone, Default)]
pub enum Carries {
    /// Nothing: what is no HTTP is refused.
    #[default]
    Http,
    /// What a caller's first bytes show to be something else.
    Detected(Opaque),
    /// Everything, without a look at it.
    All(Opaque),
}

/// Where bytes of a peer are carried; `None`: it may not send any.
pub type Opaque = Arc<dyn Fn(&Peer) -> Option<Connector> + Send + Sync>;

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
        Self { listener, tls, limits, carries: Carries::Http, end: PortEnd::new(), retire: CancellationToken::new() }
    }

    /// The same, ending in this way.
    pub fn ending(self, end: PortEnd) -> Self {
        Self { end, ..self }
    }

    /// How it ends.
    pub fn end(&self) -> PortEnd {
        self.end.clone()
    }

    /// The same, carrying other protocols than HTTP too.
    pub fn carrying(self, carries: Carries) -> Self {
        Self { carries, ..self }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Nowhere.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves requests until `close`, and returns when every connection is closed. `service` makes one for each connection.
    pub async fn serve<M, S>(self, service: M)
    where
        M: Fn(&Peer) -> S + Send + Sync + 'static,
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let (tls, service) = (self.tls.clone(), Arc::new(service));
        let (limits, carries, finish) = (self.limits, self.carries.clone(), self.end.finish.clone());
        self.each(move |stream, address| {
            let one = Connection { limits, carries: carries.clone(), finish: finish.clone() };
            let (tls, service) = (tls.clone(), service.clone());
            async move { one.run(stream, address, tls, &*service).await }
        })
        .await;
    }

    /// Accepts until `retire` or `close`, and returns when every connection is closed: when it has become what `one` makes
    /// of it, and at `close` at the latest.
    pub async fn each<F, R>(self, one: F)
    where
        F: Fn(TcpStream, SocketAddr) -> R,
        R: Future<Output = ()> + Send + 'static,
    {
        let room = Arc::new(Semaphore::new(self.limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&room) => accepted,
                () = self.retire.cancelled() => break,
                () = self.end.close.cancelled() => break,
            };
            let Some((stream, address, place)) = accepted else { continue };
            self.end.open.send_modify(|open| *open += 1);
            let held = (Closing(self.end.open.clone()), place);
            // A future that another waits for is kept twice, unless it has a place of its own.
            let (one, close) = (Box::pin(one(stream, address)), self.end.close.clone());
            connections.spawn(async move {
                // Of its own waker: it is not polled whenever a request moves.
                let mut close = FuturesUnordered::from_iter([close.cancelled()]);
                tokio::select! {
                    biased;
                    () = one => {}
                    _ = close.next() => {}
                }
                drop(held);
            });
        }
        // The system refuses whoever comes now, and others may have the port.
        drop(self.listener);
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

impl PortEnd {
    fn new() -> Self {
        Self { open: watch::Sender::new(0), finish: CancellationToken::new(), close: CancellationToken::new() }
    }

    /// How many connections are open, as it changes.
    pub fn open(&self) -> Open {
        self.open.subscribe()
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionRefused | Kind::ConnectionReset)
}
