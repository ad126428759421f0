//! One HTTP request to a server that is not ours, such as an issuer of tokens: over TLS, or in the clear on this machine.
//!
//! Each request has a connection of its own, a deadline for all of it, and a bound for the answer. Such requests are made
//! a few times an hour, so there is no pool that could go stale. Redirects are not followed: where a secret is sent is
//! decided by whoever named the URL.

use std::{io, net::IpAddr, path::Path, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::tls::{self, TlsError};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// What is to be asked for is no URL with a host.
    #[error("{0:?} is not a URL as https://issuer.example.com/path")]
    Url(String),
    /// Others could read it on the way.
    #[error("{0:?} must begin with https:// (http:// is for this machine only)")]
    Insecure(String),
    /// Nobody is there, or nobody whom we trust.
    #[error("cannot connect to {server}")]
    Connect {
        /// Host and port.
        server: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The exchange broke off.
    #[error("{server} gives no answer")]
    Http {
        /// Host and port.
        server: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The answer broke off, or is too large.
    #[error("the answer of {server} cannot be read")]
    Body {
        /// Host and port.
        server: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("{server} gives no answer within {after:?}")]
    Deadline {
        /// Host and port.
        server: String,
        /// The deadline.
        after: Duration,
    },
}

/// Whether what is sent to `uri` can be read by its server only: it goes over TLS, or stays on this machine.
pub fn is_private(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => here,
        _ => false,
    }
}

/// TLS of a client without a certificate that trusts the authorities in the PEM file `ca`, or else those that this system trusts.
///
/// # Errors
/// The file cannot be used, and why.
pub fn trust(ca: Option<&Path>) -> Result<ClientConfig, TlsError> {
    tls::install_crypto_provider();
    let authorities = match ca {
        Some(file) => tls::read_authorities(file)?,
        None => {
            let mut authorities = RootCertStore::empty();
            // What cannot be read of them is not trusted.
            authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(authorities)
        }
    };
    Ok(ClientConfig::builder().with_root_certificates(authorities).with_no_client_auth())
}

/// TLS of a client that trusts nobody, for one that is not going to use it: the system's authorities take a while to read.
pub fn trust_nobody() -> ClientConfig {
    tls::install_crypto_provider();
    ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth()
}

/// Makes requests, trusting certain authorities.
#[derive(Clone)]
pub struct Fetcher {
    tls: TlsConnector,
}

impl Fetcher {
    /// Trusts the authorities in the PEM file `ca`, or else those that this system trusts.
    ///
    /// # Errors
    /// The file cannot be used, and why.
    pub fn trusting(ca: Option<&Path>) -> Result<Self, TlsError> {
        Ok(Self { tls: TlsConnector::from(Arc::new(trust(ca)?)) })
    }

    /// Sends `request`, whose URI is a whole URL, and reads the answer, which has to come `within` and be `most` bytes at most.
    ///
    /// # Errors
    /// There is no such answer, and why. An answer with any status is one.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        within: Duration,
        most: usize,
    ) -> Result<Response<Bytes>, FetchError> {
        let uri = request.uri().clone();
        let authority = uri.authority().ok_or_else(|| FetchError::Url(uri.to_string()))?;
        if !is_private(&uri) {
            return Err(FetchError::Insecure(uri.to_string()));
        }
        let server = authority.to_string();
        let answer = self.exchange(&uri, &server, request, most);
        timeout(within, answer).await.unwrap_or(Err(FetchError::Deadline { server: server.clone(), after: within }))
    }

    async fn exchange(
        &self,
        uri: &Uri,
        server: &str,
        mut request: Request<Bytes>,
        most: usize,
    ) -> Result<Response<Bytes>, FetchError> {
        let connect = |source| FetchError::Connect { server: server.to_owned(), source };
        let encrypted = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let authority = HeaderValue::try_from(server).map_err(|_| FetchError::Url(uri.to_string()))?;
        request.headers_mut().insert(header::HOST, authority);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| FetchError::Url(uri.to_string()))?;
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(connect)?;
        if !encrypted {
            return over(stream, server, request, most).await;
        }
        let name = ServerName::try_from(host).map_err(|_| FetchError::Url(uri.to_string()))?;
        over(self.tls.connect(name, stream).await.map_err(connect)?, server, request, most).await
    }
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    server: &str,
    request: Request<Bytes>,
    most: usize,
) -> Result<Response<Bytes>, FetchError> {
    let http = |source| FetchError::Http { server: server.to_owned(), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let answer = async move {
        let response = sender.send_request(request.map(Full::new)).await.map_err(http)?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|source| FetchError::Body { server: server.to_owned(), source })?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    };
    // It ends when the answer is there; how, the answer tells.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}

#[cfg(test)]
mod tests;
