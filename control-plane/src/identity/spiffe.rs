//! Who a client of xDS is. Pure.
//!
//! - a proxy: `spiffe://<trust domain>/fleet/<fleet>/proxy/<id>`
//! - a rate limiter: `spiffe://<trust domain>/rate-limiter/<id>`
//! - an operator, who may look but is served nothing: `spiffe://<trust domain>/operator/<id>`
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

/// Who a rate limiter is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LimiterIdentity {
    /// The installation, such as `chancery.local`.
    pub trust_domain: String,
    /// The limiter; the node's `id`.
    pub id: Name,
}

/// Who an operator is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OperatorIdentity {
    /// The installation, such as `chancery.local`.
    pub trust_domain: String,
    /// The operator.
    pub id: Name,
}

/// Who a client of xDS is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A proxy.
    Proxy(ProxyIdentity),
    /// A rate limiter.
    Limiter(LimiterIdentity),
    /// Somebody who looks at the status of clients.
    Operator(OperatorIdentity),
}

/// Why a certificate or text names no client of xDS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// There is no one SPIFFE ID.
    #[error("there is no SPIFFE ID to go by")]
    Spiffe(#[source] InvalidSpiffeId),
    /// The SPIFFE ID is not of the expected form.
    #[error("{0:?} is none of spiffe://TRUST-DOMAIN/ with fleet/FLEET/proxy/ID, rate-limiter/ID or operator/ID")]
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
    /// The id is not a name.
    #[error("{uri:?} has an invalid id")]
    Id {
        /// The whole identity.
        uri: String,
        /// What is wrong.
        #[source]
        source: InvalidName,
    },
}

/// What the node of a limiter calls its cluster.
pub const LIMITER_CLUSTER: &str = "rate-limiter";

/// What the node of an operator calls its cluster, if it names one.
pub const OPERATOR_CLUSTER: &str = "operator";

/// The identity of the control plane itself: `spiffe://<trust domain>/control-plane`.
pub fn control_plane_uri(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}/control-plane")
}

impl Identity {
    /// Reads the identity of a proxy or a limiter.
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

    /// The installation it belongs to.
    pub fn trust_domain(&self) -> &str {
        match self {
            Self::Proxy(proxy) => &proxy.trust_domain,
            Self::Limiter(limiter) => &limiter.trust_domain,
            Self::Operator(operator) => &operator.trust_domain,
        }
    }

    /// Its id: the node's.
    pub fn id(&self) -> &Name {
        match self {
            Self::Proxy(proxy) => &proxy.id,
            Self::Limiter(limiter) => &limiter.id,
            Self::Operator(operator) => &operator.id,
        }
    }

    /// What its node calls its cluster: the fleet of a proxy.
    pub fn cluster(&self) -> &str {
        match self {
            Self::Proxy(proxy) => proxy.fleet.as_str(),
            Self::Limiter(_) => LIMITER_CLUSTER,
            Self::Operator(_) => OPERATOR_CLUSTER,
        }
    }

    fn of(id: SpiffeId) -> Result<Self, InvalidIdentity> {
        let parts: Vec<&str> = id.path.split('/').collect();
        let invalid_id = |source| InvalidIdentity::Id { uri: id.to_string(), source };
        match *parts.as_slice() {
            ["fleet", fleet, "proxy", proxy] => {
                let fleet = fleet.parse().map_err(|source| InvalidIdentity::Fleet { uri: id.to_string(), source })?;
                let proxy = proxy.parse().map_err(invalid_id)?;
                Ok(Self::Proxy(ProxyIdentity { trust_domain: id.trust_domain, fleet, id: proxy }))
            }
            ["rate-limiter", limiter] => {
                let limiter = limiter.parse().map_err(invalid_id)?;
                Ok(Self::Limiter(LimiterIdentity { trust_domain: id.trust_domain, id: limiter }))
            }
            ["operator", operator] => {
                let operator = operator.parse().map_err(invalid_id)?;
                Ok(Self::Operator(OperatorIdentity { trust_domain: id.trust_domain, id: operator }))
            }
            _ => Err(InvalidIdentity::Form(id.to_string())),
        }
    }
}

