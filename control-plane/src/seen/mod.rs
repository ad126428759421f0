//! Which requests proxies have seen lately, as far as their listeners send that here (`accessLogs`, `to: { controlPlane: true }`).
//!
//! Envoy sends its access log in batches over gRPC (ALS), to the replica that it is connected to, and in plain words: method, host
//! and path. Of each only what tells requests apart for routes is kept (`requests`, pure): not the query, no header, nobody's
//! address, nothing of the answer. A fleet's requests are together (`register`); `service` is the gRPC side.
//!
//! Kept is what is needed to ask what a change would move, not a log: in memory, at this replica, each request once with how often it was
//! seen, and only the last ones.
//!
//! Invariants: of a fleet at most [`MOST_REQUESTS`] requests are kept, of a proxy at most [`MOST_STREAMS`] streams are read; what is kept of
//! a fleet goes with the fleet.

mod register;
mod requests;
mod service;

pub use register::{MOST_STREAMS, Reporting, Seen};
pub use requests::{MOST_REQUESTS, Request, Requests, SeenRequest};
pub use service::{SERVICE, SeenTraffic};
