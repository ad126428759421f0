//! Why there is no answer from the other side, and what the caller is told instead.
//!
//! Every answer that the sidecar makes up itself has the header `x-chancery-reason`, so that nobody takes it for the
//! service's. A gRPC call is answered in gRPC: HTTP status 200, and the status as the protocol has it.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::body::{self, Body};
use crate::layer::Failed;

/// The header that says that the sidecar answered, and why.
pub const REASON: HeaderName = HeaderName::from_static("x-chancery-reason");

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The request cannot be passed on.
    #[error("{0}")]
    BadRequest(&'static str),
    /// No configuration yet, or none for this host and path.
    #[error("no route for this host and path")]
    NoRoute,
    /// The route names a cluster that is not there.
    #[error("no cluster {0:?}")]
    NoCluster(Arc<str>),
    /// The caller sends more than it may.
    #[error("the caller sends more than it may")]
    RateLimited,
    /// The caller may not.
    #[error("the caller may not call this service")]
    Forbidden,
    /// The cluster cannot be asked for this protocol.
    #[error("the cluster speaks HTTP/2, which knows no upgrade")]
    NoUpgrade,
    /// What came of it further in.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Failure {
    /// The word for it: in the header, and as the label of metrics. A fixed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad-request",
            Self::NoRoute => "no-route",
            Self::NoCluster(_) => "no-cluster",
            Self::RateLimited => "rate-limited",
            Self::Forbidden => "forbidden",
            Self::NoUpgrade => "no-upgrade",
            Self::Failed(failed) => failed.reason(),
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::NoUpgrade => StatusCode::NOT_IMPLEMENTED,
            Self::NoCluster(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed(failed) => failed.status(),
        }
    }

    /// As gRPC's `http-grpc-status-mapping.md` would have it, but with DEADLINE_EXCEEDED where it is known to be one.
    fn grpc_status(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "13",
            Self::NoRoute | Self::NoUpgrade => "12",
            Self::Forbidden => "7",
            Self::RateLimited => "8",
            Self::NoCluster(_) => "14",
            Self::Failed(failed) => match failed.status() {
                StatusCode::GATEWAY_TIMEOUT => "4",
                StatusCode::BAD_GATEWAY => "13",
                StatusCode::BAD_REQUEST => "1",
                _ => "14",
            },
        }
    }

    /// The answer to a request; `grpc`: it was a gRPC call.
    pub fn answer(&self, grpc: bool) -> Response<Body> {
        let mut response = if grpc {
            let mut response = Response::new(body::empty());
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from_static(self.grpc_status()));
            // The texts here are ASCII; what is not, a name of a cluster, is left out.
            if let Ok(message) = HeaderValue::try_from(self.to_string().replace('%', "%25")) {
                headers.insert("grpc-message", message);
            }
            response
        } else {
            let mut response = Response::new(body::full(format!("{self}\n")));
            *response.status_mut() = self.status();
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, plain);
            if self.status() == StatusCode::BAD_REQUEST {
                // Whoever frames one request in an unclear way, or does not end it, is not asked for another on this connection.
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response
        };
        response.headers_mut().insert(REASON, HeaderValue::from_static(self.reason()));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_call_is_answered_in_grpc() {
        let answer = Failure::from(Failed::Deadline).answer(true);
        assert_eq!(
            (answer.status(), &answer.headers()["grpc-status"]),
            (StatusCode::OK, &HeaderValue::from_static("4"))
        );
        assert_eq!(answer.headers()[REASON], "deadline");
        let plain = Failure::from(Failed::NoEndpoint).answer(false);
        assert_eq!(plain.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(plain.headers()[REASON], "no-endpoint");
        let name = Failure::NoCluster("\u{7}%".into()).answer(true);
        assert_eq!(name.headers()["grpc-status"], "14");
    }
}
