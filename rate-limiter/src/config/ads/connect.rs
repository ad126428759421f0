//! Who the limiter is, and its way to the server.

use std::{fmt, str::FromStr};

use chancery_runtime::tls::{
    self, ClientTlsFiles, TlsError, read_certificates,
    spiffe::{InvalidSpiffeId, SpiffeId},
};
use chancery_xds::client::{self, BoxError};
use http::uri::Authority;
use tonic::transport::{Channel, Uri};

/// A server of xDS: host or address, and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server(Authority);

/// A text that names no server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not of the form HOST:PORT")]
pub struct InvalidServer(String);

impl FromStr for Server {
    type Err = InvalidServer;

    fn from_str(text: &str) -> Result<Self, InvalidServer> {
        let authority = text.parse::<Authority>().ok().filter(|authority| !authority.as_str().contains('@'));
        let complete = authority.filter(|authority| authority.port_u16().is_some() && !authority.host().is_empty());
        complete.map(Self).ok_or_else(|| InvalidServer(text.to_owned()))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why a certificate says nothing about which limiter its holder is.
#[derive(Debug, thiserror::Error)]
pub enum NoIdentity {
    /// The file cannot be used.
    #[error("cannot read the limiter's certificate")]
    Files(#[source] TlsError),
    /// It holds no SPIFFE ID.
    #[error("the limiter's certificate names nobody")]
    Spiffe(#[source] InvalidSpiffeId),
    /// It names somebody else.
    #[error("the certificate is of {0}, expected spiffe://TRUST-DOMAIN/rate-limiter/ID")]
    Other(SpiffeId),
}

/// The id of the limiter in its certificate: that of `spiffe://<trust domain>/rate-limiter/<id>`.
///
/// # Errors
/// There is no such certificate. A control plane of Chancery would refuse it; others may not mind.
pub fn identity(files: &ClientTlsFiles) -> Result<Option<String>, NoIdentity> {
    let Some((certificate, _)) = &files.identity else { return Ok(None) };
    let chain = read_certificates(certificate).map_err(NoIdentity::Files)?;
    let Some(own) = chain.first() else { return Ok(None) };
    let id = SpiffeId::from_certificate(own).map_err(NoIdentity::Spiffe)?;
    match id.path.strip_prefix("rate-limiter/") {
        Some(name) if !name.is_empty() && !name.contains('/') => Ok(Some(name.to_owned())),
        _ => Err(NoIdentity::Other(id)),
    }
}

/// Connects.
pub(super) async fn connect(server: Server, tls: Option<ClientTlsFiles>) -> Result<Channel, BoxError> {
    let endpoint =
        client::endpoint(Uri::builder().scheme("http").authority(server.0.clone()).path_and_query("/").build()?);
    match tls {
        Some(files) => tls::connect(endpoint, &server.0, None, &files).await,
        None => Ok(endpoint.connect().await?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_a_host_and_a_port() {
        for text in ["cp.example.com:18000", "10.0.0.1:1", "[::1]:2"] {
            let server: Server = text.parse().unwrap();
            assert_eq!(server.to_string(), text);
        }
        for text in ["", "host", ":1", "host:", "host:99999", "http://host:1", "a@host:1"] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }
}
