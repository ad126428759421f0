//! Whether a request that failed is tried again, and when.
//!
//! The conditions are Envoy's (`x-envoy-retry-on`, `x-envoy-retry-grpc-on`), under Envoy's names. Beside them, and unlike Envoy:
//! - What may have had an effect is not repeated: a request that is not idempotent is tried again only if no application saw
//!   it, or if the route says that its requests may be repeated.
//! - A request that was never written to its connection, since the server had closed it, is always tried again, whatever the
//!   conditions and the budget say: that race is nobody's failure. A few times, so that it ends.
//! - A retry is paid from the cluster's budget before the wait for it, and it is not begun if the deadline comes first.
//!
//! Once headers have reached the client, there is nothing to decide any more.

use std::time::Duration;

use super::{
    backoff::FullJitter,
    classify::{Fault, GrpcStatus, Outcome},
    pushback::Pushback,
    retry_budget::RetryBudget,
};

/// A set of conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions(u16);

macro_rules! conditions {
    ($($name:ident = $bit:literal, $text:literal, $doc:literal;)*) => {
        impl Conditions {
            $(#[doc = $doc] pub const $name: Self = Self(1 << $bit);)*
            const NAMES: &[(&str, Self)] = &[$(($text, Self::$name)),*];
        }
    };
}

conditions! {
    SERVER_ERROR = 0, "5xx", "Any 5xx, or no response at all.";
    GATEWAY_ERROR = 1, "gateway-error", "502, 503, 504, or no response at all.";
    RESET = 2, "reset", "No response at all.";
    RESET_BEFORE_REQUEST = 3, "reset-before-request", "No response, and the request was not sent.";
    CONNECT_FAILURE = 4, "connect-failure", "No connection.";
    REFUSED_STREAM = 5, "refused-stream", "`REFUSED_STREAM`.";
    RETRIABLE_4XX = 6, "retriable-4xx", "409.";
    RETRIABLE_STATUS_CODES = 7, "retriable-status-codes", "One of the statuses that the route lists.";
    RETRIABLE_HEADERS = 8, "retriable-headers", "A header that the route lists.";
    ENVOY_RATELIMITED = 9, "envoy-ratelimited", "`x-envoy-ratelimited`.";
    CANCELLED = 10, "cancelled", "gRPC CANCELLED.";
    DEADLINE_EXCEEDED = 11, "deadline-exceeded", "gRPC DEADLINE_EXCEEDED.";
    INTERNAL = 12, "internal", "gRPC INTERNAL.";
    RESOURCE_EXHAUSTED = 13, "resource-exhausted", "gRPC RESOURCE_EXHAUSTED.";
    UNAVAILABLE = 14, "unavailable", "gRPC UNAVAILABLE.";
}

impl Conditions {
    /// Reads a list such as `5xx,reset`. Beside the conditions, the names that are none.
    pub fn parse(list: &str) -> (Self, Vec<&str>) {
        let mut conditions = Self::default();
        let mut unknown = Vec::new();
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match Self::NAMES.iter().find(|(known, _)| *known == name) {
                Some((_, condition)) => conditions = conditions.with(*condition),
                None => unknown.push(name),
            }
        }
        (conditions, unknown)
    }

    /// These and `others`.
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    fn has(self, any_of: Self) -> bool {
        self.0 & any_of.0 != 0
    }
}

/// What a route says of retries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetryPolicy {
    /// When to try again; never if empty.
    pub on: Conditions,
    /// Tries after the first; Envoy's `num_retries`, 1 if it says nothing.
    pub retries: u32,
    /// For [`Conditions::RETRIABLE_STATUS_CODES`].
    pub status_codes: Vec<u16>,
    /// The waits between tries.
    pub backoff: FullJitter,
    /// How long one try may take.
    pub per_try: Option<Duration>,
    /// Whether every request of the route may be repeated, whatever its method. gRPC calls are all POST, so their retries need it.
    pub repeatable: bool,
}

/// A try that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// Tries so far, this one included.
    pub tries: u32,
    /// Whether the method is idempotent (RFC 9110, 9.2.2).
    pub idempotent: bool,
    /// Whether the whole body can be sent again.
    pub replayable: bool,
    /// Whether headers have reached the client.
    pub headers_sent: bool,
    /// What is left of the deadline.
    pub remaining: Option<Duration>,
    /// When the server would have the request again.
    pub pushback: Pushback,
    /// Whether the response has a header that the route lists.
    pub retriable_header: bool,
    /// Whether it has `x-envoy-ratelimited`.
    pub ratelimited: bool,
    /// Whether it has `x-envoy-overloaded`: the proxy over there asks for no more.
    pub overloaded: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Try again after this time, preferably another host.
    Retry(Duration),
    /// Do not.
    Stop(Stop),
}

