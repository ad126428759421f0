//! Envoy's messages by their descriptors: which fields they have, and what Envoy demands of them.
//!
//! The generated code of `envoy-types` knows neither the names that fields have in JSON nor the constraints
//! (`validate.rules`) by which Envoy refuses a message that decodes well. Both stand in the descriptors. [`check()`] finds
//! what Envoy would refuse in an encoded message of any type; [`json`] reads and writes messages as JSON, as an
//! operator writes them for Envoy; [`replace()`] puts other texts in place of some.
//!
//! The descriptors are a table in the binary (`table`, written by `build.rs`). A type is unpacked when it is first met
//! and then kept ([`types`]): a pool of all of them would cost each start tens of milliseconds and tens of
//! megabytes, for some three thousand types of which a fleet uses a hundred.

mod check;
mod findings;
pub mod json;
mod replace;
mod rules;
mod table;
pub mod types;
mod wire;

pub use check::check;
pub use findings::Violation;
pub use replace::{Step, With, replace};
