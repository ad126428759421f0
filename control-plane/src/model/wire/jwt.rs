//! Tokens of clients as they are written.

use serde::Deserialize;
use utoipa::ToSchema;

use super::{DurationText, NameText};

/// What the tokens of requests have to be: exactly one of `any` and `all`. Other requests are answered with 401.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtSpec {
    /// There has to be a token of one of these `jwtProviders`.
    #[schema(min_items = 1, max_items = 10)]
    pub any: Option<Vec<NameText>>,
    /// There has to be a token of each of these `jwtProviders`, each in a `header` of its own.
    #[schema(min_items = 2, max_items = 10)]
    pub all: Option<Vec<NameText>>,
    /// Whether a request without a token will do; only with `any`. One with a bad token never does.
    #[schema(default = false)]
    pub allow_missing: Option<bool>,
}

/// Who issues tokens (JWT), and what is done with them.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtProviderSpec {
    /// How rules call it.
    pub name: NameText,
    /// What a token has to say of its issuer (`iss`).
    #[schema(examples("https://auth.example.com/"))]
    pub issuer: String,
    /// What a token has to be for (`aud`): one of these; anything if it is not given.
    #[schema(min_items = 1, max_items = 20)]
    pub audiences: Option<Vec<String>>,
    /// The public keys that it signs with.
    pub keys: JwtKeysSpec,
    /// The header that has the token and nothing else; if it is not given, it is `authorization`, behind `Bearer`.
    #[schema(examples("x-token"))]
    pub header: Option<String>,
    /// Whether the token goes on to the service.
    #[schema(default = false)]
    pub forward: Option<bool>,
    /// What of a good token the service is told in headers. What clients send in them is removed.
    #[schema(max_items = 20)]
    pub claims: Option<Vec<JwtClaimSpec>>,
}

/// Public keys (JSON Web Key Set): exactly one of `inline` and `service`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtKeysSpec {
    /// The set itself, as JSON, up to 64 KiB.
    pub inline: Option<String>,
    /// The service that is asked for the set.
    pub service: Option<NameText>,
    /// The path of the set; given exactly with `service`.
    #[schema(examples("/.well-known/jwks.json"))]
    pub path: Option<String>,
    /// The host that it is asked for by; only with `service`, whose name it is if it is not given.
    pub host: Option<String>,
    /// How long an answer counts, 1s to 24h; only with `service`; 10m if it is not given.
    pub cache: Option<DurationText>,
}

/// A claim, and the header that tells it.
#[derive(Clone, Debug, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtClaimSpec {
    /// The claim; with dots for one within another.
    #[schema(examples("sub"))]
    pub claim: String,
    /// The header.
    #[schema(examples("x-user"))]
    pub header: String,
}
