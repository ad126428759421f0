//! Hosts and ordered rules on one or more listeners.

pub mod order;

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use super::{
    Name,
    access::Access,
    authorizer::RuleAuthorization,
    cors::Cors,
    fault::Fault,
    jwt::{Jwt, JwtProvider},
    local_rate_limit::LocalRateLimit,
    retry::Retry,
    service::Labels,
    tcp::Tcp,
    tracing::Sampling,
};

/// A route, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The name.
    pub name: Name,
    /// Where it is served, without duplicates.
    pub listeners: Vec<ListenerRef>,
    /// The hosts it claims, without duplicates.
    pub hosts: Vec<HostPattern>,
    /// Who may have issued tokens; rules hold those that they name.
    pub jwt_providers: Vec<Arc<JwtProvider>>,
    /// The rules; the first that matches decides. None with `tcp`.
    pub rules: Vec<Rule>,
    /// What becomes of connections, in place of rules about requests.
    pub tcp: Option<Tcp>,
}

impl Route {
    /// The services its rules send to, copies of requests included, or that are asked for keys, each once.
    pub fn services(&self) -> BTreeSet<&Name> {
        let targets = self.forwards().flat_map(|forward| forward.to.iter().map(|target| &target.service));
        let copies = self.forwards().filter_map(|forward| Some(&forward.mirror.as_ref()?.service));
        let asked = self.jwt_providers.iter().filter_map(|provider| provider.service());
        let carried = self.tcp.iter().flat_map(|tcp| tcp.to.iter().map(|target| &target.service));
        targets.chain(copies).chain(asked).chain(carried).collect()
    }

    /// The limits that apply to its rules, each once.
    pub fn rate_limits(&self) -> BTreeSet<&Name> {
        self.forwards().flat_map(|forward| &forward.rate_limits).collect()
    }

    pub(super) fn forwards(&self) -> impl Iterator<Item = &Forward> {
        self.forwards_by_rule().map(|(_, forward)| forward)
    }

    /// Each with the index of its rule.
    pub(super) fn forwards_by_rule(&self) -> impl Iterator<Item = (usize, &Forward)> {
        self.rules.iter().enumerate().filter_map(|(index, rule)| match &rule.action {
            Action::Forward(forward) => Some((index, forward)),
            Action::Redirect(_) | Action::Respond(_) => None,
        })
    }
}

/// `fleet/listener`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerRef {
    /// The fleet.
    pub fleet: Name,
    /// The listener in it.
    pub listener: Name,
}

impl fmt::Display for ListenerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.fleet, self.listener)
    }
}

/// A host as a route claims it, in lower case, without a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// `*`: every host.
    Any,
    /// `*.example.com`: every host below, not the domain itself. Holds `example.com`.
    Suffix(String),
    /// `checkout.example.com`, or an IP address.
    Exact(String),
}

impl HostPattern {
    /// Whether it stands for every host that `other` stands for.
    pub fn covers(&self, other: &Self) -> bool {
        let below = |domain: &str, host: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Suffix(domain), Self::Suffix(other)) => domain == other || below(domain, other),
            (Self::Suffix(domain), Self::Exact(host)) => below(domain, host),
            (Self::Exact(host), Self::Exact(other)) => host == other,
            (Self::Suffix(_) | Self::Exact(_), _) => false,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Any => f.write_str("*"),
            HostPattern::Suffix(domain) => write!(f, "*.{domain}"),
            HostPattern::Exact(host) => f.write_str(host),
        }
    }
}

/// One rule of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Which requests it is for.
    pub matches: Match,
    /// What becomes of them.
    pub action: Action,
    /// What is said to the authorizer of the listener, where it has one.
    pub authorization: Option<RuleAuthorization>,
    /// Changes to the headers of the request.
    pub request_headers: HeaderChanges,
    /// Changes to the headers of the response.
    pub response_headers: HeaderChanges,
}

/// Which requests a rule is for: all parts must hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Match {
    /// The path, without the query.
    pub path: PathMatch,
    /// The methods, sorted, without duplicates; empty means every method.
    pub methods: Vec<String>,
    /// Conditions on headers, sorted.
    pub headers: Vec<NamedMatch>,
    /// Conditions on query parameters, sorted.
    pub query: Vec<NamedMatch>,
    /// Conditions on cookies, sorted.
    pub cookies: Vec<NamedMatch>,
    /// Whether it is for calls of gRPC only.
    pub grpc: bool,
}

/// A condition on the path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathMatch {
    /// There is none: the request is a CONNECT, which names a host and a port.
    Connect,
    /// The whole path.
    Exact(String),
    /// An RE2 pattern that must match the whole path.
    Regex(String),
    /// A template of the whole path, in Envoy's syntax, its variables called `v1` and so on: `/users/{v1}/{v2=**}`.
    Template(String),
    /// The start of the path.
    Prefix(String),
    /// This path and all below it; without a slash at its end.
    Below(String),
}

/// A condition on a header (name in lower case), a query parameter or a cookie.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamedMatch {
    /// Name of the header, parameter or cookie.
    pub name: String,
    /// What its value must be.
    pub value: ValueMatch,
    /// Whether the condition must not hold (headers and cookies only).
    pub invert: bool,
}

