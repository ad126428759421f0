//! A TCP port as a stream of connections whose TLS handshake succeeded, for `serve_with_incoming`.
//!
//! Handshakes run beside each other, so that a client that says nothing delays nobody; their
//! number is bounded and each has a deadline, so that such clients cannot pile up. A connection
//! that is refused ends here, with one log line and one count; the stream never yields an error,
//! because a server would take that for an error of its own.
//!
//! The accepting task belongs to the stream: dropping the stream closes the port.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::Stream;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::{Refusal, ServerTls};
use crate::metrics as m;

/// Accepted connections that the server has not taken yet.
const ACCEPTED_QUEUE: usize = 64;

/// How long to wait when the system cannot give another connection (out of file descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How much a listener takes on before a client has shown who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptLimits {
    /// Handshakes at the same time; further connections wait in the system's backlog.
    pub handshakes: usize,
    /// How long a handshake may take.
    pub deadline: Duration,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self { handshakes: 512, deadline: Duration::from_secs(10) }
    }
}

/// A stream of accepted connections.
#[derive(Debug)]
pub struct TlsListener {
    address: SocketAddr,
    accepted: mpsc::Receiver<TlsConnection>,
    _accepting: AbortOnDropHandle<()>,
}

impl TlsListener {
    /// Accepts connections of `listener` with the certificates of `tls`.
    ///
    /// # Errors
    /// The listener has no address.
    pub fn new(listener: TcpListener, tls: ServerTls, limits: AcceptLimits) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, accepted) = mpsc::channel(ACCEPTED_QUEUE);
        let accepting = tokio::spawn(accept(listener, tls, limits, sender));
        Ok(Self { address, accepted, _accepting: AbortOnDropHandle::new(accepting) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Stream for TlsListener {
    type Item = io::Result<TlsConnection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted.poll_recv(context).map(|connection| connection.map(Ok))
    }
}

async fn accept(listener: TcpListener, tls: ServerTls, limits: AcceptLimits, accepted: mpsc::Sender<TlsConnection>) {
    let permits = Arc::new(Semaphore::new(limits.handshakes.max(1)));
    let mut handshakes = JoinSet::new();
    loop {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                if !concerns_one_connection(&error) {
                    warn!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
                continue;
            }
        };
        while handshakes.try_join_next().is_some() {}
        let (tls, accepted) = (tls.clone(), accepted.clone());
        handshakes.spawn(async move {
            if let Some(connection) = handshake(stream, peer, &tls, limits.deadline).await {
                // The receiver is gone when the server has stopped.
                let _ = accepted.send(connection).await;
            }
            drop(permit);
        });
    }
}

/// The handshake on one connection that was accepted elsewhere. `None`: it was refused, which has been logged and counted.
pub async fn handshake(
    stream: TcpStream,
    peer: SocketAddr,
    tls: &ServerTls,
    deadline: Duration,
) -> Option<TlsConnection> {
    match shake(stream, peer, tls, deadline).await {
        Ok(connection) => {
            metrics::counter!(m::TLS_HANDSHAKES).increment(1);
            Some(connection)
        }
        Err(refusal) => {
            report(peer, &refusal);
            None
        }
    }
}

async fn shake(
    stream: TcpStream,
    peer: SocketAddr,
    tls: &ServerTls,
    deadline: Duration,
) -> Result<TlsConnection, Refusal> {
    // Responses are small and awaited; holding them back to fill a segment only delays them.
    stream.set_nodelay(true).map_err(|error| Refusal::Other(error.to_string()))?;
    let acceptor = TlsAcceptor::from(tls.config());
    match tokio::time::timeout(deadline, acceptor.accept(Socket(stream))).await {
        Ok(Ok(stream)) => Ok(TlsConnection::new(stream, peer)),
        Ok(Err(error)) => Err(Refusal::of(&error)),
        Err(_) => Err(Refusal::TooSlow),
    }
}

fn report(peer: SocketAddr, refusal: &Refusal) {
    metrics::counter!(m::TLS_HANDSHAKES_REFUSED, "reason" => refusal.label()).increment(1);
    match refusal {
        Refusal::Closed => debug!(%peer, reason = %refusal, "TLS handshake refused"),
        _ => warn!(%peer, reason = %refusal, "TLS handshake refused"),
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionAborted | Kind::ConnectionRefused | Kind::ConnectionReset)
}

/// Who is at the other end of a connection. In a tonic handler: `request.extensions().get::<PeerInfo>()`.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// The address it came from.
    pub address: SocketAddr,
    /// Its verified certificates, leaf first; never empty.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

/// An accepted connection.
#[derive(Debug)]
pub struct TlsConnection {
    stream: TlsStream<Socket>,
    peer: PeerInfo,
}

impl TlsConnection {
    fn new(stream: TlsStream<Socket>, address: SocketAddr) -> Self {
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default().into();
        Self { stream, peer: PeerInfo { address, certificates } }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// The protocol that was agreed on in the handshake, if one was.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.alpn_protocol()
    }
}

impl Connected for TlsConnection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for TlsConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TlsConnection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A socket that writes one slice with the system call for one: rustls always writes a list of them, hardly ever of more than one
/// record, and `writev` takes a tenth to a fifth more CPU than `send`.
#[derive(Debug)]
struct Socket(TcpStream);

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match slices {
            [one] => Pin::new(&mut self.0).poll_write(context, one),
            several => Pin::new(&mut self.0).poll_write_vectored(context, several),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
