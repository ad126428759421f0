//! A limit as it is written.

use serde::Deserialize;
use utoipa::ToSchema;

use super::DurationText;

/// What is counted, how much of it is admitted, and what happens beyond. Rules of routes name it in `rateLimits`; all
/// that do so on one fleet count together.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitSpec {
    /// By what is counted: each combination of values by itself. Everything together if it is not given.
    #[schema(max_items = 10)]
    pub key: Option<Vec<KeyPartSpec>>,
    /// How much is admitted.
    pub limit: LimitSpec,
    /// How it is counted.
    #[schema(default = "token-bucket")]
    pub algorithm: Option<AlgorithmSpec>,
    /// What happens while Redis is away.
    #[schema(default = "local")]
    pub when_redis_is_down: Option<WhenRedisIsDownSpec>,
    /// Whether it is decided and counted, but never refused.
    #[schema(default = false)]
    pub shadow: Option<bool>,
    /// Whether every request is decided in Redis, never from a share that a limiter took ahead.
    #[schema(default = false)]
    pub strict: Option<bool>,
    /// Whether requests are charged when they end, for what is known only then. A request is refused while more was
    /// charged than is admitted. Goes with `hits` that are known at the end.
    #[schema(default = false)]
    pub debt: Option<bool>,
    /// What a request counts; 1 if it is not given.
    pub hits: Option<HitsSpec>,
    /// What a client is told that is refused.
    pub denied: Option<DeniedSpec>,
    /// Who refuses.
    #[schema(default = "service")]
    pub enforcement: Option<EnforcementSpec>,
}

/// Something about a request: exactly one of `header`, `query`, `remoteAddress`, `network`, `path`, `method` and
/// `constant`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyPartSpec {
    /// The value of this header.
    #[schema(examples("x-api-key"))]
    pub header: Option<String>,
    /// The value of this query parameter.
    #[schema(examples("account"))]
    pub query: Option<String>,
    /// What becomes of requests without the header or parameter; only with these.
    #[schema(default = "together")]
    pub absent: Option<AbsentSpec>,
    /// `true`: the IP address of the client.
    pub remote_address: Option<bool>,
    /// The network of the client.
    pub network: Option<NetworkSpec>,
    /// `true`: the path, without the query.
    pub path: Option<bool>,
    /// `true`: the method.
    pub method: Option<bool>,
    /// Always the same.
    pub constant: Option<ConstantSpec>,
}

/// What becomes of requests without the header or parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AbsentSpec {
    /// All of them are counted together.
    Together,
    /// The limit does not apply to them.
    Skip,
}

/// The network of a client: the first bits of its address.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkSpec {
    /// So many bits of an IPv4 address.
    #[schema(maximum = 32, default = 32)]
    pub ipv4: Option<u8>,
    /// So many bits of an IPv6 address.
    #[schema(maximum = 128, default = 64)]
    pub ipv6: Option<u8>,
}

/// An entry that is always the same.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConstantSpec {
    /// What it is called.
    pub key: String,
    /// What it is.
    pub value: String,
}

/// How much is admitted.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitSpec {
    /// So many; 0 refuses everything.
    #[schema(maximum = 4294967295_u32)]
    pub requests: u32,
    /// In so long, 1ms to 8784h.
    pub per: DurationText,
    /// So many at once; as many as `requests` if it is not given. Only with `token-bucket`.
    #[schema(minimum = 1, maximum = 4294967295_u32)]
    pub burst: Option<u32>,
}

/// How requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AlgorithmSpec {
    /// Smoothly, with a burst.
    TokenBucket,
    /// In windows that are aligned to the clock.
    FixedWindow,
}

/// What happens while Redis is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenRedisIsDownSpec {
    /// Each limiter counts by itself, its share of the limit.
    Local,
    /// Requests go on.
    Allow,
    /// Requests are refused.
    Deny,
}

/// What a request counts: exactly one of these. What is known only at the end of a request needs `debt: true`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HitsSpec {
    /// So many.
    #[schema(minimum = 1, maximum = 1000000000)]
    pub number: Option<u32>,
    /// `true`: the bytes of its body.
    pub bytes_received: Option<bool>,
    /// `true`: the bytes of the body of the response.
    pub bytes_sent: Option<bool>,
    /// The number in this header of the response; nothing without it.
    #[schema(examples("x-tokens-used"))]
    pub response_header: Option<String>,
}

/// What a client is told that is refused.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeniedSpec {
    /// The body of the answer, at most 4096 bytes; empty if it is not given.
    pub body: Option<String>,
}

/// Who refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EnforcementSpec {
    /// The limiter, which is asked for each request.
    Service,
    /// The proxy itself, within a share of the limit that the limiter assigns to it.
    Quota,
}