/// A condition on a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ValueMatch {
    /// It is there, with any value.
    Present,
    /// The whole value.
    Exact(String),
    /// The start of the value.
    Prefix(String),
    /// The end of the value.
    Suffix(String),
    /// A part of the value.
    Contains(String),
    /// An RE2 pattern that must match the whole value.
    Regex(String),
}

/// What becomes of a request.
#[expect(clippy::large_enum_variant, reason = "nearly all rules forward, and a box would be an allocation for each")]
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// It goes to a service.
    Forward(Forward),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// The proxy answers.
    Respond(Respond),
}

/// Forwarding to services.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    /// The targets, at least one, weights adding up to at least 1, services with subsets without duplicates.
    pub to: Vec<Target>,
    /// Changes to path and host.
    pub rewrite: Rewrite,
    /// Who gets a copy of requests.
    pub mirror: Option<Mirror>,
    /// Who may use it from pages of other origins; nobody by default. Boxed, for it is large and few rules have it.
    pub cors: Option<Box<Cors>>,
    /// Who may use it, besides what the listener says; boxed as `cors` is.
    pub access: Option<Box<Access>>,
    /// What the tokens of requests have to be; boxed as `cors` is.
    pub jwt: Option<Box<Jwt>>,
    /// What some requests meet on purpose.
    pub fault: Option<Fault>,
    /// The longest body of a request, in bytes, at least 1; the proxy keeps it until it is whole.
    pub max_request_body: Option<u32>,
    /// Which requests are traced, where the listener does that; `None`: those that it says.
    pub tracing: Option<Sampling>,
    /// Whether answers are compressed, where the listener does that.
    pub compress: bool,
    /// The limit that each proxy keeps by itself.
    pub local_rate_limit: Option<LocalRateLimit>,
    /// Time for the whole answer, retries included; `None` is the fleet's default.
    pub timeout: Option<Duration>,
    /// Time without a byte in either direction; `None` is the listener's, or `timeout` where that is longer than usual.
    pub idle_timeout: Option<Duration>,
    /// Time for request and answer together, however much of them moves.
    pub max_stream_duration: Option<Duration>,
    /// Retries, none by default.
    pub retry: Option<Retry>,
    /// What the protocol of a request may be changed to, without duplicates; nothing by default.
    pub upgrades: Vec<Upgrade>,
    /// The limits that apply, in the order in which Envoy tells the limiter of them, without duplicates.
    pub rate_limits: Vec<Name>,
}

impl Forward {
    /// Forwarding to `to`, and nothing else.
    pub fn to(to: Vec<Target>) -> Self {
        Self {
            to,
            rewrite: Rewrite::default(),
            mirror: None,
            cors: None,
            access: None,
            jwt: None,
            fault: None,
            max_request_body: None,
            tracing: None,
            compress: true,
            local_rate_limit: None,
            timeout: None,
            idle_timeout: None,
            max_stream_duration: None,
            retry: None,
            upgrades: Vec::new(),
            rate_limits: Vec::new(),
        }
    }
}

/// Changes to path and host before forwarding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// How the path is changed.
    pub path: Option<PathRewrite>,
    /// Replaces the host.
    pub host: Option<String>,
}

/// A change to the path; the query stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// Replaces what the path match matched (prefix or exact).
    Prefix(String),
    /// The path, with the variables of the matched template.
    Template(String),
    /// Replaces whatever the pattern matches.
    Regex {
        /// An RE2 pattern for a part of the path.
        pattern: String,
        /// What stands in its place; `\1` is what the first group has matched.
        substitution: String,
    },
}

/// One target and its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The service.
    pub service: Name,
    /// The labels that its endpoints have; any endpoint will do if there are none.
    pub subset: Labels,
    /// The share relative to the other targets; may be zero.
    pub weight: u32,
}

/// Copies of requests, whose answers nobody waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The service that gets them.
    pub service: Name,
    /// Of how many requests, 1 to 100.
    pub percent: u32,
}

/// What the protocol of a request may be changed to: a connection that both sides then use as they like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// WebSocket (RFC 6455, and RFC 8441 over HTTP/2).
    Websocket,
    /// A tunnel (CONNECT, RFC 9110); with [`PathMatch::Connect`], and always there.
    Connect(Tunnel),
}

/// Who ends a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// The proxy: what comes out of it goes to the service, which knows nothing of a tunnel.
    Terminate,
    /// The service, a proxy itself: it gets the CONNECT.
    Forward,
}

/// A redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// New scheme: `http` or `https`.
    pub scheme: Option<String>,
    /// New host.
    pub host: Option<String>,
    /// New port.
    pub port: Option<u16>,
    /// New path; not with `prefix`.
    pub path: Option<String>,
    /// Replaces the matched prefix of the path; not with `path`.
    pub prefix: Option<String>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Whether the query is dropped.
    pub strip_query: bool,
}

/// A fixed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// The status, 200 to 599.
    pub status: u16,
    /// The body, at most 4096 bytes (Envoy's limit for a fixed answer).
    pub body: String,
}

/// Changes to headers: removals first, then `set`, then `add`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderChanges {
    /// Replaces the header or adds it. Values are literal.
    pub set: Vec<(String, String)>,
    /// Adds a header beside those there are. Values are literal.
    pub add: Vec<(String, String)>,
    /// Removes the header.
    pub remove: Vec<String>,
}

impl HeaderChanges {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}
