//! What a listener makes of a request before routes see it, or why it refuses it.
//!
//! These are the settings of `translate/listener.rs` as Envoy 1.40 acts on them: what belongs to the connection goes, what a
//! client could only pretend goes, what the proxy says of the client comes.

use std::borrow::Cow;

use super::{
    condition::conditions,
    explanation::Seen,
    path::{self, Unusual},
    request::{CONNECT, Request},
    spoken,
};
use crate::model::{
    fleet::Fleet,
    listener::Listener,
    route::{Action, Rule, Upgrade, order::Claim},
};

/// What only the proxy, or the service behind it, may say; and what belongs to the connection.
const REMOVED: [&str; 24] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-max-retries",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-forwarded-client-cert",
];

/// What stays where the protocol is to become another one.
const UPGRADING: [&str; 2] = ["connection", "upgrade"];

/// What the proxy adds, of which nobody knows the value before.
const UNKNOWN: [&str; 3] = ["x-envoy-external-address", "x-forwarded-for", "x-request-id"];

/// What Envoy makes one value of, with commas, if it comes several times.
const JOINED: [&str; 26] = [
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "access-control-request-private-network",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-type",
    "expect",
    "grpc-accept-encoding",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "referer",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-envoy-attempt-count",
    "x-forwarded-host",
    "x-forwarded-port",
];

/// What a CONNECT wants a connection to become.
const TUNNEL: &str = "connect";

/// The header that says how the client has connected.
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// A request as routes see it.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) method: String,
    pub(super) scheme: String,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) query: Option<String>,
    headers: Vec<(String, String)>,
    /// What the protocol of the connection is to become, in lower case; [`TUNNEL`] for a CONNECT.
    upgrade: Option<String>,
}

/// What there is of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Header<'a> {
    Absent,
    /// Its values, at least one. Conditions look at each by itself (Envoy before 1.39: at all of them joined).
    Values(Vec<Cow<'a, str>>),
    /// It will be there; with which value only the proxy knows.
    Unknown,
}

/// Why a request gets no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) location: Option<String>,
    pub(super) because: String,
}

/// `request` as it arrives at the routes of `listener`.
pub(super) fn arrive(request: &Request, listener: &Listener, fleet: &Fleet) -> Result<Arrived, Refusal> {
    let refuse = |because: &str| Err(Refusal { status: 400, location: None, because: because.to_owned() });
    if let Some((name, _)) = request.headers().iter().find(|(name, _)| name.contains('_')) {
        return refuse(&format!("the name of header {name} has an underscore, which servers take for a hyphen"));
    }
    let upgrade = upgrade(request);
    let is_kept = |name: &str| !REMOVED.contains(&name) || (upgrade.is_some() && UPGRADING.contains(&name));
    let arrived = |path: String, query: Option<&str>| Arrived {
        method: request.method().to_owned(),
        scheme: scheme(request, listener, fleet),
        host: without_trailing_dot(request.authority()),
        path,
        query: query.map(str::to_owned),
        headers: request.headers().iter().filter(|(name, _)| is_kept(name)).cloned().collect(),
        upgrade: upgrade.clone(),
    };
    if request.is_connect() {
        return Ok(arrived(String::new(), None));
    }
    if !request.target().bytes().all(|b| b.is_ascii_graphic()) {
        return refuse("path and query have other than printable ASCII characters");
    }
    let (path, query) = match request.target().split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.target(), None),
    };
    let normalized = match path::normalize(path) {
        Ok(_) if query.is_some_and(|query| query.contains('#')) => return refuse("the query has a fragment"),
        Ok(normalized) => normalized,
        Err(Unusual::Fragment) => return refuse("the path has a fragment"),
        Err(Unusual::Relative) => return refuse("the path does not start with a slash"),
        Err(Unusual::Zero) => return refuse("the path has an encoded zero"),
    };
    let arrived = arrived(normalized.path, query);
    if !normalized.had_hidden_slashes {
        return Ok(arrived);
    }
    let because = "the path has encoded slashes; the client is asked to come back with plain ones";
    match arrived.is_grpc() {
        // Clients of gRPC follow no redirects.
        true => refuse("the path has encoded slashes"),
        false => Err(Refusal { status: 307, location: Some(arrived.target()), because: because.to_owned() }),
    }
}

/// How the client has connected: only trusted proxies in front know better than the listener.
fn scheme(request: &Request, listener: &Listener, fleet: &Fleet) -> String {
    let said = request.headers().iter().find(|(name, _)| name == FORWARDED_PROTO).map(|(_, value)| value.as_str());
    said.filter(|_| fleet.trusted_hops > 0).unwrap_or_else(|| spoken(listener)).to_owned()
}

/// What the protocol of the connection is to become; `h2c` is passed over.
fn upgrade(request: &Request) -> Option<String> {
    if request.is_connect() {
        return Some(TUNNEL.to_owned());
    }
    let all = |wanted: &'static str| request.headers().iter().filter(move |(name, _)| name == wanted);
    let mut tokens = all("connection").flat_map(|(_, value)| value.split(','));
    let asks = tokens.any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let mut wanted = all("upgrade").map(|(_, value)| value.to_ascii_lowercase());
    wanted.find(|value| asks && !value.is_empty() && value != "h2c")
}

