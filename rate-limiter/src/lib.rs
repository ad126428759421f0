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

/// Tells the recorder what every metric of this program means. Call once, after the recorder is installed.
pub fn describe_metrics() {
    metrics::describe();
    serve::meters::describe();
    config::files::describe_metrics();
    store::memory::describe();
    store::redis::describe();
    chancery_xds::metrics::describe();
}
