//! A port of a fleet.

use std::{net::IpAddr, time::Duration};

use super::{
    Name,
    access::Access,
    access_log::{AccessLog, Sink},
    authorizer::{Authorizer, AuthorizerProtocol},
    compression::Compression,
    service::tls::Authorities,
    tracing::Tracing,
};

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
    /// Whether HTTP/3 is spoken too, at the same port of UDP; only with [`ListenerProtocol::Https`], without `clients` and `proxy_protocol`.
    pub http3: bool,
    /// In which pieces its routes travel to a proxy that takes them one host at a time.
    pub route_delivery: RouteDelivery,
    /// How long clients may take.
    pub timeouts: Timeouts,
    /// How answers are compressed; not at all by default.
    pub compression: Option<Compression>,
    /// What clients prove of themselves; only with [`ListenerProtocol::Https`].
    pub clients: Option<Clients>,
    /// Who may send requests; whoever does by default.
    pub access: Option<Access>,
    /// Who is asked about every request; nobody by default.
    pub authorizer: Option<Authorizer>,
    /// What is written of requests, and where.
    pub access_logs: Vec<AccessLog>,
    /// Which requests are traced; none by default.
    pub tracing: Option<Tracing>,
}

/// What a listener itself calls, beside what routes send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// Where it is named in the spec.
    pub path: String,
    /// The service that is called.
    pub service: &'a Name,
    /// Whether it is called over gRPC.
    pub grpc: bool,
}

impl Listener {
    /// The services that the listener itself calls, in the order in which they are named.
    pub fn calls(&self) -> impl Iterator<Item = Call<'_>> {
        let grpc = |path: String, service| Call { path, service, grpc: true };
        let authorizer = self.authorizer.iter().map(|authorizer| Call {
            path: "externalAuthorization.service".to_owned(),
            service: &authorizer.service,
            grpc: authorizer.protocol == AuthorizerProtocol::Grpc,
        });
        let logs = self.access_logs.iter().enumerate().filter_map(move |(index, log)| match &log.to {
            Sink::Service(of) => Some(grpc(format!("accessLogs[{index}].to.service.name"), &of.service)),
            Sink::Stdout(_) | Sink::Stderr(_) | Sink::File { .. } | Sink::ControlPlane => None,
        });
        let tracing = self.tracing.iter().map(move |tracing| grpc("tracing.service".to_owned(), &tracing.service));
        authorizer.chain(logs).chain(tracing)
    }
}

/// What clients prove of themselves by certificates.
#[derive(Clone, Debug, PartialEq)]
pub struct Clients {
    /// Whose certificates are accepted; never [`Authorities::System`].
    pub authorities: Authorities,
    /// Whether a client without a certificate is turned away in the handshake.
    pub required: bool,
}

/// How long clients may take. The defaults suit clients that are strangers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the headers of a request.
    pub request_headers: Duration,
    /// For a request as a whole.
    pub request: Option<Duration>,
    /// For a request and its answer without a byte in either direction, unless its rule says otherwise.
    pub stream_idle: Duration,
    /// For a connection without requests.
    pub connection_idle: Duration,
    /// For a connection; it ends when its requests have.
    pub max_connection: Option<Duration>,
}

impl Timeouts {
    /// The usual time without a byte.
    pub const STREAM_IDLE: Duration = Duration::from_secs(5 * 60);
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            // Whoever needs longer wants to tie up connections.
            request_headers: Duration::from_secs(10),
            request: None,
            stream_idle: Self::STREAM_IDLE,
            connection_idle: Duration::from_secs(60 * 60),
            max_connection: None,
        }
    }
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
    /// Whatever it is: connections are carried as they are, all of them by one route.
    Tcp,
    /// TLS that is not ended here: connections are carried as they are, by routes that claim the names they ask for (SNI).
    TlsPassthrough,
}

impl ListenerProtocol {
    /// Whether routes on it are about requests, and not about connections.
    pub fn is_http(&self) -> bool {
        match self {
            Self::Http | Self::Https(_) => true,
            Self::Tcp | Self::TlsPassthrough => false,
        }
    }
}

/// A certificate on the disk of the proxy.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsFiles {
    /// Path of the PEM certificate chain, as the proxy sees it.
    pub certificate_file: String,
    /// Path of the PEM private key, as the proxy sees it.
    pub private_key_file: String,
}
