//! Where cells are kept: in memory, in Redis, and in Redis with leases in front.

pub mod clock;
#[cfg(test)]
pub(crate) mod conformance;
pub mod contract;
pub mod memory;

pub use clock::Clock;
pub use contract::{Ask, Charging, Outcome, Outcomes, Source, Store};
pub use memory::Memory;
