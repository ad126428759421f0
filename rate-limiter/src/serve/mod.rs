//! How requests come in.

pub mod http;
