//! Chancery's own messages: what its control plane tells its other parts, where Envoy's messages say too little.
//!
//! The sources are in `proto/chancery/`; the generated code is committed, and `tests/generated.rs` keeps the two equal.

#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, unreachable_pub)]
mod config_v1;

pub use config_v1::{Algorithm, Enforcement, RateLimitDomain, RateLimitRule, WithoutRedis};
