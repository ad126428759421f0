//! The sign-in of a person: got from an issuer, kept in a file, renewed when it has expired.
//!
//! - [`issuer`]: what is asked of the issuer, and in which form.
//! - [`device`]: the device authorization grant (RFC 8628): the person confirms in a browser, on whatever machine.
//! - [`kept`]: the file, one for each control plane, for its owner's eyes only.
//! - [`session`]: the token that goes with a request, whoever's it is.

pub(crate) mod device;
pub(crate) mod issuer;
pub(crate) mod kept;
pub(crate) mod session;
