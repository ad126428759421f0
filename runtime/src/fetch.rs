//! One HTTP request to a server that is not ours, such as an issuer of tokens: over TLS, or in the clear on this machine.
//!
//! Each request has a connection of its own, a deadline for all of it, and a bound for the answer. Such requests are made
//! a few times an hour, so there is no pool that could go stale. Redirects are not followed: where a secret is sent is
//! decided by whoever named the URL.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

use crate::tls::{self, TlsError};

/// How long it may take to connect; the deadline of a request is often before that.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Connects over TLS, or in the clear, as the URL says.
pub type Connector = HttpsConnector<HttpConnector>;

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
        source: legacy::Error,
    },
    /// The exchange broke off.
    #[error("{server} gives no answer")]
    Http {
        /// Host and port.
        server: String,
        /// Why.
        #[source]
        source: legacy::Error,
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

/// Connects within `within`, over `tls` where the URL begins with `https`.
pub fn connector(tls: ClientConfig, within: Duration) -> Connector {
    let mut http = HttpConnector::new();
    http.set_connect_timeout(Some(within));
    http.enforce_http(false);
    HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http)
}

/// Makes requests, trusting certain authorities.
#[derive(Clone)]
pub struct Fetcher {
    http: Client<Connector, Full<Bytes>>,
}

impl Fetcher {
    /// Trusts the authorities in the PEM file `ca`, or else those that this system trusts.
    ///
    /// # Errors
    /// The file cannot be used, and why.
    pub fn trusting(ca: Option<&Path>) -> Result<Self, TlsError> {
        let connector = connector(trust(ca)?, CONNECT_WITHIN);
        Ok(Self { http: Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector) })
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
        let uri = request.uri();
        let server = uri.authority().ok_or_else(|| FetchError::Url(uri.to_string()))?.to_string();
        if !is_private(uri) {
            return Err(FetchError::Insecure(uri.to_string()));
        }
        let answer = self.exchange(&server, request.map(Full::new), most);
        timeout(within, answer)
            .await
            .unwrap_or_else(|_| Err(FetchError::Deadline { server: server.clone(), after: within }))
    }

    async fn exchange(
        &self,
        server: &str,
        request: Request<Full<Bytes>>,
        most: usize,
    ) -> Result<Response<Bytes>, FetchError> {
        let server = server.to_owned();
        let response = match self.http.request(request).await {
            Ok(response) => response,
            Err(source) if source.is_connect() => return Err(FetchError::Connect { server, source }),
            Err(source) => return Err(FetchError::Http { server, source }),
        };
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|source| FetchError::Body { server, source })?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

#[cfg(test)]
mod tests;
