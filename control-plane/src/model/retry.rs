//! When and how a request is tried again.

use std::time::Duration;

use super::route::NamedMatch;

/// When and how a request is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Conditions, sorted, without duplicates; at least one, or there are `statuses` or `headers`.
    pub on: Vec<RetryCondition>,
    /// Statuses of an answer after which it is tried again, sorted, without duplicates, each 400 to 599.
    pub statuses: Vec<u16>,
    /// Conditions on the headers of an answer, one of which must hold for it to be tried again.
    pub headers: Vec<NamedMatch>,
    /// How often a request is tried again after the first try, 1 to 10.
    pub attempts: u32,
    /// Time for one try.
    pub per_try_timeout: Option<Duration>,
    /// Time for which one try may stand still.
    pub per_try_idle_timeout: Option<Duration>,
    /// Whether endpoints that were not tried yet come first.
    pub another_host: bool,
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
