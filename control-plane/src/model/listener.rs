//! A port of a fleet.

use std::net::IpAddr;

use super::Name;

/// A listener, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// The name, unique over all fleets.
    pub name: Name,
    /// The fleet whose proxies listen.
    pub fleet: Name,
    /// The address to bind.
    pub address: IpAddr,
    /// The port to bind, never zero.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: ListenerProtocol,
}

/// What is spoken on a listener.
#[derive(Clone, Debug, PartialEq)]
pub enum ListenerProtocol {
    /// HTTP/1.1 and HTTP/2 with prior knowledge, in the clear.
    Http,
    /// HTTP/1.1 and HTTP/2 over TLS.
    Https(TlsFiles),
}

/// A certificate on the disk of the proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsFiles {
    /// Path of the PEM certificate chain, as the proxy sees it.
    pub certificate_file: String,
    /// Path of the PEM private key, as the proxy sees it.
    pub private_key_file: String,
}
