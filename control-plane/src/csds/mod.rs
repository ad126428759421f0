//! What clients have, for tools that ask it over gRPC (CSDS, `envoy.service.status.v3`).
//!
//! Who may ask: a proxy or rate limiter sees itself, an operator (a certificate of its own kind, `chancery cert issue
//! --operator`) sees all. What is told of a resource is what the stream of its client knows (`chancery_xds::Inspection`),
//! asked when it is asked for: SYNCED, NOT_SENT, STALE or ERROR, the version and the content, which is left out if the caller
//! wants that, and for secrets always. A stream is one `ClientConfig`; a client that asks for each type on a stream of its own has several.
//!
//! An answer is bounded ([`MOST_CLIENTS`], [`MOST_BYTES`]): what would be more is refused whole, with a word on how to ask
//! for less, for an answer with something missing reads like one without.
//!
//! `matcher` says which clients are meant, `config` what is said of one (both pure), `service` is the gRPC side.

mod config;
mod matcher;
mod service;

pub use service::{ClientStatuses, MOST_BYTES, MOST_CLIENTS, SERVICE};
