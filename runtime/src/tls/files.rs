//! PEM files into certificates, keys and trust, with errors that name the file and the reason.
//!
//! Reading and parsing are apart: a reload compares what it read before it parses anything.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject};

use crate::metrics as m;

/// Why TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM.
    #[error("{} is not valid PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file holds no private key that can be used (PKCS#8, SEC 1 or PKCS#1).
    #[error("{} holds no private key", path.display())]
    NoPrivateKey {
        /// The file.
        path: PathBuf,
    },
    /// A certificate of an authority cannot be used.
    #[error("{} holds a certificate that cannot be trusted as an authority", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// Certificate and key are not a pair, or the key's algorithm is not supported.
    #[error("certificate {} and private key {} cannot be used together", certificate.display(), private_key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        private_key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// No client can be verified with these authorities.
    #[error("{} cannot be used to verify clients", path.display())]
    Verifier {
        /// The authorities' file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
}

/// The certificates in a PEM file, leaf first as they stand; at least one.
///
/// # Errors
/// The file cannot be read, is not PEM, or holds none.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates(path, &read(path)?)
}

/// The authorities in a PEM file; at least one.
///
/// # Errors
/// The file cannot be read, is not PEM, or holds none that can be trusted.
pub(crate) fn read_authorities(path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    authorities(path, &read(path)?)
}

/// The first private key in a PEM file.
///
/// # Errors
/// The file cannot be read, is not PEM, or holds none.
pub fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    private_key(path, &read(path)?)
}

/// Shows when the certificate of `path`, which is in use from now on, expires.
pub(super) fn show_expiry(path: &Path, chain: &[CertificateDer<'_>]) {
    // What TLS takes, this parser may not: then nothing is shown.
    if let Some(leaf) = chain.first()
        && let Ok((_, leaf)) = x509_parser::parse_x509_certificate(leaf)
    {
        let at = leaf.validity().not_after.timestamp();
        metrics::gauge!(m::CERTIFICATE_EXPIRY, "file" => path.display().to_string()).set(at as f64);
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

pub(super) fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(certificates)
}

pub(super) fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsError::NoPrivateKey { path: path.to_owned() },
        source => TlsError::Pem { path: path.to_owned(), source },
    })
}

pub(super) fn authorities(path: &Path, pem: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|source| TlsError::Authority { path: path.to_owned(), source })?;
    }
    Ok(Arc::new(roots))
}
