//! How far a client has been served, of one type: what both protocol variants share. Pure.
//!
//! A name is *dirty* if its resource has to be sent, *doomed* if the client has it and its removal has to be. It
//! is both only while its removal has to wait for others, and these need its last content before. A response that
//! was sent is *waited for*: others of the stream may be held back until it is answered. That
//! patience ends, the interest in the answer does not: an acknowledgement that comes a minute
//! later still counts, and until then the client is not settled.
//!
//! What is pending remembers its oldest and newest change, so that whoever waits for a change waits for that one
//! and not for a moment of silence, which under steady changes may never come: see
//! [`Progress::additions_through`] and [`Progress::settled_through`].

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
    /// Of the changes in `dirty`.
    dirty_span: Span,
    /// Dirty as well, but of no use to the client yet; does not count as unsent.
    parked: BTreeMap<Name, Want>,
    doomed: BTreeSet<Name>,
    /// Of the changes in `doomed`.
    doomed_span: Span,
    /// Of the changes that were taken out of both to be sent.
    taken: Span,
    /// All changes up to here are in `dirty` and `doomed`, or were sent.
    seen: u64,
    /// Oldest first, each with the oldest change in it.
    unanswered: VecDeque<(u64, Sent)>,
    /// Whether the last of `unanswered` is waited for.
    waiting: bool,
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

/// The oldest and the newest of some sequences.
#[derive(Clone, Copy, Debug)]
struct Span {
    oldest: u64,
    newest: u64,
}

impl Default for Span {
    fn default() -> Self {
        Self { oldest: u64::MAX, newest: 0 }
    }
}