impl fmt::Display for LimiterIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, id } = self;
        write!(f, "spiffe://{trust_domain}/rate-limiter/{id}")
    }
}

impl fmt::Display for OperatorIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, id } = self;
        write!(f, "spiffe://{trust_domain}/operator/{id}")
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy(proxy) => proxy.fmt(f),
            Self::Limiter(limiter) => limiter.fmt(f),
            Self::Operator(operator) => operator.fmt(f),
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
        let identity = Identity::from_certificate(&der).unwrap();
        assert_eq!(identity.trust_domain(), "chancery.local");
        assert_eq!(identity.cluster(), "edge");
        assert_eq!(identity.id().as_str(), "edge-1");
        let der = certificate(vec![uri("spiffe://chancery.local/rate-limiter/limiter-1")]);
        let identity = Identity::from_certificate(&der).unwrap();
        assert!(matches!(identity, Identity::Limiter(_)), "{identity:?}");
        assert_eq!((identity.cluster(), identity.id().as_str()), (LIMITER_CLUSTER, "limiter-1"));
    }

    #[test]
    fn a_certificate_without_an_identity_names_nobody() {
        let none = InvalidIdentity::Spiffe(InvalidSpiffeId::NoUri);
        assert_eq!(Identity::from_certificate(&certificate(Vec::new())), Err(none));
    }

    #[test]
    fn an_error_names_the_part_that_is_wrong() {
        use InvalidIdentity as E;
        let parse = |text| Identity::parse(text).unwrap_err();
        for text in ["", "https://a/fleet/b/proxy/c", "spiffe:///fleet/b/proxy", "spiffe://a:1/fleet/b/proxy/c"] {
            assert!(matches!(parse(text), E::Spiffe(_)), "{text}");
        }
        for form in [
            "spiffe://a/fleet/b",
            "spiffe://a/fleet/b/proxy/c/",
            "spiffe://a/fleet/b/proxy/c/d",
            "spiffe://a/flotilla/b/proxy/c",
            "spiffe://a/rate-limiter",
            "spiffe://a/rate-limiter/b/c",
            "spiffe://a/operator",
            "spiffe://a/operator/b/c",
        ] {
            assert!(matches!(parse(form), E::Form(_)), "{form}");
        }
        assert!(matches!(parse("spiffe://a/fleet/../proxy/c"), E::Fleet { .. }));
        assert!(matches!(parse("spiffe://a/fleet/b/proxy/"), E::Id { source: InvalidName::Empty, .. }));
        assert!(matches!(parse("spiffe://a/fleet/b/proxy/c%2f"), E::Id { .. }));
        assert!(matches!(parse("spiffe://a/rate-limiter/"), E::Id { source: InvalidName::Empty, .. }));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(
            trust_domain in "[a-z0-9._-]{1,40}", fleet in "[a-z0-9]{1,20}", id in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?",
        ) {
            let identity = ProxyIdentity { trust_domain, fleet: fleet.parse().unwrap(), id: id.parse().unwrap() };
            prop_assert_eq!(Identity::parse(&identity.to_string()), Ok(Identity::Proxy(identity.clone())));
            let ProxyIdentity { trust_domain, id, fleet: _ } = identity;
            let limiter = LimiterIdentity { trust_domain, id };
            prop_assert_eq!(Identity::parse(&limiter.to_string()), Ok(Identity::Limiter(limiter.clone())));
            let LimiterIdentity { trust_domain, id } = limiter;
            let operator = OperatorIdentity { trust_domain, id };
            prop_assert_eq!(Identity::parse(&operator.to_string()), Ok(Identity::Operator(operator)));
        }

        #[test]
        fn nothing_else_is_read(text in "\\PC{0,60}") {
            if let Ok(identity) = Identity::parse(&text) {
                prop_assert_eq!(identity.to_string(), text);
            }
        }
    }
}
