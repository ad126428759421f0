//! What a proxy says against a resource, and what becomes of that.

use std::{ops::Range, time::SystemTime};

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
    /// The sequences of the cache at which it was served before that: who acknowledges one of these has taken it.
    pub served: Range<u64>,
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

impl<'r> Rejected<'r> {
    /// What it was rejected for: of those that may be suspected, those that are blamed, or all.
    pub(super) fn culprits(&self, may_be: impl Fn(&Name) -> bool) -> Vec<&'r Name> {
        let suspects: Vec<&Name> = self.set.iter().filter(|name| may_be(name)).collect();
        let named: Vec<&Name> = suspects.iter().copied().filter(|name| self.blamed.contains(name)).collect();
        if named.is_empty() { suspects } else { named }
    }
}
