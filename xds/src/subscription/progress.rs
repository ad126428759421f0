//! How far a client has been served, of one type: what both protocol variants share. Pure.
//!
//! A name is *dirty* if its resource has to be sent, *doomed* if its removal has; never both. A response that
//! was sent is *waited for*: others of the stream may be held back until it is answered. That
//! patience ends, the interest in the answer does not: an acknowledgement that comes a minute
//! later still counts, and until then the client is not settled.
//!
//! Two marks say how far the client has come, so that whoever waits for a change waits for that one and not for
//! a moment of silence, which under steady changes may never come: [`Progress::additions_through`] and
//! [`Progress::settled_through`].

use std::{
    collections::{BTreeSet, VecDeque},
    time::Instant,
};

use super::{FellBehind, Interest, Sent, TypeRules, Verdict};
use crate::{
    cache::{Kept, Table},
    resource::Name,
};

/// How many responses without an answer are remembered. Only a client that has kept silent for as many
/// times the patience of the stream has more.
const MAX_UNANSWERED: usize = 8;

/// How far a client has been served.
#[derive(Debug, Default)]
pub struct Progress {
    pub(super) rules: TypeRules,
    pub(super) interest: Interest,
    /// A reply is owed even if it is empty.
    pub(super) owed: bool,
    pub(super) dirty: Marked,
    pub(super) doomed: Marked,
    /// Dirty as well, but of no use to the client yet; does not count as unsent.
    parked: BTreeSet<Name>,
    /// All changes up to here are in `dirty` and `doomed`, or were sent.
    seen: u64,
    /// Oldest first.
    unanswered: VecDeque<Sent>,
    /// Whether the last of `unanswered` is waited for.
    waiting: bool,
    additions_through: u64,
    settled_through: u64,
    started: bool,
    nonce: u64,
}

/// Names, and the sequence of the newest change among them.
#[derive(Debug, Default)]
pub(super) struct Marked {
    names: BTreeSet<Name>,
    at: u64,
}

impl Marked {
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Name> {
        self.names.iter()
    }

    pub(super) fn take(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.names)
    }

    fn insert(&mut self, name: Name, at: u64) {
        self.at = if self.names.is_empty() { at } else { self.at.max(at) };
        self.names.insert(name);
    }
}

