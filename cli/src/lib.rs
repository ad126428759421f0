//! The operator's and service owner's command.

pub mod cert;
pub mod dev;
