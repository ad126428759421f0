//! The REST API.

pub mod text;
