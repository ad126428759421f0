//! What a proxy says against a resource, and what becomes of that.

use std::time::SystemTime;

use chancery_xds::{Name, Resource, TypeUrl};

/// What is kept from a fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct Quarantined {
    /// What was rejected.
    pub rejected: Resource,
    /// What is served instead.
    pub good: Option<Resource>,
    /// Who rejected it, and why.
    pub cause: Cause,
}

/// A rejection.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// The proxy.
    pub proxy: String,
    /// Its words.
    pub words: String,
    /// When it said them.
    pub at: SystemTime,
    /// The revision that set the resource.
    pub revision: u64,
}

/// What a proxy has rejected.
#[derive(Clone, Copy, Debug)]
pub struct Rejected<'r> {
    /// The type of the response.
    pub type_url: &'r TypeUrl,
    /// The sequence that it stands for.
    pub sequence: u64,
    /// What was set in it.
    pub set: &'r [Name],
    /// What the proxy's words are about, or all.
    pub blamed: &'r [Name],
    /// The proxy.
    pub proxy: &'r str,
    /// Its words.
    pub words: &'r str,
    /// When it said them.
    pub at: SystemTime,
}
