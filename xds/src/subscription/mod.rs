//! What one client has asked for, of one resource type, and how far it has been served. Pure.
//!
//! Requests and cache contents go in, replies and verdicts come out; `server/stream.rs` does the
//! sending. [`delta`] and [`sotw`] hold what the two protocol variants do differently, [`progress`] what
//! they share.
//!
//! There is no queue of responses: a change marks its name *dirty*, and the next reply is made from
//! what the cache holds then. However slow a client is, what is kept for it is one set of names.
//!
//! What a client rejects is remembered until it takes it, or something else under that name (`refusals`): what
//! depends on it must not go on as if it had been taken.
//!
//! A name whose resource was removed is *doomed*: its removal may have to wait until nothing
//! refers to it any more (`order.rs`), unlike the answer to a subscription to a name that does not exist,
//! which is owed at once.

pub mod delta;
mod pending;
pub mod progress;
mod refusals;
pub mod sotw;

use std::{sync::Arc, time::Instant};

pub use self::progress::{Progress, Standing, State};
use crate::{cache::Table, names::NameSet, resource::Name};

/// What differs from one resource type to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeRules {
    /// A state-of-the-world response carries every resource, and absence deletes (LDS, CDS).
    pub full_state: bool,
    /// A first request without names asks for everything (LDS, CDS, VHDS).
    pub legacy_wildcard: bool,
    /// What a client says it has is sent again all the same (EDS): an Envoy that reconnects while
    /// a cluster is warming waits for its endpoints even though it has them.
    pub always_resent: bool,
    /// Who rejects a response has applied all that is good in it, and names what is not (LDS, CDS).
    pub piecewise: bool,
}

/// The names a client is interested in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    wildcard: bool,
    names: Arc<NameSet>,
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

    /// How many names were asked for.
    pub fn named(&self) -> usize {
        self.names.len()
    }

    /// Whether `name` was asked for by name.
    pub fn names(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Adds `names`, but for the one that stands for everything.
    fn ask_for(&mut self, names: &[String], table: &Table) {
        if !names.is_empty() {
            self.names = table.asked_for().with(&self.names, by_name(names), |name| table.shared(name));
        }
    }

    /// The names that `before` did not have.
    fn asked_since(&self, before: &Self) -> impl Iterator<Item = &Name> {
        let same = Arc::ptr_eq(&self.names, &before.names);
        self.names.iter().filter(move |name| !same && !before.names(name))
    }

    /// Leaves out `names`, but for the one that stands for everything.
    fn give_up(&mut self, names: &[String], table: &Table) {
        if !names.is_empty() {
            self.names = table.asked_for().without(&self.names, by_name(names));
        }
    }
}

/// The name that stands for everything.
const WILDCARD: &str = "*";

fn by_name(names: &[String]) -> impl Iterator<Item = &str> + Clone {
    names.iter().map(String::as_str).filter(|name| *name != WILDCARD)
}

/// A response that was sent. Cloning shares what is in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    /// Its nonce.
    pub nonce: Arc<str>,
    /// The version of the whole, as it was sent.
    pub version: Arc<str>,
    /// The sequence of the cache it brings the client to.
    pub sequence: u64,
    /// The resources in it, set or removed.
    pub names: Arc<[Name]>,
    /// Those of them that may be new or changed for the client, or were asked for: a state-of-the-world
    /// response has others in it as well.
    pub set: Arc<[Name]>,
    /// Whether nothing was held back when it was sent.
    pub complete: bool,
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
pub enum Gate {
    /// Nothing.
    Shut,
    /// New and changed resources.
    Additions,
    /// New and changed resources, and the removals that came at or before this sequence.
    Through(u64),
}

impl Gate {
    /// Everything.
    pub const ALL: Self = Self::Through(u64::MAX);
}

/// The stream has slept so long that removals it needs to hear of are forgotten; the client
/// has to reconnect and say what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream fell behind the changes that are remembered")]
pub struct FellBehind;

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

    /// The next reply, if one is due, no other is in the way, and the gate lets it pass.
    fn reply(&mut self, table: &Table, gate: Gate, now: Instant) -> Option<(Sent, Self::Reply)>;

    /// Whether there is no reply whatever is due, because of a response before it.
    fn is_busy(&self) -> bool;

    /// Whether a reply can be without something that is due.
    fn sends_parts(&self) -> bool;

    /// The shared part.
    fn progress(&self) -> &Progress;

    /// The shared part.
    fn progress_mut(&mut self) -> &mut Progress;
}

#[cfg(test)]
mod tests;
