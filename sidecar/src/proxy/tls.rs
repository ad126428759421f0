//! The client's side of TLS towards the endpoints of a cluster: who we are, and who they have to be.
//!
//! A service of a mesh is not known by the name of its machine, but by its SPIFFE ID. If the configuration says whom it expects,
//! that is what the certificate is held to, after its chain; otherwise it is held to the name that was asked for, as on the web.
//!
//! Certificates live for hours. What comes from files is read again for new connections after a while, and if it cannot be used just
//! then, what was read before goes on. What comes with the configuration changes with it.

use std::{io, sync::Arc, time::Duration};

use chancery_runtime::tls::spiffe::SpiffeId;
use parking_lot::Mutex;
use rustls::{
    ALL_VERSIONS, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
    version::TLS13,
};
use tokio::time::Instant;

use crate::config::{
    snapshot::{Protocol, Target},
    tls::{self, Own, PeerMatch, Pem, UpstreamTls},
};

/// How long what was read is used.
const KEPT: Duration = Duration::from_secs(10);

/// What connections to the endpoints of one cluster need.
pub struct Credentials {
    tls: UpstreamTls,
    own: Option<Arc<Own>>,
    protocol: Option<Protocol>,
    last: Mutex<Option<(Instant, Arc<ClientConfig>)>>,
}

impl Credentials {
    /// As `tls` says, and as `own` where it says nothing. `protocol` is the only one that is offered; `None`: none is.
    pub fn new(tls: UpstreamTls, own: Option<Arc<Own>>, protocol: Option<Protocol>) -> Self {
        Self { tls, own, protocol, last: Mutex::default() }
    }

    /// What a new connection uses.
    ///
    /// # Errors
    /// There are no certificates, or none that can be used.
    pub fn config(&self) -> io::Result<Arc<ClientConfig>> {
        let mut last = self.last.lock();
        if let Some((_, config)) = last.as_ref().filter(|(read, _)| read.elapsed() < KEPT) {
            return Ok(config.clone());
        }
        match (self.read(), &*last) {
            (Ok(config), _) => {
                let config = Arc::new(config);
                *last = Some((Instant::now(), config.clone()));
                Ok(config)
            }
            (Err(error), Some((_, before))) => {
                tracing::warn!(%error, "certificates cannot be read, those that were read before go on");
                let before = before.clone();
                *last = Some((Instant::now(), before.clone()));
                Ok(before)
            }
            (Err(error), None) => Err(error),
        }
    }

    fn read(&self) -> io::Result<ClientConfig> {
        let TlsParts { authorities, certificate } = self.parts()?;
        let roots = read(authorities, tls::authorities)?;
        let chain = read(&certificate.chain, tls::certificates)?;
        let key = read(&certificate.key, tls::private_key)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let building = ClientConfig::builder_with_provider(provider.clone());
        let versions = if self.tls.only_1_3 { &[&TLS13][..] } else { ALL_VERSIONS };
        let building = building.with_protocol_versions(versions).map_err(io::Error::other)?;
        let building = match self.tls.peers.as_slice() {
            [] => building.with_root_certificates(roots),
            peers => {
                let verifier = PeerVerifier { roots, peers: peers.to_vec(), provider };
                building.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut config = building.with_client_auth_cert(chain, key).map_err(io::Error::other)?;
        let offered = self.protocol.map(|protocol| match protocol {
            Protocol::Http1 => b"http/1.1".to_vec(),
            Protocol::Http2 => b"h2".to_vec(),
        });
        config.alpn_protocols = offered.into_iter().collect();
        Ok(config)
    }

    fn parts(&self) -> io::Result<TlsParts<'_>> {
        if let Some(name) = &self.tls.waits_for {
            return Err(io::Error::other(format!("secret {name:?} has not come")));
        }
        let own = self.own.as_deref();
        let authorities = self.tls.authorities.as_ref().or(own.map(|own| &own.authorities));
        let certificate = self.tls.certificate.as_ref().or(own.map(|own| &own.certificate));
        // Plaintext is no substitute.
        let (Some(authorities), Some(certificate)) = (authorities, certificate) else {
            return Err(io::Error::other("TLS without certificates"));
        };
        Ok(TlsParts { authorities, certificate })
    }

    /// The name that an endpoint is asked for.
    ///
    /// # Errors
    /// It is none.
    pub fn name(&self, target: &Target) -> io::Result<ServerName<'static>> {
        let name = match (&self.tls.server_name, target) {
            (_, Target::Name(name, _)) if self.tls.by_host => name.to_string(),
            (Some(name), _) => name.to_string(),
            (None, Target::Address(address)) => address.ip().to_string(),
            (None, Target::Name(name, _)) => name.to_string(),
        };
        ServerName::try_from(name).map_err(io::Error::other)
    }
}

struct TlsParts<'a> {
    authorities: &'a Pem,
    certificate: &'a tls::Certificate,
}

fn read<T>(pem: &Pem, parse: impl FnOnce(&[u8]) -> Result<T, &'static str>) -> io::Result<T> {
    match pem {
        Pem::Inline(bytes) => parse(bytes).map_err(io::Error::other),
        Pem::File(path) => {
            let told = |reason: &dyn std::fmt::Display| io::Error::other(format!("{}: {reason}", path.display()));
            let bytes = std::fs::read(path).map_err(|error| told(&error))?;
            parse(&bytes).map_err(|reason| told(&reason))
        }
    }
}

/// Accepts who has a certificate of the authorities in which one of `peers` is named.
#[derive(Debug)]
struct PeerVerifier {
    roots: RootCertStore,
    peers: Vec<PeerMatch>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        // One with several URIs is nobody's: who it is would depend on the reader.
        let uri = SpiffeId::from_certificate(end_entity).map(|id| id.to_string()).ok();
        let is = |peer: &PeerMatch| match peer {
            PeerMatch::Uri(wanted) => uri.as_deref() == Some(wanted),
            PeerMatch::UriPrefix(beginning) => uri.as_ref().is_some_and(|uri| uri.starts_with(&**beginning)),
            PeerMatch::UriPattern(pattern) => uri.as_ref().is_some_and(|uri| pattern.0.is_match(uri.as_bytes())),
            PeerMatch::Name(name) => {
                ServerName::try_from(&**name).is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
            }
        };
        if self.peers.iter().any(is) {
            return Ok(ServerCertVerified::assertion());
        }
        tracing::debug!(uri, "an endpoint that is not who it has to be");
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
