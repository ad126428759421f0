//! Every way in which a request fails, and the problem each becomes.
//!
//! Inside, the whole chain of causes is logged; outside, there is what the caller can act on.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chancery_runtime::telemetry;

use super::{guard, problem::ProblemDetails, text::TextError, view::ResourceView};
use crate::{
    access::{Missing, changes::Refusal},
    commit::CommitError,
    enrolment::{self, EnrolmentError},
    model::{Entry, Key, Problem},
    oidc,
    replica::ReplicaError,
    store::StoreError,
    tokens::{Refused, TokenError},
    verdict::NoVerdict,
};

/// Seconds after which a caller may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error("the request carries no bearer token")]
    NoToken,
    #[error(transparent)]
    Token(Refused),
    #[error(transparent)]
    Person(oidc::Refused),
    #[error("this control plane has no sign-in for people; ask whoever operates it for a token, or to set an issuer")]
    NoSignIn,
    #[error("{0}")]
    NoAuthority(String),
    #[error(transparent)]
    Enrolment(enrolment::Refused),
    #[error("this is not allowed")]
    Forbidden(Vec<Refusal>),
    /// A query, header or path that cannot be read.
    #[error("{0}")]
    Malformed(String),
    #[error("the body cannot be read")]
    Text(#[source] TextError),
    #[error("the body did not arrive whole")]
    Body(#[source] axum::Error),
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the body is {given}, supported here: {supported}")]
    MediaType { given: String, supported: &'static str },
    #[error("the request has {} problems", .0.len())]
    Problems(Vec<Problem>),
    #[error("there is no {0}")]
    NotFound(String),
    #[error("{0} exists already")]
    Exists(Key),
    #[error("the change is based on revision {expected}")]
    Conflict { key: Option<Key>, expected: u64, current: Option<Arc<Entry>>, head: u64 },
    /// A token that cannot be made beside the others.
    #[error("{0}")]
    TokenConflict(String),
    /// A revision that cannot be reverted any more.
    #[error("{0}")]
    Superseded(String),
    #[error("proxy {0:?} is not connected, so nobody knows what it has; GET /api/v1/proxies/{0} says what it had last")]
    NotConnected(String),
    #[error("proxy {proxy:?} is connected to replica {replica:?}; ask that one")]
    OtherReplica { proxy: String, replica: String },
    #[error("idempotency key {0:?} was used for another request; a key is for one")]
    OtherRequest(String),
    #[error("idempotency key {0:?} was used while this request was under way")]
    MadeBefore(String),
    #[error("too many requests ({what}); this replica takes the next in {wait} s", wait = guard::seconds(*wait))]
    TooManyRequests { what: &'static str, wait: Duration },
    #[error("the path and query are longer than {limit} bytes")]
    LongUri { limit: usize },
    #[error("the headers are larger than {limit} bytes")]
    LargeHeaders { limit: usize },
    #[error("the body did not arrive within {limit:?}")]
    SlowBody { limit: Duration },
    #[error("too many follow the events already; stop one, or try again later")]
    TooManyListeners,
    #[error("the request took too long")]
    Timeout,
    #[error("cannot use the store")]
    Store(#[source] StoreError),
    #[error("this replica is behind")]
    Behind(#[source] ReplicaError),
    #[error(transparent)]
    NoVerdict(NoVerdict),
    #[error("{0} failed")]
    Internal(&'static str, #[source] Box<dyn Error + Send + Sync>),
}

impl From<CommitError> for ApiError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Problems(problems) => Self::Problems(problems),
            CommitError::Conflict { key, expected, current, head } => Self::Conflict { key, expected, current, head },
            CommitError::Forbidden(refused) => Self::Forbidden(refused),
            CommitError::NotFound(key) => Self::NotFound(key.to_string()),
            CommitError::Exists(key) => Self::Exists(key),
            CommitError::MadeBefore(key) => Self::MadeBefore(key),
            CommitError::Store(error) => Self::Store(error),
            CommitError::NoVerdict(error) => Self::NoVerdict(error),
            CommitError::Behind(error) => Self::Behind(error),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Missing> for ApiError {
    fn from(missing: Missing) -> Self {
        Self::Forbidden(vec![Refusal { key: None, missing }])
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Taken(_) | TokenError::TooMany => Self::TokenConflict(error.to_string()),
            TokenError::Unknown(id) => Self::NotFound(format!("token {id:?}")),
            TokenError::Grants(source) => Self::Internal("making a token", source.into()),
            TokenError::Store(error) => Self::Store(error),
        }
    }
}

impl From<EnrolmentError> for ApiError {
    fn from(error: EnrolmentError) -> Self {
        match error {
            EnrolmentError::TooMany => Self::TokenConflict(error.to_string()),
            EnrolmentError::NotFound(id) => Self::NotFound(format!("enrolment {id:?}")),
            EnrolmentError::NoAuthority => Self::NoAuthority(error.to_string()),
            EnrolmentError::Refused(refused) => Self::Enrolment(refused),
            EnrolmentError::Authority(source) => Self::Internal("issuing a certificate", source.into()),
            EnrolmentError::Store(error) => Self::Store(error),
        }
    }
}

impl From<TextError> for ApiError {
    fn from(error: TextError) -> Self {
        Self::Text(error)
    }
}

impl ApiError {
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Token(Refused::Unsure) => (StatusCode::SERVICE_UNAVAILABLE, "tokens-unknown"),
            Self::Person(oidc::Refused::NoKeys) => (StatusCode::SERVICE_UNAVAILABLE, "issuer-unavailable"),
            Self::Person(oidc::Refused::NoGroups { .. } | oidc::Refused::NothingGranted { .. }) => {
                (StatusCode::FORBIDDEN, "forbidden")
            }
            Self::NoSignIn => (StatusCode::NOT_FOUND, "no-sign-in"),
            Self::NoAuthority(_) => (StatusCode::CONFLICT, "no-authority"),
            Self::Enrolment(enrolment::Refused::Unknown) => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::Enrolment(enrolment::Refused::Taken { .. }) => (StatusCode::CONFLICT, "exists"),
            Self::Enrolment(enrolment::Refused::NoName) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            Self::Enrolment(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Self::NoToken | Self::Token(_) | Self::Person(_) => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, "malformed-request"),
            Self::Text(_) => (StatusCode::BAD_REQUEST, "malformed-body"),
            Self::Body(_) => (StatusCode::BAD_REQUEST, "incomplete-body"),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            Self::MediaType { .. } => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type"),
            Self::Problems(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not-found"),
            Self::Exists(_) | Self::TokenConflict(_) => (StatusCode::CONFLICT, "exists"),
            Self::Conflict { .. } => (StatusCode::CONFLICT, "conflict"),
            Self::Superseded(_) => (StatusCode::CONFLICT, "superseded"),
            Self::NotConnected(_) => (StatusCode::CONFLICT, "not-connected"),
            Self::OtherReplica { .. } => (StatusCode::MISDIRECTED_REQUEST, "other-replica"),
            Self::OtherRequest(_) => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused"),
            Self::MadeBefore(_) => (StatusCode::CONFLICT, "made-before"),
            Self::TooManyRequests { .. } => (StatusCode::TOO_MANY_REQUESTS, "too-many-requests"),
            Self::LongUri { .. } => (StatusCode::URI_TOO_LONG, "uri-too-long"),
            Self::LargeHeaders { .. } => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large"),
            Self::SlowBody { .. } => (StatusCode::REQUEST_TIMEOUT, "slow-body"),
            Self::TooManyListeners => (StatusCode::TOO_MANY_REQUESTS, "too-many-listeners"),
            Self::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
            Self::Store(StoreError::Unavailable(_)) => (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable"),
            Self::Behind(_) => (StatusCode::SERVICE_UNAVAILABLE, "replica-behind"),
            Self::NoVerdict(_) => (StatusCode::SERVICE_UNAVAILABLE, "no-verdict"),
            Self::Store(_) | Self::Internal(..) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Text(error) => format!("the body cannot be read: {error}"),
            Self::Problems(problems) => first(problems),
            Self::Forbidden(refused) => {
                format!("this is not allowed: {}", first(&refused.iter().map(Problem::from).collect::<Vec<_>>()))
            }
            Self::Conflict { key, expected, current, head } => match (key, current) {
                (Some(key), Some(current)) => {
                    format!("the change is based on revision {expected} of {key}, which is at {}", current.revision)
                }
                (Some(key), None) => format!("the change is based on revision {expected} of {key}, which is gone"),
                (None, _) => format!("the change is based on revision {expected} of the catalog, which is at {head}"),
            },
            Self::Timeout => "the request took too long; whether a change was made is seen in the revisions".to_owned(),
            Self::Store(StoreError::Unavailable(_)) => {
                "the database is unavailable: nothing can be written, what is configured stays in force".to_owned()
            }
            Self::Behind(_) => {
                "this replica cannot read a revision that a newer one wrote; write to that one".to_owned()
            }
            Self::Store(_) | Self::Internal(..) => {
                "the request failed inside the control plane; its log says why".to_owned()
            }
            _ => self.to_string(),
        }
    }
}

/// The first of them, and how many more there are.
fn first(problems: &[Problem]) -> String {
    match problems {
        [problem] => problem.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        [] => "the request is not valid".to_owned(),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, slug) = self.status();
        if status.is_server_error() {
            tracing::error!(error = telemetry::chain(&self), "request failed");
        }
        let mut details = ProblemDetails::new(status, slug, self.detail());
        let mut challenge = None;
        let mut retry_after = None;
        match self {
            Self::NoToken => challenge = Some(r#"Bearer realm="chancery""#),
            Self::Forbidden(refused) => {
                details.missing = refused.iter().map(|refusal| refusal.missing.to_string()).collect();
                details.missing.sort_unstable();
                details.missing.dedup();
                details.problems = refused.iter().filter(|refusal| refusal.key.is_some()).map(Problem::from).collect();
            }
            Self::Person(oidc::Refused::NoGroups { .. } | oidc::Refused::NothingGranted { .. }) => {
                details.missing = vec!["a group that is granted something".to_owned()];
            }
            Self::Token(Refused::Unknown | Refused::Expired) | Self::Person(_)
                if status == StatusCode::UNAUTHORIZED =>
            {
                challenge = Some(r#"Bearer realm="chancery", error="invalid_token""#);
            }
            Self::TooManyRequests { wait, .. } => retry_after = Some(HeaderValue::from(guard::seconds(wait).max(1))),
            Self::Text(error) => (details.line, details.column) = (Some(error.line), Some(error.column)),
            Self::Problems(problems) => details.problems = problems,
            Self::Conflict { key, expected, current, head } => {
                details.expected_revision = Some(expected);
                details.current_revision = match key {
                    Some(_) => current.as_ref().map(|entry| entry.revision),
                    None => Some(head),
                };
                details.current = current.map(|entry| Box::new(ResourceView::from(entry.as_ref())));
            }
            _ => {}
        }
        let mut response = details.into_response();
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&status) {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after.unwrap_or(RETRY_AFTER));
        }
        response
    }
}
