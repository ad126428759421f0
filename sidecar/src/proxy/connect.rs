//! Connections to endpoints: TCP, and TLS where the cluster asks for it.

use std::{io, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use super::tls::Credentials;
use crate::config::snapshot::{Protocol, Target};

/// A connection.
pub type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// How an endpoint is connected to.
#[derive(Clone)]
pub struct Connector {
    /// Where it is.
    pub target: Target,
    /// Whether over TLS, and as whom.
    pub tls: Option<Arc<Credentials>>,
    /// What is spoken.
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
        let Some(tls) = &self.tls else { return Ok(Either::Left(stream)) };
        let (config, name) = (tls.config()?, tls.name(&self.target)?);
        Ok(Either::Right(TlsConnector::from(config).connect(name, stream).await?))
    }
}
