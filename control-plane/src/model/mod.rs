//! The language of the users, parsed: fleets, listeners, services, routes. Pure.
//!
//! Wire documents (`document`, with serde and schema) become the types here once, with every
//! problem reported; a `Catalog` is all of them together, and consistent.

mod document;
pub mod fleet;
pub mod listener;
mod name;
pub mod route;
pub mod service;

pub use document::Document;
pub use name::{InvalidName, Key, Kind, Name, UnknownKind};
