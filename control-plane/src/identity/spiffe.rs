//! The identity in a certificate: `spiffe://<trust domain>/fleet/<fleet>/proxy/<id>`. Pure.
//!
//! SPIFFE rather than a subject name: it is a URI, so it is read in one way only; it is what meshes
//! and CAs of others can issue; and its trust domain keeps two installations apart that share a CA.
//! A certificate with more than one URI is refused (as the SPIFFE standard says), because then it
//! depends on the reader who the holder is.

use std::fmt;

use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use crate::model::{InvalidName, Name};

/// The longest trust domain that SPIFFE allows.
const MAX_TRUST_DOMAIN: usize = 255;

/// Who a proxy is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyIdentity {
    /// The installation, such as `chancery.local`.
    pub trust_domain: String,
    /// The fleet; the node's `cluster`.
    pub fleet: Name,
    /// The proxy within the fleet; the node's `id`.
    pub id: Name,
}

/// Why a certificate or text names no proxy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// The bytes are not an X.509 certificate.
    #[error("the certificate cannot be read")]
    NotACertificate,
    /// The certificate names nobody by URI.
    #[error("the certificate has no URI among its subject alternative names")]
    NoUri,
    /// The certificate names several.
    #[error("the certificate has {0} URIs among its subject alternative names, expected one")]
    SeveralUris(usize),
    /// The URI is not a SPIFFE ID of the expected form.
    #[error("{0:?} is not of the form spiffe://TRUST-DOMAIN/fleet/FLEET/proxy/ID")]
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
    /// The fleet is not a name.
    #[error("{uri:?} has an invalid fleet")]
    Fleet {
        /// The whole identity.
        uri: String,
        /// What is wrong.
        #[source]
        source: InvalidName,
    },
    /// The proxy's id is not a name.
    #[error("{uri:?} has an invalid proxy id")]
    Id {
        /// The whole identity.
        uri: String,
        /// What is wrong.
        #[source]
        source: InvalidName,
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

/// The identity of the control plane itself: `spiffe://<trust domain>/control-plane`.
pub fn control_plane_uri(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}/control-plane")
}

impl ProxyIdentity {
    /// Reads `spiffe://<trust domain>/fleet/<fleet>/proxy/<id>`.
    ///
    /// # Errors
    /// Says which part is wrong.
    pub fn parse(uri: &str) -> Result<Self, InvalidIdentity> {
        let form = || InvalidIdentity::Form(uri.to_owned());
        let rest = uri.strip_prefix("spiffe://").ok_or_else(form)?;
        let mut parts = rest.split('/');
        let mut next = || parts.next().ok_or_else(form);
        let (trust_domain, fleet_word, fleet, proxy_word, id) = (next()?, next()?, next()?, next()?, next()?);
        if fleet_word != "fleet" || proxy_word != "proxy" || parts.next().is_some() {
            return Err(form());
        }
        check_trust_domain(trust_domain)
            .map_err(|source| InvalidIdentity::TrustDomain { uri: uri.to_owned(), source })?;
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            fleet: fleet.parse().map_err(|source| InvalidIdentity::Fleet { uri: uri.to_owned(), source })?,
            id: id.parse().map_err(|source| InvalidIdentity::Id { uri: uri.to_owned(), source })?,
        })
    }

    /// Reads the identity out of a certificate (DER). Whether the certificate is valid is not looked at: the TLS handshake did.
    ///
    /// # Errors
    /// Says what is missing or wrong.
    pub fn from_certificate(der: &[u8]) -> Result<Self, InvalidIdentity> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| InvalidIdentity::NotACertificate)?;
        let names = certificate.subject_alternative_name().map_err(|_| InvalidIdentity::NotACertificate)?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let uris: Vec<&str> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        match uris.as_slice() {
            [] => Err(InvalidIdentity::NoUri),
            [uri] => Self::parse(uri),
            several => Err(InvalidIdentity::SeveralUris(several.len())),
        }
    }
}

impl fmt::Display for ProxyIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, fleet, id } = self;
        write!(f, "spiffe://{trust_domain}/fleet/{fleet}/proxy/{id}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
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
    fn a_certificate_names_its_proxy() {
        let der = certificate(vec![
            SanType::DnsName("edge-1.example.com".try_into().unwrap()),
            uri("spiffe://chancery.local/fleet/edge/proxy/edge-1"),
        ]);
        let identity = ProxyIdentity::from_certificate(&der).unwrap();
        assert_eq!(identity.trust_domain, "chancery.local");
        assert_eq!(identity.fleet.as_str(), "edge");
        assert_eq!(identity.id.as_str(), "edge-1");
    }

    #[test]
    fn no_two_readers_can_differ_about_who_it_is() {
        assert_eq!(ProxyIdentity::from_certificate(b"nonsense"), Err(InvalidIdentity::NotACertificate));
        assert_eq!(ProxyIdentity::from_certificate(&certificate(Vec::new())), Err(InvalidIdentity::NoUri));
        let two = certificate(vec![uri("spiffe://a/fleet/b/proxy/c"), uri("spiffe://a/fleet/b/proxy/d")]);
        assert_eq!(ProxyIdentity::from_certificate(&two), Err(InvalidIdentity::SeveralUris(2)));
    }

    #[test]
    fn an_error_names_the_part_that_is_wrong() {
        use InvalidIdentity as E;
        let parse = |text| ProxyIdentity::parse(text).unwrap_err();
        for form in [
            "",
            "https://a/fleet/b/proxy/c",
            "spiffe://a/fleet/b",
            "spiffe://a/fleet/b/proxy/c/",
            "spiffe://a/fleet/b/proxy/c/d",
            "spiffe://a/flotilla/b/proxy/c",
            "spiffe:///fleet/b/proxy",
            "SPIFFE://a/fleet/b/proxy/c",
        ] {
            assert!(matches!(parse(form), E::Form(_)), "{form}");
        }
        assert!(matches!(parse("spiffe:///fleet/b/proxy/c"), E::TrustDomain { .. }));
        assert!(matches!(parse("spiffe://A/fleet/b/proxy/c"), E::TrustDomain { .. }));
        assert!(matches!(parse("spiffe://a:1/fleet/b/proxy/c"), E::TrustDomain { .. }));
        assert!(matches!(parse("spiffe://a/fleet/../proxy/c"), E::Fleet { .. }));
        assert!(matches!(parse("spiffe://a/fleet/b/proxy/"), E::Id { source: InvalidName::Empty, .. }));
        assert!(matches!(parse("spiffe://a/fleet/b/proxy/c%2f"), E::Id { .. }));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            trust_domain in "[a-z0-9._-]{1,40}", fleet in "[a-z0-9]{1,20}", id in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?",
        ) {
            let identity = ProxyIdentity { trust_domain, fleet: fleet.parse().unwrap(), id: id.parse().unwrap() };
            prop_assert_eq!(ProxyIdentity::parse(&identity.to_string()), Ok(identity));
        }

        #[test]
        fn nothing_else_is_read(text in "\\PC{0,60}") {
            if let Ok(identity) = ProxyIdentity::parse(&text) {
                prop_assert_eq!(identity.to_string(), text);
            }
        }
    }
}
