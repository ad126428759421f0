//! Connections to endpoints: TCP, and TLS where the cluster asks for it.

use std::{io, sync::Arc, time::Duration};

use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use super::tls::Credentials;
use crate::config::snapshot::Target;

/// A connection.
pub type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// How an endpoint is connected to.
#[derive(Clone)]
pub struct Connector {
    /// Where it is.
    pub target: Target,
    /// Whether over TLS, and as whom.
    pub tls: Option<Arc<Credentials>>,
}

impl Connector {
    /// Connects, TLS included.
    ///
    /// # Errors
    /// It cannot, or not `within` this time.
    pub async fn connect(&self, within: Duration) -> io::Result<Stream> {
        timeout(within, self.connected()).await?
    }

    async fn connected(&self) -> io::Result<Stream> {
        let stream = match &self.target {
            Target::Address(address) => TcpStream::connect(address).await?,
            Target::Name(name, port) => TcpStream::connect((&**name, *port)).await?,
        };
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Either::Left(stream)) };
        let (config, name) = (tls.config()?, tls.name(&self.target)?);
        Ok(Either::Right(TlsConnector::from(config).connect(name, stream).await?))
    }
}