impl Span {
    fn add(&mut self, oldest: u64, newest: u64) {
        self.oldest = self.oldest.min(oldest);
        self.newest = self.newest.max(newest);
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
        for (name, kept) in changes {
            if !self.interest.covers(name) {
                continue;
            }
            // What is not marked, the client has as it was when we last looked. This change may be the last of
            // several since then, the first of which made others wait.
            let since = self.seen + 1;
            let held = || table.had(name, self.seen);
            match kept {
                Kept::Live => {
                    let held = self.marked(name).is_none() && held();
                    self.mark(name.clone(), since, head, Want { held, due: false });
                }
                Kept::Removed => {
                    let want = self.marked(name);
                    if want.map_or_else(held, |want| want.held) {
                        let before = want.map_or(since, |_| self.dirty_span.oldest);
                        self.mark_doomed(since.min(before), head);
                        self.doomed.insert(name.clone());
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
            self.mark_dirty(self.seen, self.seen);
            *self.dirty.entry(name.clone()).or_default() = Want { held: true, due: true };
        }
    }

    /// Puts aside the names that the client cannot use yet, and takes up those that it can use by now.
    pub fn park(&mut self, usable: impl Fn(&str) -> bool) {
        let late: Vec<_> = self.parked.extract_if(.., |name, _| usable(name)).collect();
        self.parked.extend(self.dirty.extract_if(.., |name, _| !usable(name)));
        for (name, want) in late {
            self.mark_dirty(self.seen, self.seen);
            self.dirty.insert(name, want);
        }
    }

    /// Whether the client has the resource called `name` as it is, or it is on its way.
    pub fn has_sent(&self, name: &str, table: &Table) -> bool {
        self.started && self.interest.covers(name) && !self.dirty.contains_key(name) && table.resource(name).is_some()
    }

    /// The response that is waited for.
    pub fn outstanding(&self) -> Option<&Sent> {
        self.unanswered.back().filter(|_| self.waiting).map(|(_, sent)| sent)
    }

    /// Whether a response has not been answered, waited for or not.
    pub fn is_unanswered(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// The names in responses that have not been answered: the client may be yet to read them.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = &Name> {
        self.unanswered.iter().flat_map(|(_, sent)| &sent.names)
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
        if self.dirty.is_empty() { 0 } else { self.dirty_span.newest }
    }

    /// The newest change among the removals that are not sent; 0 if there is none.
    pub fn removals_since(&self) -> u64 {
        if self.doomed.is_empty() { 0 } else { self.doomed_span.newest }
    }

    /// The sequence up to which additions were sent.
    pub fn sent_through(&self) -> u64 {
        if self.has_unsent_additions() { self.seen.min(self.dirty_span.oldest.saturating_sub(1)) } else { self.seen }
    }

    /// The sequence up to which additions were sent, and answered or no longer waited for.
    pub fn additions_through(&self) -> u64 {
        let waited_for = self.unanswered.back().filter(|_| self.waiting);
        self.sent_through().min(waited_for.map_or(u64::MAX, |(oldest, _)| oldest.saturating_sub(1)))
    }

    /// The sequence up to which everything was sent and answered.
    pub fn settled_through(&self) -> u64 {
        let removals = if self.doomed.is_empty() { u64::MAX } else { self.doomed_span.oldest };
        let pending = self.unanswered.iter().map(|(oldest, _)| *oldest).fold(removals, u64::min);
        self.sent_through().min(pending.saturating_sub(1))
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

    /// The resource called `name` has to be sent, because the client asks for it at `head`. It may never have
    /// had it, so nobody can count on it having any.
    pub(super) fn want(&mut self, name: Name, head: u64, want: Want) {
        self.mark(name, 0, head, want);
    }

    fn mark(&mut self, name: Name, oldest: u64, newest: u64, want: Want) {
        let doomed = self.doomed.remove(&name);
        self.mark_dirty(if doomed { oldest.min(self.doomed_span.oldest) } else { oldest }, newest);
        let parked = self.parked.remove(&name).unwrap_or_default();
        let before = self.dirty.entry(name).or_insert(parked);
        *before = Want { held: before.held | want.held | doomed, due: before.due | want.due };
    }

    /// A reply is due, even if it is empty.
    pub(super) fn owe(&mut self, head: u64) {
        self.mark_dirty(0, head);
        self.owed = true;
    }

    /// The removal of the resource called `name`, which the client has, has to be sent.
    pub(super) fn doom(&mut self, name: Name, head: u64) {
        self.unmark(&name);
        self.mark_doomed(0, head);
        self.doomed.insert(name);
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
    pub(super) fn want_all(&mut self, table: &Table, head: u64, held: impl Fn(&str) -> bool) {
        for resource in table.resources() {
            let name = resource.name();
            if self.interest.covers(name) {
                self.want(name.clone(), head, if held(name) { Want::HELD } else { Want::NEW });
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
        self.taken = if self.has_unsent_additions() { self.dirty_span } else { Span::default() };
        std::mem::take(&mut self.dirty).into_keys().collect()
    }

    /// What has to be removed, which is about to be, together with what was taken before.
    pub(super) fn take_doomed(&mut self) -> BTreeSet<Name> {
        if !self.doomed.is_empty() {
            self.taken.oldest = self.taken.oldest.min(self.doomed_span.oldest);
        }
        std::mem::take(&mut self.doomed)
    }

    /// What has to be removed, but not yet.
    pub(super) fn doomed(&self) -> impl Iterator<Item = &Name> {
        self.doomed.iter()
    }

    fn mark_dirty(&mut self, oldest: u64, newest: u64) {
        if !self.has_unsent_additions() {
            self.dirty_span = Span::default();
        }
        self.dirty_span.add(oldest, newest);
    }

    fn mark_doomed(&mut self, oldest: u64, newest: u64) {
        if self.doomed.is_empty() {
            self.doomed_span = Span::default();
        }
        self.doomed_span.add(oldest, newest);
    }

    /// Takes the answer to a response, if `nonce` names one. Those before it will not be answered any more.
    pub(super) fn answered(&mut self, nonce: &str, error: Option<String>) -> Verdict {
        let answered = self.unanswered.iter().position(|(_, sent)| sent.nonce == nonce);
        let sent = answered.and_then(|at| self.unanswered.drain(..=at).next_back()).map(|(_, sent)| sent);
        self.waiting &= !self.unanswered.is_empty();
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
        let mut oldest = std::mem::take(&mut self.taken).oldest.min(self.seen);
        if self.unanswered.len() == MAX_UNANSWERED
            && let Some((forgotten, _)) = self.unanswered.pop_front()
        {
            // It was not answered either.
            oldest = oldest.min(forgotten);
        }
        self.unanswered.push_back((oldest, sent.clone()));
        self.waiting = true;
        sent
    }
}
