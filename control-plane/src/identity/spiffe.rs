//! Who a proxy is: `spiffe://<trust domain>/fleet/<fleet>/proxy/<id>`. Pure.
//!
//! How a certificate holds a SPIFFE ID at all is `chancery_runtime`'s; this is what its path means here.

use std::fmt;

use chancery_runtime::tls::spiffe::{InvalidSpiffeId, SpiffeId};
pub use chancery_runtime::tls::spiffe::{InvalidTrustDomain, check_trust_domain};

use crate::model::{InvalidName, Name};

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
    /// There is no one SPIFFE ID.
    #[error("there is no SPIFFE ID to go by")]
    Spiffe(#[source] InvalidSpiffeId),
    /// The SPIFFE ID is not of the expected form.
    #[error("{0:?} is not of the form spiffe://TRUST-DOMAIN/fleet/FLEET/proxy/ID")]
    Form(String),
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
        Self::of(SpiffeId::parse(uri).map_err(InvalidIdentity::Spiffe)?)
    }

    /// Reads the identity out of a certificate (DER). Whether the certificate is valid is not looked at: the TLS handshake did.
    ///
    /// # Errors
    /// Says what is missing or wrong.
    pub fn from_certificate(der: &[u8]) -> Result<Self, InvalidIdentity> {
        Self::of(SpiffeId::from_certificate(der).map_err(InvalidIdentity::Spiffe)?)
    }

    fn of(id: SpiffeId) -> Result<Self, InvalidIdentity> {
        let parts: Vec<&str> = id.path.split('/').collect();
        let &["fleet", fleet, "proxy", proxy] = parts.as_slice() else {
            return Err(InvalidIdentity::Form(id.to_string()));
        };
        let fleet = fleet.parse().map_err(|source| InvalidIdentity::Fleet { uri: id.to_string(), source })?;
        let proxy = proxy.parse().map_err(|source| InvalidIdentity::Id { uri: id.to_string(), source })?;
        Ok(Self { trust_domain: id.trust_domain, fleet, id: proxy })
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
    fn a_certificate_without_an_identity_names_nobody() {
        let none = InvalidIdentity::Spiffe(InvalidSpiffeId::NoUri);
        assert_eq!(ProxyIdentity::from_certificate(&certificate(Vec::new())), Err(none));
    }

    #[test]
    fn an_error_names_the_part_that_is_wrong() {
        use InvalidIdentity as E;
        let parse = |text| ProxyIdentity::parse(text).unwrap_err();
        for text in ["", "https://a/fleet/b/proxy/c", "spiffe:///fleet/b/proxy", "spiffe://a:1/fleet/b/proxy/c"] {
            assert!(matches!(parse(text), E::Spiffe(_)), "{text}");
        }
        for form in [
            "spiffe://a/fleet/b",
            "spiffe://a/fleet/b/proxy/c/",
            "spiffe://a/fleet/b/proxy/c/d",
            "spiffe://a/flotilla/b/proxy/c",
        ] {
            assert!(matches!(parse(form), E::Form(_)), "{form}");
        }
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
