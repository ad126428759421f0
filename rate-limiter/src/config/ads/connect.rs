//! Who the limiter is, and its way to the server.

use std::{fmt, io, str::FromStr};

use chancery_runtime::tls::{
    ClientTls, ClientTlsFiles, TlsError, read_certificates,
    spiffe::{InvalidSpiffeId, SpiffeId},
};
use chancery_xds::client::{self, BoxError};
use http::uri::Authority;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
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

impl Server {
    fn host(&self) -> &str {
        self.0.host().trim_start_matches('[').trim_end_matches(']')
    }

    fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or_default()
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

/// Connects. Certificates are read every time: they live for hours.
pub(super) async fn connect(server: Server, tls: Option<ClientTlsFiles>) -> Result<Channel, BoxError> {
    // TLS is spoken below; with `https` the channel would want to do it itself.
    let uri = Uri::builder().scheme("http").authority(server.0.clone()).path_and_query("/").build()?;
    let endpoint = client::endpoint(uri);
    let Some(files) = tls else { return Ok(endpoint.connect().await?) };
    let connector = TlsConnector::from(ClientTls::load(&files)?.config());
    let name = ServerName::try_from(server.host().to_owned())?;
    let connect = tower::service_fn(move |_: Uri| {
        let (connector, name, server) = (connector.clone(), name.clone(), server.clone());
        async move {
            let stream = TcpStream::connect((server.host(), server.port())).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Ok(endpoint.connect_with_connector(connect).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_a_host_and_a_port() {
        for (text, host) in [("cp.example.com:18000", "cp.example.com"), ("10.0.0.1:1", "10.0.0.1"), ("[::1]:2", "::1")]
        {
            let server: Server = text.parse().unwrap();
            assert_eq!((server.host(), server.to_string().as_str()), (host, text));
        }
        for text in ["", "host", ":1", "host:", "host:99999", "http://host:1", "a@host:1"] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }
}
