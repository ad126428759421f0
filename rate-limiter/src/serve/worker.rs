//! The threads that serve: each with its own runtime, its own socket and its own limiter.
//!
//! A runtime of one thread has no queue to share and no task to steal; on two cores it carries twice to three times what
//! the usual one does. The price is that a connection stays where it was accepted. The system spreads connections by a hash, which
//! with the few that an Envoy opens often puts most of them on one thread, so a thread that has more than another passes new ones on.
//!
//! A thread is owned by the program's [`Shutdown`]: it ends when that begins, within `DRAIN`, and its
//! unexpected end is the program's.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use chancery_runtime::{
    Shutdown,
    admin::Condition,
    tls::{self, ServerTls},
};
use metrics::Gauge;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::{Service, connection::Connection, grpc, meters, wire};

/// How long connections get to finish what they are at.
pub(super) const DRAIN: Duration = Duration::from_secs(5);

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long to wait when the system cannot give another connection (out of file descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Connections handed from one thread to another that have not been taken up yet.
const HANDED_OVER: usize = 256;

/// What speaks HTTP/2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GrpcServer {
    /// The `h2` crate driven directly, with tonic behind it.
    #[default]
    H2,
    /// tonic's own server: the measure of the other.
    Tonic,
}

/// What workers serve, and how.
pub struct Plan {
    /// Their sockets; one worker each.
    pub sockets: Vec<std::net::TcpListener>,
    /// Makes the service of a worker. It is called on the worker's own runtime, so that links of its own live there.
    pub open: Arc<dyn Fn() -> Service + Send + Sync>,
    /// What else is served, such as health.
    pub others: Routes,
    /// Ends calls that have no end of their own: after who watches health has been told of the end.
    pub told: CancellationToken,
    /// TLS with client certificates; `None`: plaintext.
    pub tls: Option<ServerTls>,
    /// The installation whose certificates speak for a fleet.
    pub trust_domain: Arc<str>,
    /// What speaks HTTP/2.
    pub server: GrpcServer,
    /// Connections at the same time, over all workers; more wait in the system's backlog.
    pub max_connections: usize,
    /// Met when all of them accept connections: with Redis they wait for it at first, for a moment.
    pub accepting: Condition,
}

/// Starts the workers.
///
/// The handles end with the workers.
///
/// # Errors
/// A thread cannot be started.
pub fn start(plan: Plan, shutdown: &Shutdown) -> io::Result<Vec<JoinHandle<()>>> {
    let places = Arc::new(Semaphore::new(plan.max_connections.max(1)));
    let (desks, inboxes): (Vec<_>, Vec<_>) = (0..plan.sockets.len()).map(Desk::new).unzip();
    let desks: Arc<[Desk]> = desks.into();
    let unsettled = Arc::new(AtomicUsize::new(plan.sockets.len()));
    let mut workers = Vec::new();
    for (index, (socket, inbox)) in plan.sockets.into_iter().zip(inboxes).enumerate() {
        let worker = Worker {
            index,
            desks: desks.clone(),
            places: places.clone(),
            unsettled: unsettled.clone(),
            accepting: plan.accepting.clone(),
            open: plan.open.clone(),
            others: plan.others.clone(),
            told: plan.told.clone(),
            tls: plan.tls.clone(),
            trust_domain: plan.trust_domain.clone(),
            server: plan.server,
            stop: shutdown.token(),
        };
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            // The receiver is gone if the program did not wait for this.
            let _ = ended.send(worker.run(socket, inbox));
        })?;
        workers.push(shutdown.spawn_essential("worker", async move {
            // A thread that panicked sends nothing.
            end.await.unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        }));
    }
    Ok(workers)
}

/// Where connections for a worker are put.
struct Desk {
    load: Arc<AtomicUsize>,
    inbox: mpsc::Sender<Accepted>,
    open: Gauge,
}

/// A connection that was accepted, and its place.
struct Accepted {
    stream: std::net::TcpStream,
    address: SocketAddr,
    place: Place,
}

/// A connection's place among those allowed, and in its worker's load. Given back when dropped.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    load: Arc<AtomicUsize>,
    open: Gauge,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Place")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Relaxed);
        self.open.decrement(1.0);
    }
}

impl Desk {
    fn new(index: usize) -> (Self, mpsc::Receiver<Accepted>) {
        let (inbox, taken) = mpsc::channel(HANDED_OVER);
        let open = metrics::gauge!(meters::CONNECTIONS, "worker" => index.to_string());
        (Self { load: Arc::default(), inbox, open }, taken)
    }

    fn place(&self, permit: OwnedSemaphorePermit) -> Place {
        self.load.fetch_add(1, Relaxed);
        self.open.increment(1.0);
        Place { _permit: permit, load: self.load.clone(), open: self.open.clone() }
    }
}

