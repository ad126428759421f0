//! A service of the user's own that is asked whether requests may pass (external authorization). Pure.

use std::{collections::BTreeMap, time::Duration};

use super::{Name, fleet::OnFailure};

/// Who is asked about the requests of a listener, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Authorizer {
    /// The service.
    pub service: Name,
    /// What it speaks.
    pub protocol: AuthorizerProtocol,
    /// How long a request waits for its answer.
    pub timeout: Duration,
    /// What becomes of a request that no answer came for.
    pub on_failure: OnFailure,
    /// What such a request is answered with, if it is denied.
    pub status_on_error: u16,
    /// How much of the body it is told; nothing by default.
    pub body: Option<ToldBody>,
    /// The headers of requests that it is told, in lower case: over gRPC all by default; over HTTP a few always.
    pub headers: Option<Vec<String>>,
}

/// What an authorizer speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorizerProtocol {
    /// `envoy.service.auth.v3.Authorization`. It says itself what is changed about the headers.
    Grpc,
    /// HTTP: 200 lets the request pass, anything else is what the client gets.
    Http {
        /// Stands before the path of the request; may be empty.
        path_prefix: String,
        /// Headers of its answer that the service is told, in lower case.
        to_service: Vec<String>,
        /// Headers of its answer that the client is told, in lower case; those of a refusal, all by default.
        to_client: Option<Vec<String>>,
    },
}

/// How much of the body of a request an authorizer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldBody {
    /// So many bytes at most, at least 1.
    pub max_size: u32,
    /// Whether the start of a longer one will do; otherwise the request is answered with 413.
    pub partial: bool,
}

/// What a rule says to the authorizer of its listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleAuthorization {
    /// It is not asked.
    Off,
    /// It is told this of the rule; over gRPC only.
    Context(BTreeMap<String, String>),
}
