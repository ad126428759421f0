//! Messages as JSON, by the mapping of protobuf: what an operator writes for Envoy, and what Envoy shows.
//!
//! [`encode()`] reads JSON into a message's bytes, [`decode()`] shows bytes as JSON, [`merge()`] changes parts of what is shown.
//! Names of fields may be those of the `.proto` files, as Envoy's documentation writes them, or in camel case; shown are the
//! former. An `Any` has its type in `@type`.
//!
//! Same JSON, same bytes: fields are written in the order of their numbers, entries of maps in that of their keys. What is
//! shown and read again is the same message.

mod decode;
mod encode;
mod merge;
mod well_known;

pub use decode::{Unreadable, decode};
pub use encode::encode;
pub use merge::{InvalidPath, MessagePath, merge};

/// Where the type of an `Any` stands.
const TYPE: &str = "@type";

/// Where an `Any` holds what is no object in JSON.
const VALUE: &str = "value";

#[cfg(test)]
mod tests;
