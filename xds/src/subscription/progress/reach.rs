//! How far a client has come, in sequences of the cache: what was sent, answered and taken up to where. Pure.
//!
//! Whoever waits for a change waits for one of these to pass it.

use super::Progress;

impl Progress {
    /// The newest change among what is new or changed and not sent; 0 if nothing is.
    pub fn additions_since(&self) -> u64 {
        if self.dirty.is_empty() { 0 } else { self.dirty_span.newest }
    }

    /// The sequence up to which additions were sent.
    pub fn sent_through(&self) -> u64 {
        if self.has_unsent_additions() { self.seen.min(self.dirty_span.oldest.saturating_sub(1)) } else { self.seen }
    }

    /// The sequence up to which additions were sent, and answered or no longer waited for.
    pub fn additions_through(&self) -> u64 {
        let waited_for = self.unanswered.back().filter(|_| self.waiting);
        self.sent_through().min(waited_for.map_or(u64::MAX, |unanswered| unanswered.oldest.saturating_sub(1)))
    }

    /// The sequence up to which everything was sent and answered.
    pub fn settled_through(&self) -> u64 {
        if self.doomed.is_empty() && self.unanswered.is_empty() {
            return self.sent_through();
        }
        let removals = self.doomed.values().map(|span| span.oldest);
        let pending = removals.chain(self.unanswered.iter().map(|unanswered| unanswered.oldest)).min();
        self.sent_through().min(pending.unwrap_or(u64::MAX).saturating_sub(1))
    }

    /// The newest change that is kept back because of a rejection.
    pub fn kept_back(&self) -> Option<u64> {
        self.kept_back.values().map(|(_, span)| span.newest).max()
    }

    /// The sequence up to which nothing was rejected, or kept back because of a rejection, and is so still.
    pub fn taken_through(&self) -> u64 {
        let kept_back = self.kept_back.values().map(|(_, span)| span.oldest);
        kept_back.chain(self.refused.oldest()).min().map_or(u64::MAX, |oldest| oldest.saturating_sub(1))
    }
}
