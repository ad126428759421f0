//! What tests with the real thing share: programs to start, and ways to break them.

pub mod postgres;
