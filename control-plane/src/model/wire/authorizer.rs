//! External authorization as it is written.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use super::{DurationText, NameText, OnFailureSpec, SizeText};

/// A service that is asked about every request, whatever its route, whether it may pass. A change drains the connections of the
/// listener.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalAuthorizationSpec {
    /// The service.
    pub service: NameText,
    /// What it speaks.
    #[schema(default = "grpc")]
    pub protocol: Option<AuthorizerProtocolSpec>,
    /// What stands before the path of a request when it is asked about; only with protocol `http`; nothing if it is not given.
    #[schema(examples("/check"))]
    pub path_prefix: Option<String>,
    /// How long a request waits for the answer, 1ms to 1m; 1s if it is not given.
    pub timeout: Option<DurationText>,
    /// What becomes of a request that no answer came for.
    #[schema(default = "deny")]
    pub on_failure: Option<OnFailureSpec>,
    /// What a request that no answer came for is answered with; not with `onFailure: allow`.
    #[schema(minimum = 400, maximum = 599, default = 403)]
    pub status_on_error: Option<u16>,
    /// How much of the body it is told; nothing if it is not given.
    pub body: Option<AuthorizationBodySpec>,
    /// Which headers it is told, and which of its answer are told to others.
    pub headers: Option<AuthorizationHeadersSpec>,
}

/// What an authorizer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthorizerProtocolSpec {
    /// gRPC, `envoy.service.auth.v3.Authorization`. The service has `protocol: http2`.
    Grpc,
    /// HTTP: it is asked with method and path of the request. 200 lets the request pass; anything else is what the client gets.
    Http,
}

/// How much of the body of a request an authorizer is told. The request waits at the proxy until so much of it is there.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationBodySpec {
    /// So much at most, 1B to 1MiB.
    pub max_size: SizeText,
    /// Whether the start of a longer one will do; otherwise that is answered with 413.
    #[schema(default = false)]
    pub partial: Option<bool>,
}

/// Names of headers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthorizationHeadersSpec {
    /// Of the request, those that the authorizer is told. If it is not given: over gRPC, all; over HTTP, only `host`, `authorization` and
    /// `content-length`, which it is told in any case.
    #[schema(min_items = 1, max_items = 50)]
    pub to_authorizer: Option<Vec<String>>,
    /// Of its answer, those that the service is told; only with protocol `http`; none if it is not given. They take the place of what
    /// the client has sent under these names, which goes on if the answer lacks them.
    #[schema(min_items = 1, max_items = 50)]
    pub to_service: Option<Vec<String>>,
    /// Of its answer, those that the client is told; only with protocol `http`. If it is not given: all of a refusal, and none of a
    /// consent.
    #[schema(min_items = 1, max_items = 50)]
    pub to_client: Option<Vec<String>>,
}

/// What a rule says to the authorizer of its listener: exactly one of `off` and `context`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleAuthorizationSpec {
    /// It is not asked; can only be `true`.
    pub off: Option<bool>,
    /// What it is told of the rule, as `context_extensions`; only where it is asked over gRPC.
    pub context: Option<BTreeMap<String, String>>,
}
