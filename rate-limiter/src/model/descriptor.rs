//! A request as Envoy asks it: a domain and descriptors, borrowed from the bytes they came in.

use smallvec::SmallVec;

use super::limit::Unit;

/// One question: may this request pass?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Whose rules.
    pub domain: &'a str,
    /// What is to be counted, each on its own; all must admit.
    pub descriptors: SmallVec<[Descriptor<'a>; 4]>,
}

/// One thing to be counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor<'a> {
    /// In the order in which rules are looked up.
    pub entries: SmallVec<[Entry<'a>; 4]>,
    /// How much this request counts, the request's addend already applied.
    pub hits: Hits,
    /// A limit that comes with the request, instead of the configured one.
    pub limit: Option<Override>,
}

/// A key and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What is counted by.
    pub key: &'a str,
    /// Its value in this request.
    pub value: &'a str,
}

/// How much is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hits {
    /// So many; none is a look without a change.
    Take(u64),
    /// So many are given back.
    GiveBack(u64),
}

/// A limit that a request brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// Requests per unit.
    pub requests: u32,
    /// The unit.
    pub unit: Unit,
}
