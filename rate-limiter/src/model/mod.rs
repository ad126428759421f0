//! What a limit is and what it says about a request. Pure: no clock, no store, no IO.
//!
//! A [`Request`](descriptor::Request) has descriptors; each finds its [`Rule`](rule::Rule); a rule's
//! [`Limit`](limit::Limit) is counted in a cell ([`cell`]), one per combination of values. What a store does with
//! a cell, in memory or in Redis, is measured against [`cell`].

pub mod cell;
pub mod descriptor;
pub mod key;
pub mod lease;
pub mod limit;
pub mod quota;
pub mod rule;
pub mod verdict;