/// `example.com.` is `example.com`, with a port or without.
fn without_trailing_dot(authority: &str) -> String {
    match authority.strip_suffix('.') {
        Some(host) => host.to_owned(),
        None => match authority.rsplit_once(".:") {
            Some((host, port)) => format!("{host}:{port}"),
            None => authority.to_owned(),
        },
    }
}

impl<'a> Header<'a> {
    fn of(value: &'a str) -> Self {
        Self::Values(vec![Cow::Borrowed(value)])
    }
}

impl Arrived {
    pub(super) fn header(&self, name: &str) -> Header<'_> {
        match name {
            "host" => return Header::of(&self.host),
            FORWARDED_PROTO => return Header::of(&self.scheme),
            "te" => return self.trailers(),
            _ if UNKNOWN.contains(&name) => return Header::Unknown,
            _ => {}
        }
        let values: Vec<_> = self.values(name).map(Cow::Borrowed).collect();
        match values.len() {
            0 => Header::Absent,
            1 => Header::Values(values),
            _ if JOINED.contains(&name) => Header::Values(vec![values.join(",").into()]),
            _ => Header::Values(values),
        }
    }

    /// Of all codings that a client can take, the proxy passes on only this.
    fn trailers(&self) -> Header<'_> {
        let mut codings = self.values("te").flat_map(|value| value.split(','));
        let trailers = codings.any(|coding| coding.trim().eq_ignore_ascii_case("trailers"));
        if trailers { Header::of("trailers") } else { Header::Absent }
    }

    /// The values of a header that the client has sent, in their order.
    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A header that is known, empty if it is not there.
    pub(super) fn text(&self, name: &str) -> Cow<'_, str> {
        match self.header(name) {
            Header::Values(values) => values.join(",").into(),
            Header::Absent | Header::Unknown => Cow::Borrowed(""),
        }
    }

    /// The first cookie called `name`.
    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        let pairs = self.values("cookie").flat_map(|header| header.split(';'));
        let mut found = pairs.filter_map(|pair| pair.trim_start_matches(' ').split_once('='));
        let (_, value) = found.find(|(known, _)| *known == name)?;
        let inside = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        Some(inside.unwrap_or(value))
    }

    /// The first parameter called `name`, as it stands in the query.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.as_deref()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Whether it is a call of gRPC.
    pub(super) fn is_grpc(&self) -> bool {
        let kind = self.text("content-type");
        kind.strip_prefix("application/grpc").is_some_and(|rest| rest.is_empty() || rest.starts_with('+'))
    }

    /// Whether it asks for a tunnel: it has no path then.
    pub(super) fn is_connect(&self) -> bool {
        self.method == CONNECT
    }

    /// Why `rule`, which matches, does not have it: a protocol becomes only what its rule says.
    pub(super) fn refused_by(&self, rule: &Rule) -> Option<Refusal> {
        let wanted = self.upgrade.as_deref()?;
        let allowed = match &rule.action {
            Action::Forward(forward) => forward.upgrades.as_slice(),
            Action::Redirect(_) | Action::Respond(_) => &[],
        };
        let names = |upgrade: &Upgrade| match upgrade {
            Upgrade::Websocket => "websocket",
            Upgrade::Connect(_) => TUNNEL,
        };
        let because = format!("the rule that matches does not have {wanted} among its upgrades");
        (!allowed.iter().any(|upgrade| names(upgrade) == wanted)).then_some(Refusal {
            status: 403,
            location: None,
            because,
        })
    }

    /// Whether it is what a browser asks before a request from a page of another origin.
    pub(super) fn is_preflight(&self) -> bool {
        self.method == "OPTIONS"
            && !self.text("origin").is_empty()
            && !self.text("access-control-request-method").is_empty()
    }

    /// Path and query.
    pub(super) fn target(&self) -> String {
        self.with_query(&self.path)
    }

    /// Another path with the query of this one.
    pub(super) fn with_query(&self, path: &str) -> String {
        match &self.query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        }
    }

    pub(super) fn seen(&self) -> Seen {
        Seen {
            method: self.method.clone(),
            scheme: self.scheme.clone(),
            host: self.host.clone(),
            path: self.path.clone(),
            query: self.query.clone(),
        }
    }

    /// What cannot be told before the request is sent, or is told to the client in another way.
    pub(super) fn notes(&self, claims: &[Claim<'_>], chosen: Option<usize>) -> Vec<String> {
        let tried = &claims[..chosen.map_or(claims.len(), |index| index + 1)];
        let unknown = |name: &&&str| {
            let mut conditions = tried.iter().flat_map(|claim| conditions(&claim.rule.matches));
            conditions.any(|condition| condition.needs_value_of(name))
        };
        let unknown = UNKNOWN
            .iter()
            .filter(unknown)
            .map(|name| format!("only the proxy knows what {name} will be; conditions on it are taken not to hold"));
        let grpc = "this is a call of gRPC, which is told a status of the proxy's as grpc-status".to_owned();
        unknown.chain(self.is_grpc().then_some(grpc)).collect()
    }
}
