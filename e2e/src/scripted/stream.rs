//! How a scripted client reaches a server: TLS with a certificate of its own, HTTP/2, one stream of delta ADS.
//!
//! On raw HTTP/2, because what a client lets a server send, and when it reads that, is what some of them are about.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::Request;
use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
    sign::{CertifiedKey, SigningKey, SingleCertAndKey},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::Code;

use super::script::take_message;
use crate::certificates::Authority;

const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// What a proxy that reads lets a server send before it has read it, in bytes.
pub const WINDOW: u32 = 16 << 20;

/// Whom many clients trust, and who each of them says it is.
#[derive(Clone)]
pub struct Credentials {
    verifier: Arc<dyn ServerCertVerifier>,
    provider: Arc<rustls::crypto::CryptoProvider>,
    certificates: Arc<[CertificateDer<'static>]>,
    key: Arc<dyn SigningKey>,
}

impl Credentials {
    /// Certificates of `issuer` for these proxies of `fleet`, who take a server for genuine that is certified by an
    /// authority in `trusted`, a PEM file.
    pub fn new(trusted: &Path, issuer: &Authority, fleet: &str, ids: impl Iterator<Item = String>) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(trusted)?)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let (certificates, key) = issuer.proxies(fleet, ids)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
        let key = provider.key_provider.load_private_key(key)?;
        let certificates = certificates.into_iter().map(CertificateDer::from).collect();
        Ok(Self { verifier, provider, certificates, key })
    }

    /// How many clients there are.
    #[expect(clippy::len_without_is_empty, reason = "nobody has none")]
    pub fn len(&self) -> usize {
        self.certificates.len()
    }

    /// Connects client `number`; without one, a client that has no certificate.
    pub async fn connect(&self, address: SocketAddr, number: Option<usize>) -> Result<TlsStream<TcpStream>> {
        self.connect_over(TcpStream::connect(address).await?, number).await
    }

    /// The same over a connection that is there.
    pub async fn connect_over(&self, stream: TcpStream, number: Option<usize>) -> Result<TlsStream<TcpStream>> {
        let trusting = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier.clone());
        let mut config = match number {
            None => trusting.with_no_client_auth(),
            Some(number) => {
                let key = CertifiedKey::new(vec![self.certificates[number].clone()], self.key.clone());
                trusting.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }
}

/// A connection with its HTTP/2: what opens streams on it, and what has to be polled for anything to happen.
pub type Connection = (SendRequest<Bytes>, Driver);

/// What moves the bytes of a connection.
pub type Driver = h2::client::Connection<TlsStream<TcpStream>, Bytes>;

/// Begins HTTP/2 on a connection; the server may send `window` bytes before they are read.
pub async fn shake_hands(stream: TlsStream<TcpStream>, window: u32) -> Result<Connection> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(window);
    Ok(builder.handshake(stream).await?)
}

/// The head of a call of gRPC.
fn call(method: &str) -> Result<Request<()>> {
    let request = Request::post(format!("https://localhost{method}"));
    Ok(request.header("content-type", "application/grpc").header("te", "trailers").body(())?)
}

/// Sends as many bytes to a service that there is not, and hears so.
pub async fn be_refused(requests: SendRequest<Bytes>, bytes: usize) -> Result<()> {
    let (response, mut send) = requests.ready().await?.send_request(call("/nothing.Nothing/Say")?, false)?;
    send.send_data(vec![0; bytes].into(), true)?;
    let mut body = response.await?.into_body();
    while let Some(data) = body.data().await.transpose()? {
        body.flow_control().release_capacity(data.len())?;
    }
    Ok(())
}

/// One stream of delta ADS.
pub struct Stream {
    send: SendStream<Bytes>,
    /// Until the first message comes: a server may not answer before it has something to say.
    response: Option<ResponseFuture>,
    receive: Option<RecvStream>,
    inbox: BytesMut,
}

impl Stream {
    /// Opens one.
    pub async fn open(requests: SendRequest<Bytes>) -> Result<Self> {
        let (response, send) = requests.ready().await?.send_request(call(METHOD)?, false)?;
        Ok(Self { send, response: Some(response), receive: None, inbox: BytesMut::new() })
    }

    /// Sends a message that is framed already.
    pub fn say(&mut self, message: Bytes) -> Result<()> {
        Ok(self.send.send_data(message, false)?)
    }

    /// The next message; `None` when the server ended the stream. What arrives is added to `received`, in bytes.
    pub async fn next(&mut self, received: &AtomicU64) -> Result<Option<Bytes>> {
        loop {
            if let Some(message) = take_message(&mut self.inbox)? {
                return Ok(Some(message));
            }
            let receive = self.receiving().await?;
            let Some(data) = receive.data().await.transpose()? else { return Ok(None) };
            receive.flow_control().release_capacity(data.len())?;
            received.fetch_add(data.len() as u64, Ordering::Relaxed);
            self.inbox.extend_from_slice(&data);
        }
    }

    /// How the server ended the stream, after any messages: the code of gRPC.
    pub async fn end(&mut self) -> Result<Code> {
        let ignored = AtomicU64::new(0);
        while self.next(&ignored).await?.is_some() {}
        let trailers = self.receiving().await?.trailers().await?.context("the stream ended without a status")?;
        let code = trailers.get("grpc-status").context("the trailers have no status")?;
        Ok(Code::from_bytes(code.as_bytes()))
    }

    async fn receiving(&mut self) -> Result<&mut RecvStream> {
        if let Some(response) = self.response.take() {
            let response = response.await?;
            ensure!(response.status().is_success(), "the server answers {}", response.status());
            self.receive = Some(response.into_body());
        }
        self.receive.as_mut().context("the stream has failed before")
    }
}
