//! TLS, both ends, with certificates that may change while it runs.
//!
//! - `files`: PEM files into what rustls wants, with errors that name the file.
//! - `server`: the server's side, reloaded when a file changes.
//! - `listener`: a TCP port as a stream of connections whose handshake succeeded.
//! - `refusal`: why a handshake did not, in words an operator can act on.
//! - `client`: the client's side; `channel`: a gRPC channel over it.
//! - [`spiffe`]: who the other end is; [`inspect`]: what is in files, without using them.
//!
//! One crypto provider, aws-lc-rs, is installed for the process; TLS 1.2 and 1.3 are spoken, with
//! HTTP/2 by ALPN, or what a server offers beside it.

mod channel;
mod client;
mod files;
pub mod inspect;
mod listener;
mod refusal;
mod server;
pub mod spiffe;

pub use channel::connect;
pub use client::{ClientTls, ClientTlsFiles};
pub(crate) use files::read_authorities;
pub use files::{TlsError, read_certificates, read_private_key};
pub use listener::{AcceptLimits, PeerInfo, TlsConnection, TlsListener, handshake};
pub use refusal::Refusal;
pub use rustls_pki_types::CertificateDer;
pub use server::{RELOAD_INTERVAL, ServerTls, ServerTlsFiles};

/// What ALPN offers and asks for: gRPC is HTTP/2.
const ALPN: &[u8] = b"h2";

/// Chooses aws-lc-rs for this process. May be called any number of times; every function here that
/// needs a provider calls it.
pub fn install_crypto_provider() {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[cfg(test)]
mod tests;
