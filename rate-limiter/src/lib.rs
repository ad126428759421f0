//! The rate-limit service of Envoy: token buckets in memory or in Redis.
//!
//! A request goes `serve/wire` → [`decide`] → [`model`]'s rules → [`store`] → [`model`]'s cells → answer. `model` and the
//! planning half of `decide` are pure.

pub mod app;
pub mod config;
pub mod decide;
pub mod metrics;
pub mod model;
pub mod serve;
pub mod settings;
pub mod store;
