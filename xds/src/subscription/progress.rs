//! How far a client has been served, of one type: what both protocol variants share. Pure.
//!
//! A name is *dirty* if its resource has to be sent, *doomed* if the client has it and its removal has to be. It
//! is both only while its removal has to wait for others, and these need its last content before. A response that
//! was sent is *waited for*: others of the stream may be held back until it is answered. That
//! patience ends, the interest in the answer does not: an acknowledgement that comes a minute
//! later still counts, and until then the client is not settled.
//!
//! What a client rejects counts as answered, but not as taken ([`Progress::taken_through`]). What refers to something that
//! the client lacks because of that is *kept back*; it does not count as unsent.
//!
//! What is pending remembers its oldest and newest change, so that whoever waits for a change waits for that one
//! and not for a moment of silence, which under steady changes may never come: see
//! [`Progress::additions_through`] and [`Progress::settled_through`].

mod reach;
mod standing;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use super::{
    FellBehind, Gate, Interest, Sent, TypeRules, Verdict,
    pending::{Span, Unanswered, Want},
    refusals::Refusals,
};
pub use standing::{Standing, State};

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
    /// Dirty as well, but with a reference to what the client lacks; does not count as unsent.
    kept_back: BTreeMap<Name, (Want, Span)>,
    /// What it was that the client lacked when these were looked through.
    kept_at: u64,
    doomed: BTreeMap<Name, Span>,
    /// Of the changes that were taken out of `dirty` and `doomed` to be sent.
    taken: Span,
    /// The names that were taken out of `dirty` and that the client has no resource of, for types that are taken
    /// one by one.
    taken_new: Vec<Name>,
    refused: Refusals,
    /// All changes up to here are in `dirty` and `doomed`, or were sent.
    seen: u64,
    /// Oldest first.
    unanswered: VecDeque<Unanswered>,
    /// Whether the last of `unanswered` is waited for.
    waiting: bool,
    started: bool,
    returning: bool,
    nonce: u64,
}

