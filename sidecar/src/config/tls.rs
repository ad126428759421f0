//! Certificates, authorities and names, as configuration says them: where they are, not what has been made of them. Pure.
//!
//! Contents that come with the configuration are judged when it comes. Files are read where connections are made, again and
//! again: they are renewed, and a file that is not there today may be there tomorrow.

use std::{fmt, path::PathBuf, sync::Arc};

use regex::bytes::Regex;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// Something in PEM.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// In a file.
    File(PathBuf),
    /// Here.
    Inline(Arc<[u8]>),
}

/// Shows no content: it may be a key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Inline(_) => f.write_str("Inline"),
        }
    }
}

/// What somebody proves with who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate, and the intermediates up to the authority's.
    pub chain: Pem,
    /// Its key.
    pub key: Pem,
}

/// Who the sidecar is without being told more: what its bootstrap file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// Whom it trusts.
    pub authorities: Pem,
    /// What it shows.
    pub certificate: Certificate,
}

/// How endpoints are spoken to over TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The name that is asked for; the endpoint's address if there is none.
    pub server_name: Option<Arc<str>>,
    /// Whether an endpoint that has a name of its own is asked for by that instead.
    pub by_host: bool,
    /// Who an endpoint may be: one of these. If there are none, its certificate must have the name that is asked for.
    pub peers: Vec<PeerMatch>,
    /// What is shown to endpoints; `None`: the sidecar's own.
    pub certificate: Option<Certificate>,
    /// Whose certificates are accepted; `None`: those of the sidecar's own authorities.
    pub authorities: Option<Pem>,
    /// Whether versions before TLS 1.3 are refused.
    pub only_1_3: bool,
    /// The secret that is named and has not come. Nobody is connected to before it has.
    pub waits_for: Option<Arc<str>>,
}

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMatch {
    /// A SPIFFE ID.
    Uri(Arc<str>),
    /// How a SPIFFE ID begins.
    UriPrefix(Arc<str>),
    /// What a SPIFFE ID looks like.
    UriPattern(UriPattern),
    /// A DNS name or an address.
    Name(Arc<str>),
}

/// An expression that the whole of a SPIFFE ID has to match. Equal to one that is written the same.
#[derive(Clone, Debug)]
pub struct UriPattern(pub Regex);

impl PartialEq for UriPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for UriPattern {}

/// The certificates in `pem`.
///
/// # Errors
/// There are none.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or("holds no certificate in PEM")
}

/// The first key in `pem`.
///
/// # Errors
/// There is none.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, &'static str> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "holds no private key in PEM")
}

/// The authorities in `pem`.
///
/// # Errors
/// There are none, or one that nobody can trust.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, &'static str> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_| "holds a certificate that cannot be trusted as an authority")?;
    }
    Ok(roots)
}
