//! Connections to endpoints: TCP, and TLS where the cluster asks for it.

use std::{io, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use crate::config::snapshot::{Protocol, Target, UpstreamTls};

/// A connection.
pub type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// Who the sidecar is to the endpoints of others; asked for with every connection, since certificates live for hours.
pub type Identity = Arc<dyn Fn() -> io::Result<Arc<ClientConfig>> + Send + Sync>;

/// How an endpoint is connected to.
#[derive(Clone)]
pub struct Connector {
    /// Where it is.
    pub target: Target,
    /// Whether over TLS, and as whom.
    pub tls: Option<(UpstreamTls, Option<Identity>)>,
    /// What is spoken; said in the handshake.
    pub protocol: Protocol,
}

impl Connector {
    /// Connects, in whatever time it takes.
    ///
    /// # Errors
    /// It cannot.
    pub async fn connect(&self) -> io::Result<Stream> {
        let stream = match &self.target {
            Target::Address(address) => TcpStream::connect(address).await?,
            Target::Name(name, port) => TcpStream::connect((&**name, *port)).await?,
        };
        stream.set_nodelay(true)?;
        let Some((tls, identity)) = &self.tls else { return Ok(Either::Left(stream)) };
        // Plaintext is no substitute.
        let identity = identity.as_ref().ok_or_else(|| io::Error::other("TLS without certificates"))?;
        let mut config = ClientConfig::clone(&*identity()?);
        config.alpn_protocols = vec![match self.protocol {
            Protocol::Http1 => b"http/1.1".to_vec(),
            Protocol::Http2 => b"h2".to_vec(),
        }];
        let name = match (&tls.server_name, &self.target) {
            (Some(name), _) => name.to_string(),
            (None, Target::Address(address)) => address.ip().to_string(),
            (None, Target::Name(name, _)) => name.to_string(),
        };
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        Ok(Either::Right(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
    }
}