struct Worker {
    index: usize,
    desks: Arc<[Desk]>,
    places: Arc<Semaphore>,
    unsettled: Arc<AtomicUsize>,
    accepting: Condition,
    open: Arc<dyn Fn() -> Service + Send + Sync>,
    others: Routes,
    told: CancellationToken,
    tls: Option<ServerTls>,
    trust_domain: Arc<str>,
    server: GrpcServer,
    stop: CancellationToken,
}

impl Worker {
    fn run(self, socket: std::net::TcpListener, inbox: mpsc::Receiver<Accepted>) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.serve(socket, inbox))
    }

    async fn serve(self, socket: std::net::TcpListener, mut inbox: mpsc::Receiver<Accepted>) -> io::Result<()> {
        let listener = TcpListener::from_std(socket)?;
        let service = (self.open)();
        // A limiter that has just started must not admit by itself what others count together.
        service.limiter.store().settled().await;
        if self.unsettled.fetch_sub(1, Relaxed) == 1 {
            self.accepting.met();
        }
        let routes = grpc::routes(service.clone(), self.others.clone(), self.told.clone()).prepare();
        let mut tonic = Tonic::start(self.server, &routes, &self.stop);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&listener) => accepted,
                Some(accepted) = inbox.recv() => Some(accepted),
                Some(ended) = connections.join_next() => {
                    report(ended);
                    None
                }
                () = self.stop.cancelled() => break,
            };
            let Some(accepted) = accepted else { continue };
            let (tls, trust_domain, stop) = (self.tls.clone(), self.trust_domain.clone(), self.stop.clone());
            let (service, routes, tonic) = (service.clone(), routes.clone(), tonic.incoming.clone());
            connections.spawn(async move {
                let opened = tokio::select! {
                    opened = open(accepted, tls, &trust_domain) => opened,
                    () = stop.cancelled() => None,
                };
                match (opened, tonic) {
                    (None, _) => {}
                    (Some(connection), None) => wire::serve(connection, service, routes, stop).await,
                    // The receiver is gone when the server has stopped.
                    (Some(connection), Some(tonic)) => _ = tonic.send(connection).await,
                }
            });
        }
        // Nobody is to wait in a queue that is not served any more.
        drop(listener);
        let all_ended = async {
            while let Some(ended) = connections.join_next().await {
                report(ended);
            }
            tonic.ended().await;
        };
        if tokio::time::timeout(DRAIN, all_ended).await.is_err() {
            tracing::warn!(worker = self.index, count = connections.len(), "connections did not end in time");
        }
        Ok(())
    }

    /// The next connection; `None` if it was passed on to a worker that has fewer, or could not be had.
    async fn accept(&self, listener: &TcpListener) -> Option<Accepted> {
        // The semaphore is never closed.
        let permit = self.places.clone().acquire_owned().await.ok()?;
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                use io::ErrorKind as Kind;
                if !matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionRefused | Kind::ConnectionReset) {
                    tracing::warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
                return None;
            }
        };
        let stream = stream.into_std().ok()?;
        let load = |index: usize| self.desks[index].load.load(Relaxed);
        let freest = (0..self.desks.len()).min_by_key(|&index| (load(index), index != self.index))?;
        let desk = &self.desks[freest];
        let accepted = Accepted { stream, address, place: desk.place(permit) };
        if freest == self.index {
            return Some(accepted);
        }
        match desk.inbox.try_send(accepted) {
            Ok(()) => None,
            // It has too much to do to look; so it stays here.
            Err(mpsc::error::TrySendError::Full(accepted) | mpsc::error::TrySendError::Closed(accepted)) => {
                Some(accepted)
            }
        }
    }
}

async fn open(accepted: Accepted, tls: Option<ServerTls>, trust_domain: &str) -> Option<Connection> {
    let Accepted { stream, address, place } = accepted;
    let stream = TcpStream::from_std(stream).ok()?;
    match tls {
        None => Connection::plain(stream, address, place).ok(),
        Some(tls) => {
            let stream = tls::handshake(stream, address, &tls, HANDSHAKE).await?;
            Some(Connection::tls(stream, trust_domain, place))
        }
    }
}

/// tonic's own server, if it is the one that speaks.
struct Tonic {
    incoming: Option<mpsc::Sender<Connection>>,
    serving: JoinSet<Result<(), tonic::transport::Error>>,
}

impl Tonic {
    fn start(server: GrpcServer, routes: &Routes, stop: &CancellationToken) -> Self {
        let mut tonic = Self { incoming: None, serving: JoinSet::new() };
        if server == GrpcServer::Tonic {
            let (sender, incoming) = mpsc::channel(1);
            let incoming = ReceiverStream::new(incoming).map(Ok::<_, io::Error>);
            let router = tonic::transport::Server::builder().add_routes(routes.clone());
            tonic.serving.spawn(router.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()));
            tonic.incoming = Some(sender);
        }
        tonic
    }

    async fn ended(&mut self) {
        while self.serving.join_next().await.is_some() {}
    }
}

/// A connection's task ends without a word unless it panicked.
fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}
