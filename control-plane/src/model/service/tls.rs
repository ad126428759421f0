//! How endpoints of a service are spoken to over TLS: whom to believe, who they have to be, and what is shown to them.
//!
//! Keys are never here: they lie on the machines of the proxies, in files or as what a proxy is by its bootstrap.

use std::net::IpAddr;

use crate::model::{Name, listener::TlsFiles};

/// TLS towards the endpoints of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceTls {
    /// The name that is asked for; `None`: that of the endpoint, if the proxy resolves one.
    pub sni: Option<String>,
    /// What an endpoint has to prove.
    pub verification: Verification,
    /// What is shown to endpoints that ask for it.
    pub client_certificate: Option<ClientCertificate>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

/// What an endpoint has to prove.
#[derive(Clone, Debug, PartialEq)]
pub enum Verification {
    /// Nothing: whoever answers is believed.
    Skipped,
    /// A certificate of these authorities, in which one of these is named; if there are none, the name that is asked for.
    Required {
        /// Whose certificates are accepted.
        authorities: Authorities,
        /// Who an endpoint may be. Empty only if there is `sni`, or a name in each of the endpoints.
        peers: Vec<Peer>,
    },
}

/// Whose certificates are accepted.
#[derive(Clone, Debug, PartialEq)]
pub enum Authorities {
    /// Those that the system of the proxy trusts.
    System,
    /// Those in a PEM file, as the proxy sees it.
    File(String),
    /// Those in this PEM.
    Pem(String),
    /// Those that the proxy knows its control plane by.
    Mesh,
}

/// A name in a certificate.
#[derive(Clone, Debug, PartialEq)]
pub enum Peer {
    /// This URI.
    Uri(String),
    /// A URI that begins so; it ends with a slash.
    UriPrefix(String),
    /// This DNS name.
    Dns(String),
    /// This address.
    Ip(IpAddr),
    /// A proxy of this fleet, in whatever trust domain.
    Proxy {
        /// The fleet.
        fleet: Name,
        /// Which of them.
        id: ProxyId,
    },
}

/// Which proxies of a fleet.
#[derive(Clone, Debug, PartialEq)]
pub enum ProxyId {
    /// All of them.
    Any,
    /// The one with this id.
    Exact(Name),
    /// Those whose id begins so: `a-z`, `0-9` and `-` only.
    Prefix(String),
}

/// What is shown to endpoints that ask for it.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientCertificate {
    /// What is in these files.
    Files(TlsFiles),
    /// What the proxy shows to its control plane.
    Mesh,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2.
    V1_2,
    /// 1.3.
    V1_3,
}

impl ServiceTls {
    /// The fleet whose proxies the endpoints are, if that is said.
    pub fn fleet(&self) -> Option<&Name> {
        let Verification::Required { peers, .. } = &self.verification else { return None };
        // There is at most one: `mesh` names it.
        peers.iter().find_map(|peer| match peer {
            Peer::Proxy { fleet, .. } => Some(fleet),
            Peer::Uri(_) | Peer::UriPrefix(_) | Peer::Dns(_) | Peer::Ip(_) => None,
        })
    }
}
