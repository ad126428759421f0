//! The identity in a certificate: `spiffe://<trust domain>/<path>`. Pure.
//!
//! SPIFFE rather than a subject name: it is a URI, so it is read in one way only; it is what meshes
//! and CAs of others can issue; and its trust domain keeps two installations apart that share a CA.
//! A certificate with more than one URI is refused (as the SPIFFE standard says), because then it
//! depends on the reader who the holder is. What a path means is the programs' own affair.

use std::fmt;

use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

/// The longest trust domain that SPIFFE allows.
const MAX_TRUST_DOMAIN: usize = 255;

/// A SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    /// The installation, such as `chancery.local`.
    pub trust_domain: String,
    /// Who within it, without the slash at the front: `fleet/edge/proxy/edge-1`.
    pub path: String,
}

/// Why a certificate or text holds no SPIFFE ID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpiffeId {
    /// The bytes are not an X.509 certificate.
    #[error("the certificate cannot be read")]
    NotACertificate,
    /// The certificate names nobody by URI.
    #[error("the certificate has no URI among its subject alternative names")]
    NoUri,
    /// The certificate names several.
    #[error("the certificate has {0} URIs among its subject alternative names, expected one")]
    SeveralUris(usize),
    /// The URI is no SPIFFE ID.
    #[error("{0:?} is not of the form spiffe://TRUST-DOMAIN/PATH")]
    Form(String),
    /// The trust domain has other than lower-case letters, digits, dots, hyphens and underscores.
    #[error("{uri:?} has an invalid trust domain")]
    TrustDomain {
        /// The whole identity.
        uri: String,
        /// What is wrong.
        #[source]
        source: InvalidTrustDomain,
    },
}

/// A text that is no trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a trust domain has 1 to 255 of a-z, 0-9, '.', '-' and '_'")]
pub struct InvalidTrustDomain;

/// Whether a text can be a trust domain.
///
/// # Errors
/// It cannot.
pub fn check_trust_domain(text: &str) -> Result<(), InvalidTrustDomain> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    let valid = (1..=MAX_TRUST_DOMAIN).contains(&text.len()) && text.bytes().all(allowed);
    if valid { Ok(()) } else { Err(InvalidTrustDomain) }
}

impl SpiffeId {
    /// Reads `spiffe://<trust domain>/<path>`; the path is not empty.
    ///
    /// # Errors
    /// Says which part is wrong.
    pub fn parse(uri: &str) -> Result<Self, InvalidSpiffeId> {
        let form = || InvalidSpiffeId::Form(uri.to_owned());
        let rest = uri.strip_prefix("spiffe://").ok_or_else(form)?;
        let (trust_domain, path) = rest.split_once('/').filter(|(_, path)| !path.is_empty()).ok_or_else(form)?;
        check_trust_domain(trust_domain)
            .map_err(|source| InvalidSpiffeId::TrustDomain { uri: uri.to_owned(), source })?;
        Ok(Self { trust_domain: trust_domain.to_owned(), path: path.to_owned() })
    }

    /// Reads the identity out of a certificate (DER). Whether the certificate is valid is not looked at: the TLS handshake did.
    ///
    /// # Errors
    /// Says what is missing or wrong.
    pub fn from_certificate(der: &[u8]) -> Result<Self, InvalidSpiffeId> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| InvalidSpiffeId::NotACertificate)?;
        let names = certificate.subject_alternative_name().map_err(|_| InvalidSpiffeId::NotACertificate)?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let uris: Vec<&str> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        match uris.as_slice() {
            [] => Err(InvalidSpiffeId::NoUri),
            [uri] => Self::parse(uri),
            several => Err(InvalidSpiffeId::SeveralUris(several.len())),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.trust_domain, self.path)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn a_certificate_names_its_holder() {
        let dns = SanType::DnsName("edge-1.example.com".try_into().unwrap());
        let der = certificate(vec![dns, uri("spiffe://chancery.local/rate-limiter/a")]);
        let id = SpiffeId::from_certificate(&der).unwrap();
        assert_eq!(id, SpiffeId { trust_domain: "chancery.local".into(), path: "rate-limiter/a".into() });
        assert_eq!(id.to_string(), "spiffe://chancery.local/rate-limiter/a");
    }

    #[test]
    fn no_two_readers_can_differ_about_who_it_is() {
        assert_eq!(SpiffeId::from_certificate(b"nonsense"), Err(InvalidSpiffeId::NotACertificate));
        assert_eq!(SpiffeId::from_certificate(&certificate(Vec::new())), Err(InvalidSpiffeId::NoUri));
        let two = certificate(vec![uri("spiffe://a/b"), uri("spiffe://a/c")]);
        assert_eq!(SpiffeId::from_certificate(&two), Err(InvalidSpiffeId::SeveralUris(2)));
    }

    #[test]
    fn other_texts_are_no_identity() {
        for text in ["", "https://a/b", "spiffe://a", "spiffe://a/", "SPIFFE://a/b"] {
            assert_eq!(SpiffeId::parse(text), Err(InvalidSpiffeId::Form(text.to_owned())));
        }
        for text in ["spiffe:///b", "spiffe://A/b", "spiffe://a:1/b", "spiffe://u@a/b"] {
            assert!(matches!(SpiffeId::parse(text), Err(InvalidSpiffeId::TrustDomain { .. })), "{text}");
        }
    }
}
