//! A port to which one writes bytes as they are, over TLS or not.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::certificates::Identity;

/// Whoever leaves a connection as it is for so long has left it hanging.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Bytes both ways.
pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Bytes for S {}

/// A port, and how one gets in.
#[derive(Clone, Debug)]
pub struct Door {
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

impl Door {
    /// In plaintext.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// Over TLS, as `identity`, asking for `protocol`, to whoever is there: what is tried here is the server.
    pub fn tls(address: SocketAddr, identity: &Identity, protocol: Option<&str>) -> Result<Self> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let anybody = Anybody(provider.signature_verification_algorithms);
        let mut config = ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(anybody))
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(&identity.certificate)?],
                PrivateKeyDer::from_pem_file(&identity.key)?,
            )?;
        config.alpn_protocols = protocol.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(Self { address, tls: Some(config.into()) })
    }

    /// Connects.
    pub async fn open(&self) -> Result<Box<dyn Bytes>> {
        let open = async {
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            Ok::<Box<dyn Bytes>, anyhow::Error>(match &self.tls {
                None => Box::new(stream),
                Some(config) => {
                    let name = ServerName::try_from("localhost")?;
                    Box::new(TlsConnector::from(config.clone()).connect(name, stream).await?)
                }
            })
        };
        timeout(PATIENCE, open).await.context("no connection in time")?
    }

    /// Writes these bytes and reads all that comes back, until the server closes the connection.
    ///
    /// # Errors
    /// It leaves the connection hanging.
    pub async fn says(&self, bytes: &[u8]) -> Result<String> {
        let mut stream = self.open().await?;
        let exchange = async {
            let (mut read, mut write) = tokio::io::split(&mut stream);
            let mut answer = Vec::new();
            // The server may close before all is written, and may stop to read before it closes.
            let writing = async {
                let _ = write.write_all(bytes).await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = writing => {}
                _ = read.read_to_end(&mut answer) => {}
            }
            String::from_utf8_lossy(&answer).into_owned()
        };
        timeout(PATIENCE, exchange).await.context("the connection is left hanging")
    }
}

/// Takes any certificate.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
