//! A connection, plain or TLS, and who is at its other end.
//!
//! The identity is read out of the certificate once per connection, not per request. A connection holds its place
//! among those allowed for as long as it is open, whoever serves it.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use chancery_runtime::tls::{TlsConnection, spiffe::SpiffeId};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Semaphore,
};
use tonic::transport::server::Connected;

use super::worker::Place;
use crate::decide::Caller;

/// Quota streams of one connection; an Envoy opens one per domain and main thread.
const MAX_QUOTA_STREAMS: usize = 8;

/// Who is at the other end. In a tonic handler: `request.extensions().get::<Peer>()`.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address it came from.
    pub address: SocketAddr,
    /// Who it is.
    pub caller: Caller,
    /// Places for quota streams: each can hold megabytes, and no message of one ends the call.
    pub quota_streams: Arc<Semaphore>,
}

impl Peer {
    /// Of a new connection.
    pub fn new(address: SocketAddr, caller: Caller) -> Self {
        Self { address, caller, quota_streams: Arc::new(Semaphore::new(MAX_QUOTA_STREAMS)) }
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
    peer: Peer,
    _place: Place,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    // A TLS session is a kilobyte and more.
    Tls(Box<TlsConnection>),
}

impl Connection {
    /// A plaintext connection: nobody says who it is, and the operator said that this is fine.
    pub fn plain(stream: TcpStream, address: SocketAddr, place: Place) -> io::Result<Self> {
        // Answers are small and awaited; holding them back to fill a segment only delays them.
        stream.set_nodelay(true)?;
        Ok(Self { stream: Stream::Plain(stream), peer: Peer::new(address, Caller::Trusted), _place: place })
    }

    /// A connection whose handshake succeeded.
    pub fn tls(stream: TlsConnection, trust_domain: &str, place: Place) -> Self {
        let peer = stream.peer();
        let certificate = peer.certificates.first().map(AsRef::as_ref).unwrap_or_default();
        let peer = Peer::new(peer.address, caller(certificate, trust_domain));
        Self { stream: Stream::Tls(Box::new(stream)), peer, _place: place }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// `spiffe://<trust domain>/fleet/<fleet>/proxy/<id>` is a proxy of that fleet; any other certificate of the authority is just a client.
fn caller(certificate: &[u8], trust_domain: &str) -> Caller {
    let Ok(id) = SpiffeId::from_certificate(certificate) else { return Caller::Certified };
    let parts: Vec<&str> = id.path.split('/').collect();
    match parts.as_slice() {
        &["fleet", fleet, "proxy", _] if id.trust_domain == trust_domain => Caller::Fleet(Arc::from(fleet)),
        _ => Caller::Certified,
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn caller_of(uri: &str) -> Caller {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        caller(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der(), "chancery.local")
    }

    #[test]
    fn only_a_proxy_of_this_installation_speaks_for_a_fleet() {
        assert_eq!(caller_of("spiffe://chancery.local/fleet/edge/proxy/edge-1"), Caller::Fleet("edge".into()));
        for other in [
            "spiffe://elsewhere/fleet/edge/proxy/edge-1",
            "spiffe://chancery.local/fleet/edge",
            "spiffe://chancery.local/fleet/edge/proxy/edge-1/x",
            "spiffe://chancery.local/rate-limiter/a",
            "https://chancery.local/fleet/edge/proxy/edge-1",
        ] {
            assert_eq!(caller_of(other), Caller::Certified, "{other}");
        }
        assert_eq!(caller(b"nonsense", "chancery.local"), Caller::Certified);
    }
}
