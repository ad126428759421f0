//! The two ends of the comparison, each a process of its own: `chancery-bench serve-http …`.
//!
//! The **upstream** answers everything with the same bytes. The **floor** is a proxy of hyper's server and hyper-util's pooling client
//! and nothing else: what any proxy on hyper costs before it decides anything. Both run on one worker thread, as what they are
//! compared with.

use std::{convert::Infallible, net::SocketAddr};

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE, uri::Scheme};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::case::BODY;

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// What to serve, and how.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Where to listen; an upstream may do so at several addresses
    #[arg(long, required = true)]
    address: Vec<SocketAddr>,
    /// Be the floor, before this upstream; without it, be an upstream
    #[arg(long)]
    to: Option<SocketAddr>,
    /// Speak HTTP/2 with the upstream
    #[arg(long)]
    http2: bool,
}

/// Serves until it is killed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let mut serving = JoinSet::new();
        for address in options.address.iter().copied() {
            match options.to {
                Some(to) => serving.spawn(floor(address, to, options.http2)),
                None => serving.spawn(upstream(address)),
            };
        }
        // They serve for ever, so the first to end has failed.
        serving.join_next().await.context("nowhere to listen")??
    })
}

/// Answers everything.
pub(super) async fn upstream(address: SocketAddr) -> Result<()> {
    accept(listen(address).await?, answer).await
}

/// Passes everything on.
pub(super) async fn floor(address: SocketAddr, to: SocketAddr, http2: bool) -> Result<()> {
    let floor = Floor::new(to, http2)?;
    accept(listen(address).await?, move |request| floor.clone().pass_on(request)).await
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Serves HTTP/1.1 and HTTP/2 for ever.
pub(super) async fn accept<F, R>(listener: TcpListener, answer: F) -> Result<()>
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answer = answer.clone();
        // Its owner is this process, which lives as long as what it is measured with.
        tokio::spawn(connection(stream, answer));
    }
}

async fn connection<F, R>(stream: TcpStream, answer: F)
where
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // How a connection ends is the other side's to tell.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

/// The same for everybody: a body, and for a gRPC call a message of that size and a status.
pub(super) async fn answer(request: Request<Incoming>) -> Response<Body> {
    static BYTES: [u8; BODY] = [b'x'; BODY];
    let grpc =
        request.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if !grpc {
        return Response::new(boxed(Full::new(Bytes::from_static(&BYTES))));
    }
    let message = request.into_body().collect().await;
    let status = if message.is_ok_and(|message| message.to_bytes().len() == BODY) { "0" } else { "3" };
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static(status))]);
    let body = Full::new(message_of(BODY)).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(boxed(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A gRPC message that takes `bytes` with its prefix.
pub(super) fn message_of(bytes: usize) -> Bytes {
    let content = bytes - 5;
    let mut message = vec![0];
    message.extend_from_slice(&u32::try_from(content).unwrap_or(u32::MAX).to_be_bytes());
    message.resize(bytes, b'x');
    message.into()
}

fn boxed<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    body.map_err(|never| match never {}).boxed_unsync()
}

/// A proxy without policies.
#[derive(Clone)]
struct Floor {
    client: Client<HttpConnector, Incoming>,
    to: http::uri::Authority,
}

impl Floor {
    fn new(to: SocketAddr, http2: bool) -> Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build(connector);
        Ok(Self { client, to: to.to_string().parse()? })
    }

    async fn pass_on(self, mut request: Request<Incoming>) -> Response<Body> {
        let mut target = std::mem::take(request.uri_mut()).into_parts();
        target.scheme = Some(Scheme::HTTP);
        target.authority = Some(self.to);
        let sent = match http::Uri::from_parts(target) {
            Ok(uri) => {
                *request.uri_mut() = uri;
                self.client.request(request).await.ok()
            }
            Err(_) => None,
        };
        sent.map_or_else(bad_gateway, |response| response.map(BodyExt::boxed_unsync))
    }
}

fn bad_gateway() -> Response<Body> {
    let mut response = Response::new(boxed(Full::default()));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