impl Progress {
    pub(super) fn new(rules: TypeRules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Takes in what changed in the cache since the last time.
    pub fn absorb(&mut self, table: &Table, head: u64) -> Result<(), FellBehind> {
        if self.seen == head {
            return Ok(());
        }
        let changes = table.changes_since(self.seen).ok_or(FellBehind)?;
        self.keep_marks();
        for (name, kept) in changes {
            if !self.interest.covers(name) {
                continue;
            }
            match kept {
                Kept::Live => self.want(name.clone(), head),
                Kept::Removed => self.doom(name.clone(), head),
            }
        }
        self.seen = head;
        Ok(())
    }

    /// Marks a name to be sent again, if the client asked for it.
    pub fn touch(&mut self, name: &Name) {
        if self.interest.covers(name) {
            self.keep_marks();
            self.want(name.clone(), self.seen);
        }
    }

    /// Puts aside the names that the client cannot use yet, and takes up those that it can use by now.
    pub fn park(&mut self, usable: impl Fn(&str) -> bool) {
        self.keep_marks();
        let (ready, early) = std::mem::take(&mut self.dirty.names).into_iter().partition(|name| usable(name));
        self.dirty.names = ready;
        let (ready, still_early): (BTreeSet<_>, _) =
            std::mem::take(&mut self.parked).into_iter().partition(|name| usable(name));
        self.parked = still_early;
        self.parked.extend::<BTreeSet<Name>>(early);
        for name in ready {
            self.dirty.insert(name, self.seen);
        }
    }

    /// Whether the client has the resource called `name` as it is, or it is on its way.
    pub fn has_sent(&self, name: &str, table: &Table) -> bool {
        self.started && self.interest.covers(name) && !self.dirty.contains(name) && table.resource(name).is_some()
    }

    /// The response that is waited for.
    pub fn outstanding(&self) -> Option<&Sent> {
        self.unanswered.back().filter(|_| self.waiting)
    }

    /// Whether a response has not been answered, waited for or not.
    pub fn is_unanswered(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// The names in responses that have not been answered: the client may be yet to read them.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = &Name> {
        self.unanswered.iter().flat_map(|sent| &sent.names)
    }

    /// Holds nothing back any more for the answer to the last response.
    pub fn give_up_waiting(&mut self) {
        self.waiting = false;
    }

    /// Whether there is something new or changed to send.
    pub fn has_unsent_additions(&self) -> bool {
        self.owed || !self.dirty.is_empty()
    }

    /// Whether there are removals to send.
    pub fn has_unsent_removals(&self) -> bool {
        !self.doomed.is_empty()
    }

    /// Whether there are additions to send or to be acknowledged.
    pub fn has_additions(&self) -> bool {
        self.has_unsent_additions() || self.waiting
    }

    /// Whether everything up to [`Progress::seen`] was sent and answered.
    pub fn is_settled(&self) -> bool {
        !self.has_unsent_additions() && self.doomed.is_empty() && self.unanswered.is_empty()
    }

    /// The sequence up to which changes were taken in.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The newest change among what is new or changed and not sent; 0 if nothing is.
    pub fn additions_since(&self) -> u64 {
        if self.dirty.is_empty() { 0 } else { self.dirty.at }
    }

    /// The newest change among the removals that are not sent; 0 if there is none.
    pub fn removals_since(&self) -> u64 {
        if self.doomed.is_empty() { 0 } else { self.doomed.at }
    }

    /// The sequence up to which additions were sent, and answered or no longer waited for.
    pub fn additions_through(&self) -> u64 {
        if self.has_additions() { self.additions_through } else { self.seen }
    }

    /// The sequence up to which everything was sent and answered.
    pub fn settled_through(&self) -> u64 {
        if self.is_settled() { self.seen } else { self.settled_through }
    }

    /// Whether this is the first request; it says where the stream begins.
    pub(super) fn start(&mut self, head: u64) -> bool {
        let first = !std::mem::replace(&mut self.started, true);
        if first {
            self.seen = head;
        }
        first
    }

    /// The resource called `name` has to be sent.
    pub(super) fn want(&mut self, name: Name, at: u64) {
        self.doomed.names.remove(&name);
        self.dirty.insert(name, at);
    }

    /// The removal of the resource called `name` has to be sent.
    pub(super) fn doom(&mut self, name: Name, at: u64) {
        self.dirty.names.remove(&name);
        self.parked.remove(&name);
        self.doomed.insert(name, at);
    }

    /// Nothing has to be sent about `name`.
    pub(super) fn skip(&mut self, name: &str) {
        self.dirty.names.remove(name);
        self.parked.remove(name);
        self.doomed.names.remove(name);
    }

    /// Nothing has to be sent about names that are of no interest any more.
    pub(super) fn skip_uninteresting(&mut self) {
        let interest = &self.interest;
        self.dirty.names.retain(|name| interest.covers(name));
        self.parked.retain(|name| interest.covers(name));
        self.doomed.names.retain(|name| interest.covers(name));
    }

    /// Everything of interest has to be sent.
    pub(super) fn want_all(&mut self, table: &Table, at: u64) {
        for resource in table.resources() {
            if self.interest.covers(resource.name()) {
                self.want(resource.name().clone(), at);
            }
        }
    }

    /// Takes the answer to a response, if `nonce` names one. Those before it will not be answered any more.
    pub(super) fn answered(&mut self, nonce: &str, error: Option<String>) -> Verdict {
        let answered = self.unanswered.iter().position(|sent| sent.nonce == nonce);
        let sent = answered.and_then(|at| self.unanswered.drain(..=at).next_back());
        self.waiting &= !self.unanswered.is_empty();
        if let Some(sent) = &sent {
            self.additions_through = self.additions_through.max(sent.sequence);
            if sent.complete {
                self.settled_through = self.settled_through.max(sent.sequence);
            }
        }
        self.keep_marks();
        match (sent, error) {
            (Some(sent), None) => Verdict::Acknowledged(sent),
            (Some(sent), Some(message)) => Verdict::Rejected(sent, message),
            (None, _) => Verdict::None,
        }
    }

    /// Notes a response made of everything that may be sent now. `set` are the resources in it that
    /// are new or changed, `names` all that are in it, set or removed.
    pub(super) fn send(&mut self, version: String, names: Vec<Name>, set: Vec<Name>, now: Instant) -> Sent {
        self.nonce += 1;
        let sent = Sent {
            nonce: self.nonce.to_string(),
            version,
            sequence: self.seen,
            names,
            set,
            complete: !self.has_unsent_additions() && self.doomed.is_empty(),
            at: now,
        };
        if self.unanswered.len() == MAX_UNANSWERED {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back(sent.clone());
        self.waiting = true;
        sent
    }

    /// Remembers how far the client has come, before there is something new for it.
    fn keep_marks(&mut self) {
        self.additions_through = self.additions_through();
        self.settled_through = self.settled_through();
    }
}
