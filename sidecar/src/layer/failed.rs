//! Why there is no response, as the layers tell each other.

use std::fmt;

use super::BoxError;
use crate::policy::classify::{Fault, Outcome};

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The endpoint did not give one.
    #[error("{}", describe(*.fault))]
    Upstream {
        /// In which way.
        fault: Fault,
        /// What the transport says.
        source: Option<BoxError>,
    },
    /// There is no time left.
    #[error("the deadline has passed")]
    Deadline,
    /// This proxy has no room for the request.
    #[error("overloaded: {0}")]
    Overloaded(Overload),
    /// There is no endpoint to send it to.
    #[error("no endpoint to send the request to")]
    NoEndpoint,
}

/// What there is no room in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overload {
    /// As many requests are under way as may be.
    Concurrency,
    /// As many connections are open as may be.
    Connections,
    /// As many wait as may.
    QueueFull,
    /// It waited for too long.
    QueueTimeout,
    /// Others have just waited for too long.
    FailFast,
}

impl Failed {
    /// Without a cause.
    pub fn upstream(fault: Fault) -> Self {
        Self::Upstream { fault, source: None }
    }

    /// What it means for the endpoint, and for another try.
    pub fn outcome(&self) -> Outcome {
        Outcome::Fault(match self {
            Self::Upstream { fault, .. } => *fault,
            Self::Deadline => Fault::Cancelled,
            Self::Overloaded(_) | Self::NoEndpoint => Fault::LocalOverload,
        })
    }

    /// The word for it. A fixed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::NoEndpoint => "no-endpoint",
            Self::Overloaded(_) => "overload",
            Self::Upstream { fault, .. } => match fault {
                Fault::Connect => "connect",
                Fault::Unsent => "unsent",
                Fault::RefusedStream => "refused-stream",
                Fault::Reset => "reset",
                Fault::Malformed => "malformed",
                Fault::TryTimeout => "try-timeout",
                Fault::LocalOverload => "overload",
                Fault::Cancelled => "cancelled",
            },
        }
    }

    /// The HTTP status that the client is told, as Envoy chooses it.
    pub fn status(&self) -> http::StatusCode {
        match self {
            Self::Upstream { fault: Fault::TryTimeout, .. } | Self::Deadline => http::StatusCode::GATEWAY_TIMEOUT,
            Self::Upstream { fault: Fault::Malformed, .. } => http::StatusCode::BAD_GATEWAY,
            Self::Upstream { fault: Fault::Cancelled, .. } => http::StatusCode::BAD_REQUEST,
            Self::Upstream { .. } | Self::Overloaded(_) | Self::NoEndpoint => http::StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

fn describe(fault: Fault) -> &'static str {
    match fault {
        Fault::Connect => "no connection to the endpoint",
        Fault::Unsent => "the connection was closed before the request was sent",
        Fault::RefusedStream => "the endpoint refused the request",
        Fault::Reset => "the endpoint closed the connection or reset the stream",
        Fault::Malformed => "the endpoint's response is no HTTP",
        Fault::TryTimeout => "the endpoint did not answer in time",
        Fault::LocalOverload => "no room for the request",
        Fault::Cancelled => "the request did not come to its end",
    }
}

impl fmt::Display for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Concurrency => "too many requests are under way",
            Self::Connections => "too many connections are open",
            Self::QueueFull => "too many requests wait",
            Self::QueueTimeout => "the request waited for too long",
            Self::FailFast => "requests have just waited for too long",
        })
    }
}
