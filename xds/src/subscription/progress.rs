//! How far a client has been served, of one type: what both protocol variants share. Pure.
//!
//! A name is *dirty* if its resource has to be sent, *doomed* if the client has it and its removal has to be. It
//! is both only while its removal has to wait for others, and these need its last content before. A response that
//! was sent is *waited for*: others of the stream may be held back until it is answered. That
//! patience ends, the interest in the answer does not: an acknowledgement that comes a minute
//! later still counts, and until then the client is not settled.
//!
//! Two marks say how far the client has come, so that whoever waits for a change waits for that one and not for
//! a moment of silence, which under steady changes may never come: [`Progress::additions_through`] and
//! [`Progress::settled_through`].

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
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
    dirty: BTreeMap<Name, Want>,
    /// Dirty as well, but of no use to the client yet; does not count as unsent.
    parked: BTreeMap<Name, Want>,
    /// The newest change in `dirty`.
    dirty_at: u64,
    doomed: BTreeSet<Name>,
    /// The newest change in `doomed`.
    doomed_at: u64,
    /// All changes up to here are in `dirty` and `doomed`, or were sent.
    seen: u64,
    /// Oldest first.
    unanswered: VecDeque<Sent>,
    /// Whether the last of `unanswered` is waited for.
    waiting: bool,
    additions_through: u64,
    settled_through: u64,
    started: bool,
    returning: bool,
    nonce: u64,
}

/// Why a resource has to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Want {
    /// The client has an older one.
    pub(super) held: bool,
    /// It is to hear of this name even if there is no such resource.
    pub(super) due: bool,
}

impl Want {
    pub(super) const NEW: Self = Self { held: false, due: false };
    pub(super) const HELD: Self = Self { held: true, due: false };
    pub(super) const ASKED: Self = Self { held: false, due: true };
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
            // What is not marked, the client has as it was when we last looked.
            let held = || table.had(name, self.seen);
            match kept {
                Kept::Live => {
                    let held = self.marked(name).is_none() && held();
                    self.want(name.clone(), head, Want { held, due: false });
                }
                Kept::Removed => {
                    let want = self.marked(name);
                    if want.map_or_else(held, |want| want.held) {
                        self.doomed.insert(name.clone());
                        self.doomed_at = head;
                    }
                    if want.is_some_and(|want| !want.due) {
                        self.unmark(name);
                    }
                }
            }
        }
        self.seen = head;
        Ok(())
    }

    /// Marks a name to be sent again, if the client asked for it; if its removal is held back, as it was.
    pub fn touch(&mut self, name: &Name) {
        if self.interest.covers(name) {
            self.keep_marks();
            self.dirty_at = self.dirty_at.max(self.seen);
            *self.dirty.entry(name.clone()).or_default() = Want { held: true, due: true };
        }
    }

    /// Puts aside the names that the client cannot use yet, and takes up those that it can use by now.
    pub fn park(&mut self, usable: impl Fn(&str) -> bool) {
        self.keep_marks();
        let late: Vec<_> = self.parked.extract_if(.., |name, _| usable(name)).collect();
        self.parked.extend(self.dirty.extract_if(.., |name, _| !usable(name)));
        for (name, want) in late {
            self.dirty_at = self.dirty_at.max(self.seen);
            self.dirty.insert(name, want);
        }
    }

    /// Whether the client has the resource called `name` as it is, or it is on its way.
    pub fn has_sent(&self, name: &str, table: &Table) -> bool {
        self.started && self.interest.covers(name) && !self.dirty.contains_key(name) && table.resource(name).is_some()
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
        if self.dirty.is_empty() { 0 } else { self.dirty_at }
    }

    /// The newest change among the removals that are not sent; 0 if there is none.
    pub fn removals_since(&self) -> u64 {
        if self.doomed.is_empty() { 0 } else { self.doomed_at }
    }

    /// The sequence up to which additions were sent, and answered or no longer waited for.
    pub fn additions_through(&self) -> u64 {
        if self.has_additions() { self.additions_through } else { self.seen }
    }

    /// The sequence up to which everything was sent and answered.
    pub fn settled_through(&self) -> u64 {
        if self.is_settled() { self.seen } else { self.settled_through }
    }

    /// Whether the client had resources of this type from an earlier stream.
    pub fn is_returning(&self) -> bool {
        self.returning
    }

    /// Whether this is the first request. It says where the stream begins, and whether there was one before.
    pub(super) fn start(&mut self, head: u64, returning: bool) -> bool {
        let first = !std::mem::replace(&mut self.started, true);
        if first {
            self.seen = head;
            self.returning = returning;
        }
        first
    }

    /// The resource called `name` has to be sent.
    pub(super) fn want(&mut self, name: Name, at: u64, want: Want) {
        let doomed = self.doomed.remove(&name);
        let parked = self.parked.remove(&name).unwrap_or_default();
        let before = self.dirty.entry(name).or_insert(parked);
        *before = Want { held: before.held | want.held | doomed, due: before.due | want.due };
        self.dirty_at = at;
    }

    /// The removal of the resource called `name`, which the client has, has to be sent.
    pub(super) fn doom(&mut self, name: Name, at: u64) {
        self.unmark(&name);
        self.doomed.insert(name);
        self.doomed_at = at;
    }

    /// Whether the removal of `name` has to be sent.
    pub(super) fn is_doomed(&self, name: &str) -> bool {
        self.doomed.contains(name)
    }

    /// Nothing has to be sent about `name`.
    pub(super) fn skip(&mut self, name: &str) {
        self.unmark(name);
        self.doomed.remove(name);
    }

    /// Nothing has to be sent about names that are of no interest any more.
    pub(super) fn skip_uninteresting(&mut self) {
        let interest = &self.interest;
        self.dirty.retain(|name, _| interest.covers(name));
        self.parked.retain(|name, _| interest.covers(name));
        self.doomed.retain(|name| interest.covers(name));
    }

    /// Everything of interest has to be sent; `held` says what of it the client has an older one of.
    pub(super) fn want_all(&mut self, table: &Table, at: u64, held: impl Fn(&str) -> bool) {
        for resource in table.resources() {
            let name = resource.name();
            if self.interest.covers(name) {
                self.want(name.clone(), at, if held(name) { Want::HELD } else { Want::NEW });
            }
        }
    }

    /// Why `name` has to be sent, now or later.
    fn marked(&self, name: &str) -> Option<Want> {
        self.dirty.get(name).or_else(|| self.parked.get(name)).copied()
    }

    fn unmark(&mut self, name: &str) {
        self.dirty.remove(name);
        self.parked.remove(name);
    }

    /// What has to be sent, which is about to be.
    pub(super) fn take_dirty(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.dirty).into_keys().collect()
    }

    /// What has to be removed, which is about to be.
    pub(super) fn take_doomed(&mut self) -> BTreeSet<Name> {
        std::mem::take(&mut self.doomed)
    }

    /// What has to be removed, but not yet.
    pub(super) fn doomed(&self) -> impl Iterator<Item = &Name> {
        self.doomed.iter()
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
