//! Counts over the last while, in slots of equal length. Pure.
//!
//! Time is in whole seconds since some start. A slot in which nothing was counted takes no memory, and more samples than
//! slots cannot be, however often somebody reports.

use std::collections::VecDeque;

use super::Counts;

/// The last `SLOTS` slots, each of `SECONDS`.
#[derive(Clone, Debug, Default)]
pub(super) struct Window<const SECONDS: u32, const SLOTS: u32> {
    /// Oldest first, one per slot.
    samples: VecDeque<Sample>,
}

/// Small, for there are many.
#[derive(Clone, Copy, Debug)]
struct Sample {
    slot: u32,
    successes: u32,
    errors: u32,
    dropped: u32,
}

impl<const SECONDS: u32, const SLOTS: u32> Window<SECONDS, SLOTS> {
    /// Adds what was counted up to `second`; earlier than the newest counts as the newest.
    pub(super) fn add(&mut self, second: u32, counts: Counts) {
        if counts.is_zero() {
            return;
        }
        let slot = second / SECONDS;
        match self.samples.back_mut().filter(|newest| newest.slot >= slot) {
            Some(newest) => newest.add(counts),
            None => {
                let mut sample = Sample { slot, successes: 0, errors: 0, dropped: 0 };
                sample.add(counts);
                self.samples.push_back(sample);
            }
        }
    }

    /// Forgets what is no more of the last while at `second`.
    pub(super) fn expire(&mut self, second: u32) {
        let slot = second / SECONDS;
        while self.samples.front().is_some_and(|oldest| oldest.slot.saturating_add(SLOTS) <= slot) {
            self.samples.pop_front();
        }
        if self.samples.is_empty() {
            self.samples = VecDeque::new();
        }
    }

    /// What was counted in slots that begin at `second` or later.
    pub(super) fn since(&self, second: u32) -> Counts {
        let slot = second.div_ceil(SECONDS);
        let mut sum = Counts::default();
        for sample in self.samples.iter().rev().take_while(|sample| sample.slot >= slot) {
            sum += sample.counts();
        }
        sum
    }

    /// What was counted in the last while, as of the last time that it was looked at.
    pub(super) fn sum(&self) -> Counts {
        self.since(0)
    }

    /// Whether nothing was counted in the last while.
    pub(super) fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }
}

impl Sample {
    fn add(&mut self, counts: Counts) {
        let add = |to: &mut u32, more: u64| *to = to.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
        add(&mut self.successes, counts.successes);
        add(&mut self.errors, counts.errors);
        add(&mut self.dropped, counts.dropped);
    }

    fn counts(self) -> Counts {
        let Self { slot: _, successes, errors, dropped } = self;
        Counts { successes: successes.into(), errors: errors.into(), dropped: dropped.into() }
    }
}
