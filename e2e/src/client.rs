//! A plain HTTP/1.1 client: one connection, one request at a time, a deadline on each.
//!
//! No pool and no retries, which would hide what a test looks for.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::certificates::Identity;

/// The deadline of one request, connecting included.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// A response, whole.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {} {}", self.status, self.text()))
    }

    /// A header, empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A request without a body.
///
/// # Panics
/// When host or path cannot stand in a request.
pub fn get(host: &str, path: &str) -> Request<Bytes> {
    request(Method::GET, host, path, &[])
}

/// A request without a body, with headers.
///
/// # Panics
/// As [`get`].
pub fn request(method: Method, host: &str, path: &str, headers: &[(&str, &str)]) -> Request<Bytes> {
    let start = Request::builder().method(method).uri(path).header(header::HOST, host);
    let builder = headers.iter().fold(start, |builder, (name, value)| builder.header(*name, *value));
    builder.body(Bytes::new()).expect("host, path and headers are valid")
}

/// Sends one request on a connection of its own.
pub async fn fetch(address: SocketAddr, request: Request<Bytes>) -> Result<Response> {
    Connection::open(address).await?.send(request).await
}

/// Sends one request over TLS to what must prove to be `name` to an authority in `trusted`, a PEM file.
pub async fn fetch_tls(address: SocketAddr, name: &str, trusted: &Path, request: Request<Bytes>) -> Result<Response> {
    fetch_tls_as(None, address, name, trusted, request).await
}

/// As [`fetch_tls`], showing this certificate.
pub async fn fetch_tls_as(
    identity: Option<&Identity>,
    address: SocketAddr,
    name: &str,
    trusted: &Path,
    request: Request<Bytes>,
) -> Result<Response> {
    let exchange = async {
        let (mut sender, connection) =
            handshake(TokioIo::new(open_tls(identity, address, name, trusted).await?)).await?;
        let response = async move { collect(sender.send_request(request.map(Full::new)).await?).await };
        let (response, _) = tokio::join!(response, connection);
        response
    };
    timeout(DEADLINE, exchange).await.with_context(|| format!("no response within {DEADLINE:?}"))?
}

/// Connects over TLS to what must prove to be `name` to an authority in `trusted`, a PEM file, showing this certificate if there is one.
pub async fn open_tls(
    identity: Option<&Identity>,
    address: SocketAddr,
    name: &str,
    trusted: &Path,
) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(trusted)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?
        }
    };
    let name = ServerName::try_from(name.to_owned())?;
    let connect = async {
        let stream = TcpStream::connect(address).await?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    };
    timeout(DEADLINE, connect).await.context("connecting took too long")?
}

/// A connection that is kept alive.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let connect = async {
            let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
            stream.set_nodelay(true)?;
            Ok::<_, anyhow::Error>(handshake(TokioIo::new(stream)).await?)
        };
        let (sender, connection) = timeout(DEADLINE, connect).await.context("connecting took too long")??;
        // How a connection ends is seen by whoever waits for a response on it.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { address, sender, driver })
    }

    /// Sends a request and reads the whole response.
    ///
    /// A server may close a connection between two requests, after announcing it or when it is idle. A request
    /// of which nothing was written yet then goes over a new connection; any other failure is returned.
    pub async fn send(&mut self, request: Request<Bytes>) -> Result<Response> {
        let exchange = async {
            let mut request = request.map(Full::new);
            loop {
                if self.sender.ready().await.is_err() {
                    *self = Self::open(self.address).await?;
                    continue;
                }
                match self.sender.try_send_request(request).await {
                    Ok(response) => return collect(response).await,
                    Err(mut error) => match error.take_message() {
                        Some(unsent) => {
                            request = unsent;
                            *self = Self::open(self.address).await?;
                        }
                        None => return Err(anyhow!(error.into_error())),
                    },
                }
            }
        };
        timeout(DEADLINE, exchange).await.with_context(|| format!("no response within {DEADLINE:?}"))?
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn collect(response: http::Response<hyper::body::Incoming>) -> Result<Response> {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.context("the body of the response broke off")?.to_bytes();
    Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body })
}
