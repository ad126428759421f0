//! Where cells are kept: in memory, in Redis, and in Redis with leases in front.

pub mod clock;
#[cfg(test)]
pub(crate) mod conformance;
pub mod contract;
mod denials;
mod leased;
pub mod memory;
pub mod redis;
pub mod without_redis;

pub use clock::Clock;
pub use contract::{Ask, Charging, Outcome, Outcomes, Source, Store};
pub use memory::Memory;
pub use redis::SaltCell;
