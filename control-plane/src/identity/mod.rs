//! Who is who: the CA, the certificates of proxies, rate limiters and control planes, and the tokens of the API.
//!
//! - `spiffe`: the identity in a certificate. Pure.
//! - `authority`: the CA, ours or one that was brought, and what it issues.
//! - `issue`: an identity as files, for `chancery cert issue`.
//! - `request`: what a certificate is asked for with. Pure.
//! - `token`: bearer tokens and how they are kept.
//!
//! A proxy proves its identity with its key on every connection; people and scripts present a
//! token. Neither the CA's key nor a token is ever logged.

pub mod authority;
pub mod issue;
pub mod request;
pub mod spiffe;
pub mod token;

/// The trust domain unless another one is set.
pub const DEFAULT_TRUST_DOMAIN: &str = "chancery.local";
