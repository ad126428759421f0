//! A route as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    AccessSpec, CorsSpec, DurationText, FaultSpec, JwtProviderSpec, JwtSpec, LocalRateLimitSpec, MatchSpec, NameText,
    RetrySpec, RuleAuthorizationSpec, SamplingSpec, SizeText, TcpSpec,
};

/// Hosts on one or more listeners, with exactly one of `rules` about requests and `tcp` about connections.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteSpec {
    /// Where it is served, each as `fleet/listener`.
    #[schema(min_items = 1, max_items = 50, examples(json!(["edge/web"])))]
    pub listeners: Vec<String>,
    /// The hosts it claims: `checkout.example.com`, `*.example.com` for every host below, `*` for every host, or an IP
    /// address (IPv6 in brackets); without a port.
    #[schema(min_items = 1, max_items = 100, examples(json!(["checkout.example.com", "*.example.com"])))]
    pub hosts: Vec<String>,
    /// Who issues tokens, for the rules to name.
    #[schema(max_items = 20)]
    pub jwt_providers: Option<Vec<JwtProviderSpec>>,
    /// The rules; the first that matches decides. On listeners that speak `http` or `https`.
    #[schema(min_items = 1, max_items = 500)]
    pub rules: Option<Vec<RuleSpec>>,
    /// Where connections are carried as they are. On listeners with `tcp`, whose connections name no host, so that `hosts` is `*`; and on
    /// those with `tls-passthrough`, where `hosts` are the names that clients ask for in the handshake (SNI), `*` for whoever asks for none
    /// or for another.
    pub tcp: Option<TcpSpec>,
}

/// One rule: which requests it is for, and what becomes of them. It has exactly one of `to`, `redirect` and `respond`.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleSpec {
    /// Which requests it is for; all if it is not given.
    pub r#match: Option<MatchSpec>,
    /// Forwards to services, by weight.
    #[schema(min_items = 1, max_items = 50)]
    pub to: Option<Vec<TargetSpec>>,
    /// Sends the client elsewhere.
    pub redirect: Option<RedirectSpec>,
    /// Answers at once.
    pub respond: Option<RespondSpec>,
    /// Changes to path and host before forwarding; only with `to`.
    pub rewrite: Option<RewriteSpec>,
    /// Sends copies of requests to another service; only with `to`.
    pub mirror: Option<MirrorSpec>,
    /// Which pages of other origins may use it; only with `to`.
    pub cors: Option<CorsSpec>,
    /// Who may use it, besides what the listener says; only with `to`; everybody if it is not given.
    pub access: Option<AccessSpec>,
    /// What the tokens of requests have to be; only with `to`; nothing is looked at if it is not given.
    pub jwt: Option<JwtSpec>,
    /// What some requests meet on purpose, for a while; only with `to`.
    pub fault: Option<FaultSpec>,
    /// The longest body of a request, 1B to 64MiB; only with `to`, not with `upgrades`. Each request is kept at the proxy until it is
    /// whole; a longer one is answered with 413.
    pub max_request_body: Option<SizeText>,
    /// Which requests are traced where the listener traces some, in place of what that says; only with `to`.
    pub tracing: Option<SamplingSpec>,
    /// Whether answers are compressed, where the listener has `compression`; only with `to`.
    #[schema(default = true)]
    pub compress: Option<bool>,
    /// The time for the whole answer, retries included, 1ms to 24h; only with `to`; the fleet's default if it is not given.
    pub timeout: Option<DurationText>,
    /// The time for which request and answer may stand still, 1ms to 24h; only with `to`. If it is not given: `streamIdle` of the
    /// listener, or `timeout` where that is above 5m.
    pub idle_timeout: Option<DurationText>,
    /// The time for request and answer together, however much of them moves, 1ms to 24h; only with `to`; no limit if it is not given.
    pub max_stream_duration: Option<DurationText>,
    /// What the protocol of requests may be changed to; only with `to`; nothing if it is not given.
    #[schema(min_items = 1, max_items = 1)]
    pub upgrades: Option<Vec<UpgradeSpec>>,
    /// Who ends the tunnels that CONNECT asks for; only with `match.connect`.
    #[schema(default = "terminate")]
    pub connect: Option<ConnectSpec>,
    /// When and how a request is tried again; only with `to`; never if it is not given.
    pub retry: Option<RetrySpec>,
    /// How many requests each proxy admits by itself; only with `to`.
    pub local_rate_limit: Option<LocalRateLimitSpec>,
    /// Names of the limits that apply; only with `to`. A request must be within all of them.
    #[schema(max_items = 10)]
    pub rate_limits: Option<Vec<NameText>>,
    /// What is said to whoever is asked whether requests may pass, where the listener has `externalAuthorization`.
    pub external_authorization: Option<RuleAuthorizationSpec>,
    /// Changes to headers.
    pub headers: Option<HeadersSpec>,
}

