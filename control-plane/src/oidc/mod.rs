//! Sign-in of people with OpenID Connect: a token of an issuer that is trusted says who somebody is and which groups they are in,
//! and settings say what each group may do.
//!
//! - [`settings`]: what is set, and every problem of it at once.
//! - [`issuer`]: where an issuer is, and what it says of itself.
//! - `keys`: the keys that it signs with, and whether a signature is theirs.
//! - `rules`: whether a token is good, whose it is and what follows from their groups. Pure, as those above are.
//! - [`sign_in`]: fetches the keys, keeps them, and asks the rules. The only part that acts.
//!
//! Tokens are verified as RFC 8725 asks: the algorithms are a short list of signatures with public keys, and the key decides which
//! of them it is for, whatever the token says.

pub mod issuer;
mod keys;
mod rules;
pub mod settings;
pub mod sign_in;
#[cfg(test)]
pub(crate) mod testing;

pub use issuer::{Discovery, IssuerUrl};
pub use rules::{Person, Refused, claimed_end, is_of_an_issuer};
pub use settings::{InvalidOidc, OidcFlags, OidcSettings};
pub use sign_in::SignIn;
