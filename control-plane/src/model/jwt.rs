//! Who clients are by the tokens that they bring (JSON Web Tokens, RFC 7519). Pure.

use std::{sync::Arc, time::Duration};

use super::Name;

/// What the tokens of a request have to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Jwt {
    /// Who may have issued them; not empty, each once.
    pub providers: Vec<Arc<JwtProvider>>,
    /// Whether there has to be one of each, not of any one.
    pub all: bool,
    /// Whether a request without a token will do; not with `all`. One with a bad token never does.
    pub allow_missing: bool,
}

/// Who issues tokens, and what is done with them.
#[derive(Clone, Debug, PartialEq)]
pub struct JwtProvider {
    /// How rules call it.
    pub name: Name,
    /// What a token has to say of its issuer.
    pub issuer: String,
    /// What a token has to be for: one of these; anything if there are none.
    pub audiences: Vec<String>,
    /// The keys that it signs with.
    pub keys: Keys,
    /// The header that has the token, and nothing else; `authorization`, behind `Bearer`, if it is not given.
    pub header: Option<String>,
    /// Whether the token goes on to the service.
    pub forward: bool,
    /// Claims that the service is told in headers: claim, and name of the header in lower case.
    pub claims: Vec<(String, String)>,
}

/// Public keys, as a JSON Web Key Set (RFC 7517).
#[derive(Clone, Debug, PartialEq)]
pub enum Keys {
    /// These.
    Inline(String),
    /// Those that a service tells.
    Remote {
        /// The service.
        service: Name,
        /// What it is called in the request.
        host: String,
        /// The path, with or without a query.
        path: String,
        /// How long an answer counts.
        cache: Duration,
    },
}

impl JwtProvider {
    /// The service that is asked for keys, if any is.
    pub fn service(&self) -> Option<&Name> {
        match &self.keys {
            Keys::Inline(_) => None,
            Keys::Remote { service, .. } => Some(service),
        }
    }
}
