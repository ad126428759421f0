//! How much traffic each service has, as proxies report it (LRS): requests, errors, drops, and what is in progress.
//!
//! A proxy reports each of its clusters every few seconds. What it reports is kept by stream (`stream`, pure), not added
//! up: a proxy that goes takes its numbers along, and whoever asks may ask for some of the proxies only, as a gate of a
//! rollout does ([`Loads::counts_since`]). Sums are made when they are asked for ([`Loads`]); `service` is the gRPC side.
//!
//! A request is counted when it is answered, an attempt of a retry for itself. An error is what Envoy takes for one: a
//! 5xx of the service, a timeout, a connection that failed. A request for which there was no endpoint at all is in no
//! report. Envoy begins with a new cluster one report late, so what happens in its first seconds is in none either.
//!
//! Only what this replica is told is known here: the reports of a proxy go to the replica that it is connected to.
//!
//! Invariants: no more is kept than [`MAX_ENTRIES`] pairs of stream and service, each with at most 60 samples; only services
//! that the fleet of the proxy uses are counted.

mod counts;
mod register;
mod service;
mod stream;
#[cfg(test)]
mod testing;
mod window;

pub use counts::Counts;
pub use register::{Counted, Loads, MAX_ENTRIES, Reporting, ServiceLoad};
pub use service::{LoadReports, SERVICE};
pub use stream::WINDOW;
