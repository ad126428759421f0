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
    /// Whether connections begin with who the client is, which whoever stands in front has to say.
    pub proxy_protocol: bool,
    /// What is spoken on it.
    pub protocol: ListenerProtocol,
    /// In which pieces its routes travel to a proxy that takes them one host at a time.
    pub route_delivery: RouteDelivery,
}

/// In which pieces the routes of a listener travel. Proxies that do not take them by host get them whole in either case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteDelivery {
    /// One host at a time: an edit costs the hosts that it changes.
    #[default]
    PerHost,
    /// All of them together: an edit costs all of them, and takes effect for all of them in one moment.
    Whole,
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
