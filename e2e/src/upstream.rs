//! A service behind the proxy: answers with its name and with what reached it, counts, and can be slow or ill.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rustls::{ServerConfig, ServerConnection};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// Path of the health check, which is not counted as a request.
pub const HEALTH_PATH: &str = "/healthz";

/// What an upstream answers with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// Name of the upstream.
    pub upstream: String,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
    /// The method.
    pub method: String,
    /// The path as it arrived.
    pub path: String,
    /// The query, empty when there is none.
    pub query: String,
    /// The host, from `:authority` or `Host`.
    pub host: String,
    /// The headers, values of one name joined by a comma.
    pub headers: BTreeMap<String, String>,
    /// Length of the body.
    pub body_bytes: usize,
    /// What was agreed on in the handshake, over TLS.
    pub tls: Option<Handshake>,
}

/// What a caller said of itself and of whom it wanted, in a TLS handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshake {
    /// The name that it asked for, empty if there was none.
    pub server_name: String,
    /// The protocol that was agreed on, empty if there was none.
    pub protocol: String,
    /// Whether it showed a certificate.
    pub client: bool,
}

/// A server on a port of its own, HTTP/1.1 and HTTP/2, in plaintext with prior knowledge. Dropping it closes every connection.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
    // Aborts the acceptor, which owns the connections.
    _acceptor: JoinSet<()>,
}

#[derive(Debug, Default)]
struct State {
    name: String,
    requests: AtomicU64,
    health_checks: AtomicU64,
    delay_ms: AtomicU64,
    status: AtomicU16,
    health_status: AtomicU16,
}

impl Upstream {
    /// Starts one on a free port of the loopback interface.
    pub async fn start(name: &str) -> Result<Self> {
        Self::start_at(name, (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// As [`Upstream::start`], at an address where one was before.
    pub async fn start_at(name: &str, address: SocketAddr) -> Result<Self> {
        Self::start_as(name, address, None).await
    }

    /// As [`Upstream::start`], but over TLS.
    pub async fn start_tls(name: &str, config: ServerConfig) -> Result<Self> {
        Self::start_as(name, (Ipv4Addr::LOCALHOST, 0).into(), Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start_as(name: &str, address: SocketAddr, tls: Option<TlsAcceptor>) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            name: name.to_owned(),
            status: AtomicU16::new(200),
            health_status: AtomicU16::new(200),
            ..State::default()
        });
        let mut acceptor = JoinSet::new();
        acceptor.spawn(accept(listener, tls, state.clone()));
        Ok(Self { address, state, _acceptor: acceptor })
    }

    /// How many requests it got, health checks aside.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Relaxed)
    }

    /// How many health checks it got.
    pub fn health_checks(&self) -> u64 {
        self.state.health_checks.load(Relaxed)
    }

    /// Makes it wait before each answer from now on.
    pub fn answer_after(&self, delay: Duration) {
        self.state.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Makes it answer with this status from now on.
    pub fn answer_with(&self, status: u16) {
        self.state.status.store(status, Relaxed);
    }

    /// Makes it answer health checks with this status from now on.
    pub fn answer_health_checks_with(&self, status: u16) {
        self.state.health_status.store(status, Relaxed);
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        // A client that is gone before it was accepted is no reason to stop.
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let (state, tls) = (state.clone(), tls.clone());
        connections.spawn(async move {
            match tls {
                None => serve(stream, None, state).await,
                // Whoever does not get through the handshake gets no further.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        let handshake = handshake(stream.get_ref().1);
                        serve(stream, Some(handshake), state).await;
                    }
                }
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

fn handshake(connection: &ServerConnection) -> Handshake {
    Handshake {
        server_name: connection.server_name().unwrap_or_default().to_owned(),
        protocol: String::from_utf8_lossy(connection.alpn_protocol().unwrap_or_default()).into_owned(),
        client: connection.peer_certificates().is_some(),
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, tls: Option<Handshake>, state: Arc<State>) {
    let service = service_fn(move |request| answer(request, tls.clone(), state.clone()));
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: Request<Incoming>,
    tls: Option<Handshake>,
    state: Arc<State>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == HEALTH_PATH {
        state.health_checks.fetch_add(1, Relaxed);
        return Ok(respond(state.health_status.load(Relaxed), &state.name, Bytes::new()));
    }
    state.requests.fetch_add(1, Relaxed);
    let (parts, body) = request.into_parts();
    let body_bytes = body.collect().await.map_or(0, |body| body.to_bytes().len());
    let delay = state.delay_ms.load(Relaxed);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let echo = Echo { tls, ..echo(&state.name, &parts, body_bytes) };
    let json = serde_json::to_vec(&echo).unwrap_or_default();
    Ok(respond(state.status.load(Relaxed), &state.name, json.into()))
}

fn echo(name: &str, parts: &http::request::Parts, body_bytes: usize) -> Echo {
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.to_string())
            .and_modify(|all| {
                all.push(',');
                all.push_str(&value);
            })
            .or_insert_with(|| value.to_string());
    }
    let host = parts.uri.authority().map(ToString::to_string).or_else(|| headers.get("host").cloned());
    Echo {
        upstream: name.to_owned(),
        version: format!("{:?}", parts.version),
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        host: host.unwrap_or_default(),
        headers,
        body_bytes,
        tls: None,
    }
}

fn respond(status: u16, name: &str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(value) = name.parse() {
        response.headers_mut().insert("x-upstream", value);
    }
    response
}
