//! What is counted, how much of it is admitted, and what happens beyond.
//!
//! A limit has two readers. The proxies need to know what to count by (`key`, `debt`, `hits`, `enforcement`); how much is
//! admitted is the limiter's business alone, so that changing it touches no proxy ([`RateLimit::counts_as`]).

use std::time::Duration;

use super::Name;

/// A limit, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// The name; what is counted under it is shared by all routes of a fleet that use it.
    pub name: Name,
    /// By what it is counted: each combination of values by itself. Keys of the parts differ; none: everything together.
    pub key: Vec<KeyPart>,
    /// How much is admitted.
    pub limit: Limit,
    /// What happens while Redis is away.
    pub when_redis_is_down: WhenRedisIsDown,
    /// How a decision is made, and what it does.
    pub mode: Mode,
    /// What a request counts.
    pub hits: Hits,
    /// The body of a refusal, at most 4096 bytes; may be empty.
    pub denied_body: String,
    /// Who refuses.
    pub enforcement: Enforcement,
}

impl RateLimit {
    /// Whether a proxy asks about it in the same way as about `other`.
    pub fn counts_as(&self, other: &Self) -> bool {
        self.name == other.name
            && self.key == other.key
            && self.hits == other.hits
            && self.mode.debt == other.mode.debt
            && self.enforcement == other.enforcement
    }
}

/// Something about a request that it is counted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// The value of a header (name in lower case; the first value, if there are several).
    Header {
        /// Its name.
        name: String,
        /// What becomes of a request without it.
        absent: Absent,
    },
    /// The value of a query parameter.
    Query {
        /// Its name.
        name: String,
        /// What becomes of a request without it.
        absent: Absent,
    },
    /// The address of the client.
    RemoteAddress,
    /// The network of the client.
    Network {
        /// So many bits of an IPv4 address, 0 to 32.
        ipv4: u8,
        /// So many bits of an IPv6 address, 0 to 128.
        ipv6: u8,
    },
    /// The path, without the query.
    Path,
    /// The method.
    Method,
    /// Always the same: sets apart what would otherwise be counted together.
    Constant {
        /// What it is called.
        key: String,
        /// What it is.
        value: String,
    },
}

impl KeyPart {
    /// The key of its entry in the descriptors that a proxy sends.
    pub fn key(&self) -> &str {
        match self {
            Self::Header { name, .. } | Self::Query { name, .. } => name,
            Self::RemoteAddress => "remote_address",
            Self::Network { .. } => "masked_remote_address",
            Self::Path => "path",
            Self::Method => "method",
            Self::Constant { key, .. } => key,
        }
    }
}

/// What becomes of a request without the header or parameter that it would be counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Absent {
    /// All of them are counted together, so that leaving it out is no way around the limit.
    #[default]
    Together,
    /// The limit does not apply.
    Skip,
}

/// How much is admitted. A value can be counted: a full bucket is refilled within ten years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// So many; zero refuses everything.
    pub requests: u32,
    /// In so long, 1 ms to 366 days.
    pub per: Duration,
    /// So many at once, at least 1; none: as many as `requests`. None for a fixed window.
    pub burst: Option<u32>,
    /// How it is counted.
    pub algorithm: Algorithm,
}

/// How requests are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// Smoothly, with a burst.
    #[default]
    TokenBucket,
    /// In windows that are aligned to the clock.
    FixedWindow,
}

impl Algorithm {
    /// The name in a document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TokenBucket => "token-bucket",
            Self::FixedWindow => "fixed-window",
        }
    }
}

/// What happens while Redis is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenRedisIsDown {
    /// Each limiter counts by itself, its share of the limit.
    #[default]
    Local,
    /// Requests go on.
    Allow,
    /// Requests are refused.
    Deny,
}

/// How a decision is made, and what it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    /// Decide and count, but admit.
    pub shadow: bool,
    /// Decide every request in Redis, never from a share that was taken ahead.
    pub strict: bool,
    /// Charge at the end of a request, below zero if need be; a request is refused while there is debt. Never with
    /// [`Hits::Number`].
    pub debt: bool,
}

/// What a request counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hits {
    /// So many, 1 to 1,000,000,000.
    Number(u32),
    /// The bytes of its body.
    BytesReceived,
    /// The bytes of the body of its response; only with debt.
    BytesSent,
    /// What the service says in a header (name in lower case) of its response; only with debt.
    ResponseHeader(String),
}

impl Default for Hits {
    fn default() -> Self {
        Self::Number(1)
    }
}

/// Who refuses what is beyond a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// The limiter, asked for each request.
    #[default]
    Service,
    /// The proxy, within a share of the limit that the limiter assigns to it.
    Quota,
}
