//! Hosts and ordered rules on one or more listeners.

use std::{collections::BTreeSet, fmt, time::Duration};

use super::{Name, cors::Cors, fault::Fault};

/// A route, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// The name.
    pub name: Name,
    /// Where it is served, without duplicates.
    pub listeners: Vec<ListenerRef>,
    /// The hosts it claims, without duplicates.
    pub hosts: Vec<HostPattern>,
    /// The rules; the first that matches decides.
    pub rules: Vec<Rule>,
}

impl Route {
    /// The services its rules send to, copies of requests included, each once.
    pub fn services(&self) -> BTreeSet<&Name> {
        let targets = self.forwards().flat_map(|forward| forward.to.iter().map(|target| &target.service));
        targets.chain(self.forwards().filter_map(|forward| Some(&forward.mirror.as_ref()?.service))).collect()
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
    /// The whole path.
    Exact(String),
    /// An RE2 pattern that must match the whole path.
    Regex(String),
    /// A template of the whole path, in Envoy's syntax, its variables called `v1` and so on: `/users/{v1}/{v2=**}`.
    Template(String),
    /// The start of the path.
    Prefix(String),
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
    /// The targets, at least one, weights adding up to at least 1, services without duplicates.
    pub to: Vec<Target>,
    /// Changes to path and host.
    pub rewrite: Rewrite,
    /// Who gets a copy of requests.
    pub mirror: Option<Mirror>,
    /// Who may use it from pages of other origins; nobody by default. Boxed, for it is large and few rules have it.
    pub cors: Option<Box<Cors>>,
    /// What some requests meet on purpose.
    pub fault: Option<Fault>,
    /// Time for the whole answer, retries included; `None` is the fleet's default.
    pub timeout: Option<Duration>,
    /// Retries, none by default.
    pub retry: Option<Retry>,
    /// The limits that apply, in the order in which Envoy tells the limiter of them, without duplicates.
    pub rate_limits: Vec<Name>,
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

/// When and how a request is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Conditions, sorted, without duplicates, at least one.
    pub on: Vec<RetryCondition>,
    /// How often a request is tried again after the first try, 1 to 10.
    pub attempts: u32,
    /// Time for one try.
    pub per_try_timeout: Option<Duration>,
    /// First and longest time between tries.
    pub backoff: Option<Backoff>,
}

/// Conditions under which a request is tried again, by Envoy's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RetryCondition {
    /// Any 5xx, or no response at all.
    ServerError,
    /// 502, 503 or 504.
    GatewayError,
    /// The connection broke before the response.
    Reset,
    /// No connection could be made.
    ConnectFailure,
    /// The upstream refused the stream.
    RefusedStream,
    /// 409.
    Retriable4xx,
    /// gRPC status CANCELLED.
    GrpcCancelled,
    /// gRPC status DEADLINE_EXCEEDED.
    GrpcDeadlineExceeded,
    /// gRPC status INTERNAL.
    GrpcInternal,
    /// gRPC status RESOURCE_EXHAUSTED.
    GrpcResourceExhausted,
    /// gRPC status UNAVAILABLE.
    GrpcUnavailable,
}

impl RetryCondition {
    /// Every condition.
    pub const ALL: [Self; 11] = [
        Self::ServerError,
        Self::GatewayError,
        Self::Reset,
        Self::ConnectFailure,
        Self::RefusedStream,
        Self::Retriable4xx,
        Self::GrpcCancelled,
        Self::GrpcDeadlineExceeded,
        Self::GrpcInternal,
        Self::GrpcResourceExhausted,
        Self::GrpcUnavailable,
    ];

    /// Envoy's name, which is also the one in a document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServerError => "5xx",
            Self::GatewayError => "gateway-error",
            Self::Reset => "reset",
            Self::ConnectFailure => "connect-failure",
            Self::RefusedStream => "refused-stream",
            Self::Retriable4xx => "retriable-4xx",
            Self::GrpcCancelled => "cancelled",
            Self::GrpcDeadlineExceeded => "deadline-exceeded",
            Self::GrpcInternal => "internal",
            Self::GrpcResourceExhausted => "resource-exhausted",
            Self::GrpcUnavailable => "unavailable",
        }
    }
}

/// Exponential backoff with full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first wait.
    pub base: Duration,
    /// Upper bound of every wait, not below `base`.
    pub max: Duration,
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
