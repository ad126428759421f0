//! A listener as it is written.

use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    AccessLogSpec, AccessSpec, CompressionSpec, DurationText, ExternalAuthorizationSpec, NameText, TracingSpec,
    TrustedCaSpec,
};

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
    /// Whether HTTP/3 is spoken too, at the same port of UDP, of which answers over TCP tell clients (`alt-svc`); only with protocol `https`,
    /// not with `tls.clients` and `proxyProtocol`. A change drains the connections of the listener.
    #[schema(default = false)]
    pub http3: Option<bool>,
    /// The certificate to present, and what clients prove; given exactly when the protocol is `https`.
    pub tls: Option<ListenerTlsSpec>,
    /// In which pieces its routes travel to proxies that can take them one host at a time. A change drains the connections
    /// of the listener.
    #[schema(default = "per-host")]
    pub route_delivery: Option<RouteDeliverySpec>,
    /// How long clients may take.
    pub timeouts: Option<ListenerTimeoutsSpec>,
    /// How answers are compressed; not at all if it is not given.
    pub compression: Option<CompressionSpec>,
    /// Who may send requests, whatever their route; everybody if it is not given.
    pub access: Option<AccessSpec>,
    /// Who is asked about every request whether it may pass, unless its rule says otherwise; nobody if it is not given.
    pub external_authorization: Option<ExternalAuthorizationSpec>,
    /// What is written of requests, and where; nothing if it is not given. A change drains the connections of the listener.
    #[schema(max_items = 10)]
    pub access_logs: Option<Vec<AccessLogSpec>>,
    /// Which requests are traced, and who is told; none if it is not given. A change drains the connections of the listener.
    pub tracing: Option<TracingSpec>,
}

/// How long clients may take: each 1ms to 24h.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerTimeoutsSpec {
    /// For the headers of a request; 10s if it is not given.
    pub request_headers: Option<DurationText>,
    /// For a request as a whole; no limit if it is not given.
    pub request: Option<DurationText>,
    /// For a request and its answer to stand still, unless a rule has `idleTimeout`; 5m if it is not given.
    pub stream_idle: Option<DurationText>,
    /// For a connection without requests; 1h if it is not given.
    pub connection_idle: Option<DurationText>,
    /// For a connection, which ends when its requests have; no limit if it is not given.
    pub max_connection: Option<DurationText>,
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
    /// Whatever it is: connections are carried as they are, all of them by one route with `tcp`.
    Tcp,
    /// TLS that is not ended here: connections are carried as they are, by routes with `tcp` that claim the names they ask for (SNI).
    #[serde(rename = "tls-passthrough")]
    TlsPassthrough,
}

/// A certificate on the disk of the proxies, and what clients prove of themselves.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListenerTlsSpec {
    /// Absolute path of the PEM certificate chain, as a proxy sees it.
    #[schema(examples("/etc/envoy/tls/server.crt"))]
    pub certificate_file: String,
    /// Absolute path of the PEM private key, as a proxy sees it.
    #[schema(examples("/etc/envoy/tls/server.key"))]
    pub private_key_file: String,
    /// What clients prove of themselves; nothing if it is not given.
    pub clients: Option<ClientsSpec>,
}

/// What clients prove of themselves by certificates.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientsSpec {
    /// Whose certificates are accepted.
    pub trusted_ca: TrustedCaSpec,
    /// Whether a client without a certificate is turned away in the handshake. One with another certificate is in any case.
    #[schema(default = true)]
    pub required: Option<bool>,
}
