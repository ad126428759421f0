//! How requests come in: gRPC for Envoy, HTTP for people.
//!
//! - [`worker`]: threads, each with its own runtime, socket and limiter.
//! - [`connection`]: a connection, plain or TLS, and who is at its other end.
//! - [`wire`]: `ShouldRateLimit` on the `h2` crate, the short way that nearly every request goes.
//! - [`grpc`]: the same and everything else as tonic services: health, reflection.
//! - [`quota`]: limits that Envoy enforces itself.
//! - [`answer`]: a verdict as Envoy's message.
//! - [`caller`]: who asks.
//! - [`http`]: the same over HTTP and JSON, and questions about the rules.
//! - [`meters`]: what is measured.

pub mod answer;
pub mod caller;
pub mod connection;
pub mod grpc;
pub mod http;
pub mod meters;
pub mod quota;
pub mod wire;
pub mod worker;

use std::sync::Arc;

use tonic::{Code, Status};

use self::{answer::Answers, meters::Meters, quota::QuotaService, wire::request::InvalidRequest};
use crate::decide::{Limiter, Refused};

/// What a call needs, whichever way it comes. One per worker.
#[derive(Clone)]
pub struct Service {
    /// Decides.
    pub limiter: Limiter,
    /// Turns verdicts into answers.
    pub answers: Answers,
    /// Assigns quotas.
    pub quota: QuotaService,
    /// Counts.
    pub meters: Arc<Meters>,
}

/// The gRPC status of a request that cannot be decided. What is wrong with it is the caller's to know.
pub fn refusal(refused: &Refused) -> Status {
    let code = match refused {
        Refused::NoDomain | Refused::NoDescriptors | Refused::TooMany { .. } | Refused::TooLong { .. } => {
            Code::InvalidArgument
        }
        Refused::NotForCaller { .. } => Code::PermissionDenied,
    };
    Status::new(code, refused.to_string())
}

/// The gRPC status of a request that says what cannot be. (One that is no message at all does not come as far as this.)
pub fn invalid(error: InvalidRequest) -> Status {
    Status::invalid_argument(error.to_string())
}

#[cfg(test)]
mod tests;