impl Progress {
    pub(super) fn new(rules: TypeRules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Takes in what changed in the cache since the last time.
    pub fn absorb(&mut self, table: &Table, head: u64) -> Result<(), FellBehind> {
        if table.changed_at() <= self.seen {
            self.seen = head;
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
            let seen = self.seen;
            let held = || table.had(name, seen) != Some(false);
            match kept {
                Kept::Live => {
                    let unmarked = self.marked(name).is_none();
                    let want = if unmarked { Want::since(table, name, seen) } else { Want::NEW };
                    self.mark(name.clone(), since, head, want);
                }
                Kept::Removed => {
                    let want = self.marked(name);
                    // A cluster that is about to go as well may be waiting for it.
                    let last = want.is_some() && self.rules.always_resent;
                    let before = want.map_or(since, |_| self.marked_since(name));
                    if want.is_some_and(|want| !want.due) && !last {
                        self.unmark(name);
                    }
                    if last || want.map_or_else(held, |want| want.held) {
                        self.mark_doomed(name.clone(), since.min(before), head);
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
            // If it is kept back, it has been waiting since then.
            let since = self.kept_back.remove(name).map_or(self.seen, |(_, span)| span.oldest.min(self.seen));
            self.mark_dirty(since, self.seen);
            *self.dirty.entry(name.clone()).or_default() = Want { held: true, sure: false, due: true };
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

    /// Lets go of the names that were kept back and are not to be any more. With the same `changes` as before, there
    /// are none.
    pub fn let_go(&mut self, changes: u64, keeps: impl Fn(&str) -> bool) {
        if std::mem::replace(&mut self.kept_at, changes) == changes {
            return;
        }
        let free: Vec<_> = self.kept_back.extract_if(.., |name, _| !keeps(name)).collect();
        for (name, (want, span)) in free {
            self.mark_dirty(span.oldest, self.seen);
            self.dirty.insert(name, want);
        }
    }

    /// Keeps back the names that are about to be sent and must not be yet.
    pub fn keep_back(&mut self, keeps: impl Fn(&str) -> bool) {
        let span = self.dirty_span;
        let kept = self.dirty.extract_if(.., |name, _| keeps(name));
        self.kept_back.extend(kept.map(|(name, want)| (name, (want, span))));
    }

    /// Whether the client lacks, because it has rejected it, something that `bytes` names.
    pub fn is_lacking_in(&self, bytes: &[u8]) -> bool {
        self.refused.is_lacking_in(bytes)
    }

    /// Differs when the client lacks something else because it has rejected it.
    pub fn lacking_changes(&self) -> u64 {
        self.refused.changes()
    }

    /// Whether the client has the resource called `name`, as it is or an older one, or it is on its way.
    pub fn has_sent(&self, name: &str, table: &Table) -> bool {
        let withheld = || self.kept_back.get(name).is_some_and(|(want, _)| !want.held);
        let sent = self.started && !self.dirty.contains_key(name) && !withheld();
        sent && self.interest.covers(name) && table.resource(name).is_some()
    }

    /// The response that is waited for.
    pub fn outstanding(&self) -> Option<&Sent> {
        self.unanswered.back().filter(|_| self.waiting).map(|unanswered| &unanswered.sent)
    }

    /// Whether a response has not been answered, waited for or not.
    pub fn is_unanswered(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// The names in responses that have not been answered: the client may be yet to read them.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = &Name> {
        self.unanswered.iter().flat_map(|unanswered| &*unanswered.sent.names)
    }

    /// Holds nothing back any more for the answer to the last response.
    pub fn give_up_waiting(&mut self) {
        self.waiting = false;
    }

    /// Whether there is nothing to send, now or later.
    pub fn is_idle(&self) -> bool {
        let later = self.parked.is_empty() && self.kept_back.is_empty() && self.doomed.is_empty();
        later && !self.has_unsent_additions()
    }

    /// Whether there is something new or changed to send.
    pub fn has_unsent_additions(&self) -> bool {
        self.owed || !self.dirty.is_empty()
    }

    /// For each removal that is not sent, when it came.
    pub fn unsent_removals(&self) -> impl Iterator<Item = u64> {
        self.doomed.values().map(|span| span.newest)
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

    /// What the client has asked for.
    pub fn interest(&self) -> &Interest {
        &self.interest
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
        let kept_back = self.kept_back.remove(&name);
        let before = doomed.map(|span| span.oldest).into_iter().chain(kept_back.map(|(_, span)| span.oldest));
        self.mark_dirty(before.fold(oldest, u64::min), newest);
        let aside = self.parked.remove(&name).or(kept_back.map(|(want, _)| want)).unwrap_or_default();
        let before = self.dirty.entry(name).or_insert(aside);
        *before = Want {
            held: before.held | want.held | doomed.is_some(),
            sure: before.sure | want.sure,
            due: before.due | want.due,
        };
    }

    /// A reply is due, even if it is empty.
    pub(super) fn owe(&mut self, head: u64) {
        self.mark_dirty(0, head);
        self.owed = true;
    }

    /// The removal of the resource called `name`, which the client has, has to be sent.
    pub(super) fn doom(&mut self, name: Name, head: u64) {
        self.unmark(&name);
        self.mark_doomed(name, 0, head);
    }

    /// Whether the removal of `name` has to be sent.
    pub(super) fn is_doomed(&self, name: &str) -> bool {
        self.doomed.contains_key(name)
    }

    /// Nothing has to be sent about `name`.
    pub(super) fn skip(&mut self, name: &str) {
        self.unmark(name);
        self.doomed.remove(name);
    }

    /// Nothing is known of `name`, because it is of no interest any more.
    pub(super) fn forget(&mut self, name: &str) {
        self.skip(name);
        self.refused.remove(name);
    }

    /// Nothing has to be sent about names that are of no interest any more.
    pub(super) fn skip_uninteresting(&mut self) {
        let interest = &self.interest;
        self.dirty.retain(|name, _| interest.covers(name));
        self.parked.retain(|name, _| interest.covers(name));
        self.kept_back.retain(|name, _| interest.covers(name));
        self.doomed.retain(|name, _| interest.covers(name));
        self.refused.retain(|name| interest.covers(name));
    }

    /// Everything of interest has to be sent; `want` says what of it the client has an older one of.
    pub(super) fn want_all(&mut self, table: &Table, head: u64, want: impl Fn(&str) -> Want) {
        for resource in table.resources() {
            let name = resource.name();
            if self.interest.covers(name) {
                self.want(name.clone(), head, want(name));
            }
        }
    }

    /// Why `name` has to be sent, now or later.
    fn marked(&self, name: &str) -> Option<Want> {
        let kept_back = || self.kept_back.get(name).map(|(want, _)| want);
        self.dirty.get(name).or_else(|| self.parked.get(name)).or_else(kept_back).copied()
    }

    /// The oldest change that a marked name may be marked for.
    fn marked_since(&self, name: &str) -> u64 {
        self.kept_back.get(name).map_or(self.dirty_span.oldest, |(_, span)| span.oldest)
    }

    fn unmark(&mut self, name: &str) {
        self.dirty.remove(name);
        self.parked.remove(name);
        self.kept_back.remove(name);
    }

    /// What has to be sent, which is about to be; in order.
    pub(super) fn take_dirty(&mut self) -> Vec<Name> {
        self.taken = if self.has_unsent_additions() { self.dirty_span } else { Span::default() };
        let dirty = std::mem::take(&mut self.dirty);
        let new = dirty.iter().filter(|(_, want)| self.rules.piecewise && !want.sure);
        self.taken_new = new.map(|(name, _)| name.clone()).collect();
        dirty.into_keys().collect()
    }

    /// What has to be removed and may be, which is about to be, together with what was taken before; in order.
    pub(super) fn take_doomed(&mut self, gate: Gate) -> Vec<Name> {
        let Gate::Through(sequence) = gate else { return Vec::new() };
        let taken: BTreeMap<_, _> = self.doomed.extract_if(.., |_, span| span.newest <= sequence).collect();
        for (name, span) in &taken {
            // What it has rejected it may have until it has taken the removal.
            let refused = self.refused.remove(name).unwrap_or(u64::MAX);
            self.taken.oldest = self.taken.oldest.min(span.oldest).min(refused);
        }
        taken.into_keys().collect()
    }

    /// What has to be removed, but not yet.
    pub(super) fn doomed(&self) -> impl Iterator<Item = &Name> {
        self.doomed.keys()
    }

    /// What the client has rejected, and not taken since.
    pub(super) fn refused(&self) -> impl Iterator<Item = &Name> {
        self.refused.names()
    }

    fn mark_dirty(&mut self, oldest: u64, newest: u64) {
        if !self.has_unsent_additions() {
            self.dirty_span = Span::default();
        }
        self.dirty_span.add(oldest, newest);
    }

    /// The removal of the resource called `name` has to be sent; until it may be, what else was to be sent.
    pub(super) fn mark_doomed(&mut self, name: Name, oldest: u64, newest: u64) {
        self.doomed.entry(name).or_default().add(oldest, newest);
    }

    /// Takes the answer to a response, if `nonce` names one. Those before it will not be answered any more.
    pub(super) fn answered(&mut self, nonce: &str, error: Option<String>) -> Verdict {
        let answered = self.unanswered.iter().position(|unanswered| *unanswered.sent.nonce == *nonce);
        let answered = answered.and_then(|at| self.unanswered.drain(..=at).next_back());
        self.waiting &= !self.unanswered.is_empty();
        let Some(Unanswered { oldest, new, sent }) = answered else { return Verdict::None };
        match error {
            None => {
                for name in &*sent.names {
                    self.refused.remove(name);
                }
                Verdict::Acknowledged(sent)
            }
            Some(words) => {
                self.refused.add(&sent, oldest, &new, self.rules.piecewise, &words);
                self.refused.retain(|name| self.interest.covers(name));
                Verdict::Rejected(sent, words)
            }
        }
    }

    /// Notes a response made of everything that may be sent now. `set` are the resources in it that
    /// are new or changed, `names` all that are in it, set or removed.
    pub(super) fn send(&mut self, version: String, names: Arc<[Name]>, set: Arc<[Name]>, now: Instant) -> Sent {
        self.nonce += 1;
        let sent = Sent {
            nonce: self.nonce.to_string().into(),
            version: version.into(),
            sequence: self.seen,
            names,
            set,
            complete: !self.has_unsent_additions() && self.doomed.is_empty(),
            at: now,
        };
        let mut oldest = std::mem::take(&mut self.taken).oldest.min(self.seen);
        let mut new = std::mem::take(&mut self.taken_new);
        if self.unanswered.len() == MAX_UNANSWERED
            && let Some(forgotten) = self.unanswered.pop_front()
        {
            // It was not answered either.
            oldest = oldest.min(forgotten.oldest);
            new.extend(forgotten.new);
        }
        // Hardly ever is there more than one.
        self.unanswered.reserve_exact(1);
        self.unanswered.push_back(Unanswered { oldest, new, sent: sent.clone() });
        self.waiting = true;
        sent
    }
}
