//! Where cells are kept: in memory, in Redis, and in Redis with leases in front.

pub mod contract;

pub use contract::{Ask, Charging, Outcome, Outcomes, Source, Store};
