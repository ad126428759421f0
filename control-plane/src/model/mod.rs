//! The language of the users, parsed: fleets, listeners, teams, services, limits, routes, patches. Pure.
//!
//! Wire documents (`wire`, with serde and schema) become the types here once (`parse`), with every
//! problem reported; a [`Catalog`] is all of them together, and consistent (`check`).

pub mod access;
pub mod access_log;
pub mod authorizer;
mod catalog;
mod check;
pub mod compression;
pub mod cors;
mod document;
pub mod endpoint;
pub mod envoy_patch;
pub mod fault;
pub mod fleet;
pub mod jwt;
pub mod listener;
pub mod local_rate_limit;
mod name;
mod parse;
mod problem;
pub mod rate_limit;
pub mod re2;
mod references;
mod resource;
pub mod retry;
pub mod route;
mod selector;
pub mod service;
pub mod tcp;
pub mod team;
pub mod tracing;
pub mod wire;

pub use catalog::{Catalog, Entry};
pub use document::Document;
pub use name::{InvalidName, Key, Kind, Name, UnknownKind};
pub use parse::{Registered, Registrations, access_log_operators, parse, parse_document, registration, registrations};
pub use problem::{Place, Problem, Problems, Quoted};
pub use resource::Resource;
pub use selector::Selector;
