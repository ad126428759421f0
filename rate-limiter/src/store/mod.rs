//! Where cells are kept: in memory, in Redis, and in Redis with leases in front.

pub mod contract;
mod denials;
mod leased;
pub mod redis;
pub mod without_redis;

pub use contract::{Ask, Charging, Outcome, Outcomes, Source, Store};
pub use redis::SaltCell;
