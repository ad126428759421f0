//! Backends that do what a test wants, a sidecar with a configuration written down, and clients without pool or retries.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use chancery_runtime::traces::Traces;
use http::{HeaderMap, Request, Response, header::HOST};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{
        routes::{Action, Forward, PathMatch, Rewrite, Route, RouteMatch, RouteTable, VirtualHost},
        snapshot::{Cluster, ClusterSettings, EndpointSpec, Snapshot, Target},
    },
    layer::Clock,
    policy::{
        concurrency::{self, Concurrency},
        deadline::RouteTimeout,
        retry::{Conditions, RetryPolicy},
    },
    proxy::{
        accept::{AcceptLimits, Port},
        body::Body,
        stack::Outbound,
        world::{Base, World},
    },
};

/// Long enough for anything here.
pub(super) const DEADLINE: Duration = Duration::from_secs(15);

/// A server; it ends when it is dropped.
pub(super) struct Backend {
    pub(super) address: SocketAddr,
    pub(super) requests: Arc<AtomicUsize>,
    pub(super) connections: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Backend {
    pub(super) async fn start<F, R>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (counted, opened) = (requests.clone(), connections.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                opened.fetch_add(1, SeqCst);
                let (answer, counted) = (answer.clone(), counted.clone());
                let service = service_fn(move |request| {
                    counted.fetch_add(1, SeqCst);
                    let answer = answer(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                open.spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { address, requests, connections, _task: task }
    }

    /// Answers everything with this text.
    pub(super) async fn saying(text: &'static str) -> Self {
        Self::start(move |_| async move { Response::new(crate::proxy::body::full(text)) }).await
    }

    /// Answers when it has read all of a request.
    pub(super) async fn reading() -> Self {
        Self::start(move |request: Request<Incoming>| async move {
            // Half a request gets half an answer.
            drop(request.into_body().collect().await);
            Response::new(crate::proxy::body::full("ok"))
        })
        .await
    }

    /// Answers everything with this status.
    pub(super) async fn failing(status: u16) -> Self {
        Self::start(move |_| async move {
            let mut response = Response::new(crate::proxy::body::empty());
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            response
        })
        .await
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

/// A cluster at these addresses.
pub(super) fn cluster(name: &str, at: &[SocketAddr], settings: ClusterSettings) -> Arc<Cluster> {
    let spec = |at: &SocketAddr| EndpointSpec { at: Target::Address(*at), weight: 1, healthy: true };
    Arc::new(Cluster { name: name.into(), endpoints: at.iter().map(spec).collect(), settings })
}

/// A route to a cluster for everything.
pub(super) fn route_to(cluster: &str, retry: Option<RetryPolicy>) -> Route {
    let forward = Forward {
        clusters: vec![(cluster.into(), 1)],
        timeout: Some(RouteTimeout::new(Duration::from_secs(10))),
        retry: retry.map(Arc::new),
        rewrite: Rewrite::None,
        host: None,
    };
    Route {
        name: "all".into(),
        matches: RouteMatch { path: PathMatch::Prefix("/".into()), headers: vec![], query: vec![], grpc: false },
        action: Action::Forward(forward.into()),
        request_headers: vec![],
        response_headers: vec![],
    }
}

/// Retries of what failed, so many.
pub(super) fn retries(retries: u32) -> Option<RetryPolicy> {
    let (on, _) = Conditions::parse("5xx,reset,connect-failure");
    Some(RetryPolicy { on, retries, ..RetryPolicy::default() })
}

/// One listener, one host, one route, one cluster.
pub(super) fn snapshot(cluster: Arc<Cluster>, route: Route) -> Snapshot {
    let host = VirtualHost { name: "shop".into(), routes: vec![route.into()] };
    let table = RouteTable::new([(vec!["shop".to_owned()], host)]).unwrap();
    Snapshot {
        listeners: [("web".into(), Some(table.into()))].into(),
        clusters: [(cluster.name.clone(), cluster)].into(),
        ..Snapshot::default()
    }
}

/// The way out, served on a port.
pub(super) struct Sidecar {
    pub(super) address: SocketAddr,
    pub(super) outbound: Arc<Outbound>,
    pub(super) finish: CancellationToken,
    _serving: JoinSet<()>,
}

impl Sidecar {
    pub(super) async fn start(snapshot: Snapshot) -> Self {
        Self::start_with(snapshot, AcceptLimits::default()).await
    }

    pub(super) async fn start_with(snapshot: Snapshot, limits: AcceptLimits) -> Self {
        Self::serve(snapshot, limits, Base { patience: limits.stall, ..base() }).await
    }

    pub(super) async fn start_as(snapshot: Snapshot, base: Base) -> Self {
        Self::serve(snapshot, AcceptLimits::default(), base).await
    }

    async fn serve(snapshot: Snapshot, limits: AcceptLimits, base: Base) -> Self {
        let world = World::default().next(snapshot.into(), &base);
        let concurrency = Concurrency::new(concurrency::Settings::Fixed(1000), base.clock.now());
        let outbound = Arc::new(Outbound {
            base,
            world: Arc::new(ArcSwap::from_pointee(world)),
            listener: None,
            concurrency: Arc::new(Mutex::new(concurrency)),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let port = Port::new(listener, None, limits);
        let finish = port.end().finish;
        let mut serving = JoinSet::new();
        let served = outbound.clone();
        serving.spawn(port.serve(move |_| {
            let outbound = served.clone();
            tower::service_fn(move |request| outbound.clone().call(request))
        }));
        Self { address, outbound, finish, _serving: serving }
    }

    /// Takes another configuration.
    pub(super) fn configure(&self, snapshot: Snapshot) {
        let next = self.outbound.world.load().next(snapshot.into(), &self.outbound.base);
        self.outbound.world.store(next.into());
    }
}

pub(super) fn base() -> Base {
    let patience = AcceptLimits::default().stall;
    Base { clock: Clock::start(), identity: None, tasks: TaskTracker::new(), patience, traces: Traces::off() }
}

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) async fn of(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let collected = timeout(DEADLINE, body.collect()).await.unwrap().unwrap();
        let trailers = collected.trailers().cloned();
        Self { status: parts.status.as_u16(), headers: parts.headers, trailers, body: collected.to_bytes() }
    }

    pub(super) fn reason(&self) -> &str {
        self.headers.get("x-chancery-reason").map_or("", |reason| reason.to_str().unwrap())
    }
}

/// A connection of HTTP/1.1.
pub(super) struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        Self { sender, _driver: driver }
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        let exchange = async {
            self.sender.ready().await.unwrap();
            self.sender.send_request(request).await.unwrap()
        };
        Answer::of(timeout(DEADLINE, exchange).await.unwrap()).await
    }

    /// Waits until the other side has closed it.
    pub(super) async fn closed(&mut self) {
        while !self.sender.is_closed() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) async fn get(&mut self, path: &str) -> Answer {
        self.send(request("GET", path, "")).await
    }
}

pub(super) fn request(method: &str, path: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(path).header(HOST, "shop").body(Full::from(body)).unwrap()
}

/// Sends these bytes and returns all that comes back until the connection is closed.
pub(super) async fn raw(address: SocketAddr, bytes: &str) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // It may be closed before all is written.
        let _ = stream.write_all(bytes.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    timeout(DEADLINE, exchange).await.expect("the connection is closed")
}
