//! Envoy's messages into what the sidecar does. Pure.
//!
//! A field is honoured, or ignored, or asks for something that the sidecar cannot do: then its message is refused, with the
//! path of the field, and with all other problems at once. Ignored are fields without which requests still go where they are
//! meant to go (statistics, access logs, buffers, filters); refused are those without which they would not.

mod cluster;
mod endpoints;
mod listener;
mod matching;
mod metadata;
mod route;
mod tcp;
mod tls;
mod value;

pub use cluster::{ClusterSpec, Discovery, cluster};
pub use endpoints::endpoints;
pub use listener::{Routes, Served, listener};
pub use route::routes;
pub use tls::{Secret, TlsSpec, secret};

/// Something that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which field: `virtual_hosts[0].routes[2].route`.
    pub path: String,
    /// What about it.
    pub reason: String,
}

/// Everything that is wrong with a message.
#[derive(Debug, Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.0.push(Problem { path: path.into(), reason: reason.into() });
    }

    /// `value`, if nothing is wrong.
    fn none_or<T>(self, value: T) -> Result<T, Vec<Problem>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}

#[cfg(test)]
mod tests;
