//! The policies, as pure state machines.
//!
//! What all of them have in common:
//! - `now` is the time since a start that the caller chose, and that never changes. Time that goes back is taken for time that
//!   stands still.
//! - `chance` is a random number from 0 (included) to 1 (excluded), drawn by the caller.
//! - Whatever comes from outside, the numbers saturate; nothing here panics.
//!
//! One request's way through them: [`deadline`] says how long it may take, [`concurrency`] whether it is let in,
//! [`p2c`] where it goes, by what [`ewma`] says of each endpoint and [`endpoints`] of who is out. [`classify`] says
//! what the answer means; [`endpoints`] hears it, and [`retry`] decides with [`retry_budget`], [`backoff`] and
//! [`pushback`] whether there is another try; [`hedge`] whether there is one before the answer.

pub mod backoff;
pub mod breaker;
pub mod classify;
pub mod concurrency;
pub mod deadline;
pub mod endpoints;
pub mod ewma;
pub mod failure_accrual;
pub mod grpc;
pub mod hedge;
pub mod outlier;
pub mod p2c;
pub mod pushback;
pub mod retry;
pub mod retry_budget;
pub mod window;
