//! What waits to be sent on a link: any thread puts in, the link's task takes out.
//!
//! There are two lines. In front wait charges that somebody waits for; all of them go together. Behind them waits what is
//! borrowed and given back in the background, and goes a few at a time, so that nobody in front waits for long because of it.
//!
//! Whether Redis answers is kept under the same lock as the queue. So nothing can be put in after the link has opened its
//! breaker and answered what was waiting; without that a request could wait for an outage to end.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{script::Call, ticket::Ticket};

/// Charges that may wait at once. At a deadline of 5 ms this is three million a second: beyond, Redis is as good as away.
const MOST: usize = 16_384;

/// Charges of the background that go together: half a millisecond of Redis's time.
const PORTION: usize = 64;

/// As many of them go along with any charge in front.
const FEW: usize = 8;

/// A charge on its way.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) call: Call,
    /// Who waits, and for which slot. Nobody waits for what is borrowed or given back in the background.
    pub(crate) ticket: Option<(Arc<Ticket>, usize)>,
    /// When it was asked for; its deadline counts from here.
    pub(crate) asked: Instant,
    /// Whether what becomes of it is told to the leases.
    pub(crate) noted: bool,
}

/// Why nothing more is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Redis is away.
    Away,
    /// Too much is waiting.
    Full,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Rung when there is something to be looked at.
    pub(crate) bell: Notify,
}

#[derive(Debug, Default)]
struct State {
    front: Vec<Item>,
    behind: VecDeque<Item>,
    answers: bool,
    /// The link has left something in front, and wants to know what comes from this moment on.
    held_until: Option<Instant>,
}

/// What was not sent in time.
#[derive(Debug, Default)]
pub(crate) struct Expired {
    /// What is not sent any more.
    pub(crate) items: Vec<Item>,
    /// Who waited for what must be counted all the same, and still will be.
    pub(crate) tickets: Vec<(Arc<Ticket>, usize)>,
}

impl Expired {
    /// How many charges somebody waited for in vain.
    pub(crate) fn waited(&self) -> usize {
        self.tickets.len() + self.items.iter().filter(|item| item.ticket.is_some()).count()
    }
}

impl Queue {
    /// Puts all of `items` in, in front, or none.
    pub(crate) fn put(&self, items: impl ExactSizeIterator<Item = Item>, now: Instant) -> Result<(), Closed> {
        let mut state = self.state.lock();
        state.admit(items.len())?;
        let ring = state.front.is_empty() || state.held_until.is_some_and(|until| now >= until);
        state.front.extend(items);
        if ring {
            state.held_until = None;
            drop(state);
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Puts something in that nobody waits for.
    pub(crate) fn put_behind(&self, item: Item) -> Result<(), Closed> {
        let mut state = self.state.lock();
        state.admit(1)?;
        let ring = state.front.is_empty() && state.behind.is_empty();
        state.behind.push_back(item);
        drop(state);
        if ring {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Takes everything in front, and behind it as many again, but at least [`FEW`]. With `idle`, nothing is under way:
    /// then a portion goes even if nobody is in front. `into` must be empty.
    pub(crate) fn take(&self, into: &mut Vec<Item>, idle: bool) {
        let mut state = self.state.lock();
        std::mem::swap(&mut state.front, into);
        state.held_until = None;
        let most = match into.len() {
            0 if idle => PORTION,
            0 => 0,
            front => front.clamp(FEW, PORTION),
        };
        let portion = state.behind.len().min(most);
        into.extend(state.behind.drain(..portion));
    }

    /// Leaves what is in front there. Whatever is put in after `until` rings the bell. Says whether anything is there.
    pub(crate) fn hold(&self, until: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        let waiting = !state.front.is_empty();
        state.held_until = until.filter(|_| waiting);
        waiting
    }

    /// Takes out what was asked for before `then`. What must be counted all the same stays where it is, but nobody waits
    /// for it any more.
    pub(crate) fn take_older(&self, then: Instant) -> Expired {
        let mut state = self.state.lock();
        let mut expired = Expired::default();
        let old = state.front.iter().take_while(|item| item.asked <= then).count();
        if old > 0 {
            let young = state.front.split_off(old);
            let old = std::mem::replace(&mut state.front, young);
            let kept = old.into_iter().filter_map(|item| expired.keep(item));
            state.front.splice(0..0, kept);
        }
        let old = state.behind.iter().take_while(|item| item.asked <= then).count();
        let mut kept: Vec<_> = state.behind.drain(..old).filter_map(|item| expired.keep(item)).collect();
        while let Some(item) = kept.pop() {
            state.behind.push_front(item);
        }
        expired
    }

    /// Opens for charges: Redis answers.
    pub(crate) fn open(&self) {
        self.state.lock().answers = true;
    }

    /// Redis is away. Hands out what was waiting.
    pub(crate) fn shut(&self) -> Vec<Item> {
        let mut state = self.state.lock();
        state.answers = false;
        let mut items = std::mem::take(&mut state.front);
        items.extend(state.behind.drain(..));
        items
    }

    pub(crate) fn answers(&self) -> bool {
        self.state.lock().answers
    }
}

impl State {
    fn admit(&self, more: usize) -> Result<(), Closed> {
        if !self.answers {
            return Err(Closed::Away);
        }
        if self.front.len() + self.behind.len() + more > MOST { Err(Closed::Full) } else { Ok(()) }
    }
}

impl Expired {
    /// What stays in the queue of an item that is too late.
    fn keep(&mut self, mut item: Item) -> Option<Item> {
        if !item.call.is_owed() {
            self.items.push(item);
            return None;
        }
        self.tickets.extend(item.ticket.take());
        Some(item)
    }
}

#[cfg(test)]
mod tests;
