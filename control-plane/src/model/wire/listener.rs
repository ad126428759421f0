//! A listener as it is written.

use serde::Deserialize;
use utoipa::ToSchema;

use super::NameText;

/// A port of a fleet. Routes refer to it as `fleet/listener`.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerSpec {
    /// The fleet whose proxies listen.
    pub fleet: NameText,
    /// The IP address to bind.
    #[schema(default = "0.0.0.0")]
    pub address: Option<String>,
    /// The port to bind.
    #[schema(minimum = 1, maximum = 65535)]
    pub port: u16,
    /// What is spoken on it.
    pub protocol: ListenerProtocolSpec,
    /// Whether each connection begins with the address of the client (PROXY protocol, version 1 or 2), as load balancers in front say
    /// it, before TLS if there is any. A connection without it is closed. Whoever can connect can say anything, so only the load
    /// balancer should be able to.
    #[schema(default = false)]
    pub proxy_protocol: Option<bool>,
    /// The certificate to present; given exactly when the protocol is `https`.
    pub tls: Option<TlsFilesSpec>,
    /// In which pieces its routes travel to proxies that can take them one host at a time. A change drains the connections
    /// of the listener.
    #[schema(default = "per-host")]
    pub route_delivery: Option<RouteDeliverySpec>,
}

/// In which pieces the routes of a listener travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RouteDeliverySpec {
    /// One host at a time: an edit costs the hosts that it changes.
    PerHost,
    /// All of them together: an edit costs all of them, and takes effect for all of them in one moment.
    Whole,
}

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListenerProtocolSpec {
    /// HTTP/1.1, and HTTP/2 with prior knowledge, in the clear.
    Http,
    /// HTTP/1.1 and HTTP/2 over TLS.
    Https,
    /// Bytes. Not supported yet.
    Tcp,
}

/// A certificate on the disk of the proxies.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsFilesSpec {
    /// Absolute path of the PEM certificate chain, as a proxy sees it.
    #[schema(examples("/etc/envoy/tls/server.crt"))]
    pub certificate_file: String,
    /// Absolute path of the PEM private key, as a proxy sees it.
    #[schema(examples("/etc/envoy/tls/server.key"))]
    pub private_key_file: String,
}