/// One target and its share.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetSpec {
    /// The service.
    pub service: NameText,
    /// Labels of the endpoints that are meant, by names of the service's `subsets`; all endpoints if it is not given.
    pub subset: Option<BTreeMap<String, String>>,
    /// The share relative to the other targets; 0 sends nothing.
    #[schema(maximum = 1000000, default = 1)]
    pub weight: Option<u32>,
}

/// Copies of requests. Answers to them are dropped, and nobody waits for them.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorSpec {
    /// The service that gets them; the host that it sees ends in `-shadow`.
    pub service: NameText,
    /// The share of requests that are copied.
    #[schema(minimum = 1, maximum = 100, default = 100)]
    pub percent: Option<u32>,
}

/// Changes to path and host before forwarding: at least one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RewriteSpec {
    /// Replaces what the path condition matched (`prefix`, `pathPrefix` or `exact`); not with `template` or `regex`.
    #[schema(examples("/"))]
    pub prefix: Option<String>,
    /// The new path, with the variables of the path condition `template`; not with `prefix` or `regex`.
    #[schema(examples("/accounts/{id}"))]
    pub template: Option<String>,
    /// Replaces each part of the path that a pattern matches; not with `prefix` or `template`.
    pub regex: Option<RegexRewriteSpec>,
    /// Replaces the host.
    #[schema(examples("checkout.internal"))]
    pub host: Option<String>,
}

/// What is looked for in the path, without the query, and what stands in its place.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegexRewriteSpec {
    /// A regular expression (RE2) for a part of the path.
    #[schema(examples("^/v[0-9]+/(.*)"))]
    pub pattern: String,
    /// What stands in its place; `\1` to `\9` are what its groups have matched, `\0` is all of it.
    #[schema(examples("/\\1"))]
    pub substitution: String,
}

/// What the protocol of a request may be changed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpgradeSpec {
    /// WebSocket.
    Websocket,
}

/// Who ends a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConnectSpec {
    /// The proxy, which sends what comes out of the tunnel to the service, over TCP. Whom the client has asked for does not matter.
    Terminate,
    /// The service, a proxy itself, which gets the CONNECT and connects to whom it likes.
    Forward,
}

/// Where a client is sent: at least one of `scheme`, `host`, `port`, `path` and `prefix`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedirectSpec {
    /// The new scheme.
    pub scheme: Option<RedirectSchemeSpec>,
    /// The new host.
    pub host: Option<String>,
    /// The new port.
    #[schema(minimum = 1, maximum = 65535)]
    pub port: Option<u16>,
    /// The new path; not with `prefix`.
    pub path: Option<String>,
    /// Replaces what the path condition matched (`prefix`, `pathPrefix` or `exact`); not with `path`.
    pub prefix: Option<String>,
    /// The status: 301, 302, 303, 307 or 308.
    #[schema(minimum = 301, maximum = 308, default = 301)]
    pub status: Option<u16>,
    /// Whether the query is dropped.
    #[schema(default = false)]
    pub strip_query: Option<bool>,
}

/// The scheme of a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RedirectSchemeSpec {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

/// A fixed answer.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RespondSpec {
    /// The status.
    #[schema(minimum = 200, maximum = 599)]
    pub status: u16,
    /// The body, at most 4096 bytes; empty if it is not given.
    pub body: Option<String>,
}

/// Changes to headers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadersSpec {
    /// Changes to the request before it is forwarded.
    pub request: Option<HeaderChangesSpec>,
    /// Changes to the response.
    pub response: Option<HeaderChangesSpec>,
}

/// Changes to headers: removals first, then `set`, then `add`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderChangesSpec {
    /// Replaces a header or adds it.
    #[schema(max_items = 50)]
    pub set: Option<Vec<HeaderSpec>>,
    /// Adds a header beside those there are.
    #[schema(max_items = 50)]
    pub add: Option<Vec<HeaderSpec>>,
    /// Names of headers to remove.
    #[schema(max_items = 50)]
    pub remove: Option<Vec<String>>,
}

/// A header and its value.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderSpec {
    /// The name.
    pub name: String,
    /// The value, taken literally.
    pub value: String,
}