/// Why a request is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// No condition says so; among others, since all is well.
    NoCondition,
    /// Headers have reached the client.
    HeadersSent,
    /// All tries were made.
    TriesSpent,
    /// It may have had an effect.
    NotIdempotent,
    /// Its body is not kept.
    BodyNotKept,
    /// The server asks not to be asked again.
    PushedBack,
    /// The deadline comes first.
    Deadline,
    /// The budget is spent.
    Budget,
}

/// How often a request is sent again at once that never was sent.
const MOST_UNSENT: u32 = 3;

impl RetryPolicy {
    /// Decides, and pays from `budget` if the answer is to retry.
    pub fn decide(&self, ended: &Ended, budget: &mut RetryBudget, now: Duration, chance: f64) -> Decision {
        let unsent = ended.outcome == Outcome::Fault(Fault::Unsent) && ended.tries <= MOST_UNSENT;
        if let Some(stop) = self.forbids(ended, unsent) {
            return Decision::Stop(stop);
        }
        let wait = match ended.pushback {
            Pushback::Never => return Decision::Stop(Stop::PushedBack),
            _ if unsent => Duration::ZERO,
            // The jitter stays, so that those who were told the same time do not come at the same time.
            pushback => pushback.after().unwrap_or_default().saturating_add(self.backoff.wait(ended.tries, chance)),
        };
        if ended.remaining.is_some_and(|remaining| wait >= remaining) {
            Decision::Stop(Stop::Deadline)
        } else if unsent || budget.withdraw(now) {
            Decision::Retry(wait)
        } else {
            Decision::Stop(Stop::Budget)
        }
    }

    fn forbids(&self, ended: &Ended, unsent: bool) -> Option<Stop> {
        if ended.headers_sent {
            Some(Stop::HeadersSent)
        } else if !unsent && !self.matches(ended) {
            Some(Stop::NoCondition)
        } else if !unsent && ended.tries > self.retries {
            Some(Stop::TriesSpent)
        } else if !(ended.idempotent || self.repeatable || ended.outcome.never_seen()) {
            Some(Stop::NotIdempotent)
        } else if !ended.replayable {
            Some(Stop::BodyNotKept)
        } else {
            None
        }
    }

    /// Whether a condition is met.
    fn matches(&self, ended: &Ended) -> bool {
        match ended.outcome {
            Outcome::Fault(fault) => self.on.has(of_fault(fault)),
            Outcome::Response { .. } if ended.overloaded => false,
            Outcome::Response { .. } if ended.ratelimited => self.on.has(Conditions::ENVOY_RATELIMITED),
            Outcome::Response { status, grpc } => {
                let listed = self.on.has(Conditions::RETRIABLE_STATUS_CODES) && self.status_codes.contains(&status);
                let header = self.on.has(Conditions::RETRIABLE_HEADERS) && ended.retriable_header;
                listed || header || self.on.has(of_status(status).with(grpc.map(of_grpc).unwrap_or_default()))
            }
        }
    }
}

/// Which conditions the absence of a response meets.
fn of_fault(fault: Fault) -> Conditions {
    const NO_RESPONSE: Conditions = Conditions::SERVER_ERROR.with(Conditions::GATEWAY_ERROR).with(Conditions::RESET);
    match fault {
        Fault::Connect => NO_RESPONSE.with(Conditions::CONNECT_FAILURE).with(Conditions::RESET_BEFORE_REQUEST),
        Fault::Unsent => NO_RESPONSE.with(Conditions::RESET_BEFORE_REQUEST),
        Fault::RefusedStream => NO_RESPONSE.with(Conditions::REFUSED_STREAM),
        Fault::Reset | Fault::Malformed | Fault::TryTimeout => NO_RESPONSE,
        // More of the same would only make it worse; and nobody waits for it any more.
        Fault::LocalOverload | Fault::Cancelled => Conditions::default(),
    }
}

fn of_status(status: u16) -> Conditions {
    match status {
        502..=504 => Conditions::SERVER_ERROR.with(Conditions::GATEWAY_ERROR),
        500..=599 => Conditions::SERVER_ERROR,
        409 => Conditions::RETRIABLE_4XX,
        _ => Conditions::default(),
    }
}

fn of_grpc(status: GrpcStatus) -> Conditions {
    match status {
        GrpcStatus::CANCELLED => Conditions::CANCELLED,
        GrpcStatus::DEADLINE_EXCEEDED => Conditions::DEADLINE_EXCEEDED,
        GrpcStatus::INTERNAL => Conditions::INTERNAL,
        GrpcStatus::RESOURCE_EXHAUSTED => Conditions::RESOURCE_EXHAUSTED,
        GrpcStatus::UNAVAILABLE => Conditions::UNAVAILABLE,
        _ => Conditions::default(),
    }
}

#[cfg(test)]
mod tests;
