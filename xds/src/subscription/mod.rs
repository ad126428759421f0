//! What one client has asked for, of one resource type, and how far it has been served. Pure.
//!
//! Requests and cache contents go in, replies and verdicts come out; `server/stream.rs` does the
//! sending. [`delta`] and [`sotw`] hold what the two protocol variants do differently; what they share is here.
//!
//! There is no queue of responses: a change marks its name *dirty*, and the next reply is made from
//! what the cache holds then. However slow a client is, what is kept for it is one set of names.
//!
//! A name whose resource was removed is *doomed*: its removal may have to wait until nothing
//! refers to it any more (`order.rs`), unlike the answer to a subscription to a name that does not exist,
//! which is owed at once.

pub mod delta;
pub mod sotw;

use std::{
    collections::{BTreeSet, HashSet},
    time::Instant,
};

use crate::{
    cache::{Kept, Table},
    resource::Name,
};

/// What differs from one resource type to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeRules {
    /// A state-of-the-world response carries every resource, and absence deletes (LDS, CDS). Also: a first
    /// request without names asks for all of them.
    pub full_state: bool,
    /// What a client says it has is sent again all the same (EDS): an Envoy that reconnects while
    /// a cluster is warming waits for its endpoints even though it has them.
    pub always_resent: bool,
}

/// The names a client is interested in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    wildcard: bool,
    names: HashSet<Name>,
}

impl Interest {
    /// Whether a resource called `name` is to be sent.
    pub fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Whether it asks for everything.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    /// Whether `name` was asked for by name.
    pub fn names(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

/// A response that was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// Its nonce.
    pub nonce: String,
    /// The version of the whole, as it was sent.
    pub version: String,
    /// The sequence of the cache it brings the client to.
    pub sequence: u64,
    /// The resources in it, set or removed.
    pub names: Vec<Name>,
    /// When it was handed to the connection.
    pub at: Instant,
}

/// What a request said about an earlier response.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Nothing: it only asked.
    None,
    /// It was applied.
    Acknowledged(Sent),
    /// It was rejected, with the client's words.
    Rejected(Sent, String),
}

/// What may be sent now, by the order of types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gates {
    /// New and changed resources.
    pub additions: bool,
    /// Removals.
    pub removals: bool,
}

/// The stream has slept so long that removals it needs to hear of are forgotten; the client
/// has to reconnect and say what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream fell behind the changes that are remembered")]
pub struct FellBehind;

/// How far a client has been served: the part both protocol variants share.
#[derive(Debug, Default)]
pub struct Progress {
    rules: TypeRules,
    interest: Interest,
    /// All changes up to here are in `dirty` and `doomed`, or were sent.
    seen: u64,
    dirty: BTreeSet<Name>,
    doomed: BTreeSet<Name>,
    outstanding: Option<Sent>,
    /// A reply is owed even if it is empty.
    owed: bool,
    started: bool,
    nonce: u64,
}

impl Progress {
    fn new(rules: TypeRules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Takes in what changed in the cache since the last time.
    pub fn absorb(&mut self, table: &Table, head: u64) -> Result<(), FellBehind> {
        if self.seen == head {
            return Ok(());
        }
        for (name, kept) in table.changes_since(self.seen).ok_or(FellBehind)? {
            if !self.interest.covers(name) {
                continue;
            }
            match kept {
                Kept::Live => {
                    self.doomed.remove(name);
                    self.dirty.insert(name.clone());
                }
                Kept::Removed => {
                    self.dirty.remove(name);
                    self.doomed.insert(name.clone());
                }
            }
        }
        self.seen = head;
        Ok(())
    }

    /// Marks a name to be sent again, if the client asked for it.
    pub fn touch(&mut self, name: &Name) {
        if self.interest.covers(name) {
            self.dirty.insert(name.clone());
        }
    }

    /// The response that has not been answered.
    pub fn outstanding(&self) -> Option<&Sent> {
        self.outstanding.as_ref()
    }

    /// Stops waiting for the answer to the response in flight.
    pub fn give_up_waiting(&mut self) {
        self.outstanding = None;
    }

    /// Whether there are additions to send or to be acknowledged.
    pub fn has_additions(&self) -> bool {
        self.owed || !self.dirty.is_empty() || self.outstanding.is_some()
    }

    /// Whether everything up to [`Progress::seen`] was sent and answered.
    pub fn is_settled(&self) -> bool {
        !self.has_additions() && self.doomed.is_empty()
    }

    /// Whether there is something to send.
    pub fn is_pending(&self) -> bool {
        self.owed || !self.dirty.is_empty() || !self.doomed.is_empty()
    }

    /// The sequence up to which changes were taken in.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    fn mark_all(&mut self, table: &Table) {
        let covered = table.resources().map(|resource| resource.name()).filter(|name| self.interest.covers(name));
        self.dirty.extend(covered.cloned());
    }

    fn next_nonce(&mut self) -> String {
        self.nonce += 1;
        self.nonce.to_string()
    }

    /// Takes the answer to the response in flight, if `nonce` names it.
    fn answered(&mut self, nonce: &str, error: Option<String>) -> Verdict {
        match (self.outstanding.take_if(|sent| sent.nonce == nonce), error) {
            (Some(sent), None) => Verdict::Acknowledged(sent),
            (Some(sent), Some(message)) => Verdict::Rejected(sent, message),
            (None, _) => Verdict::None,
        }
    }
}

/// One protocol variant's view of one type.
pub trait Subscription: Send + 'static {
    /// The variant's request.
    type Request: Send + 'static;
    /// The variant's reply, not yet encoded.
    type Reply: Send + 'static;

    /// Nothing asked for yet.
    fn new(rules: TypeRules) -> Self;

    /// Takes in a request.
    fn on_request(&mut self, request: Self::Request, table: &Table, head: u64) -> Verdict;

    /// The next reply, if one is due, no other is in flight, and the gates let it pass.
    fn reply(&mut self, table: &Table, gates: Gates, now: Instant) -> Option<(Sent, Self::Reply)>;

    /// The shared part.
    fn progress(&self) -> &Progress;

    /// The shared part.
    fn progress_mut(&mut self) -> &mut Progress;
}

#[cfg(test)]
mod tests;
