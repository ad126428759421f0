//! The descriptors of the rate-limit services, for gRPC's server reflection.
//!
//! `envoy-types` keeps its own to itself, and they weigh megabytes. Here are just the messages that these services take and
//! give, declared in `reflection/` and compiled by `build.rs`; `tests/reflection.rs` holds them to the generated
//! messages.

/// A `google.protobuf.FileDescriptorSet` with `envoy.service.ratelimit.v3.RateLimitService` and
/// `envoy.service.rate_limit_quota.v3.RateLimitQuotaService`, and all that they refer to.
pub const RATE_LIMIT_SERVICES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/reflection.bin"));
