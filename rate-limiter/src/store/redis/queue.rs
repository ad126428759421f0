//! What waits to be sent on a link: any thread puts in, the link's task takes everything.
//!
//! Whether Redis answers is kept under the same lock as the queue. So nothing can be put in after the link has opened its
//! breaker and answered what was waiting; without that a request could wait for an outage to end.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{script::Call, ticket::Ticket};

/// Charges that may wait at once. At a deadline of 5 ms this is three million a second: beyond, Redis is as good as away.
const MOST: usize = 16_384;

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
    /// Rung when the queue ceases to be empty.
    pub(crate) bell: Notify,
}

#[derive(Debug, Default)]
struct State {
    items: Vec<Item>,
    answers: bool,
}

impl Queue {
    /// Puts all of `items` in, or none.
    pub(crate) fn put(&self, items: impl ExactSizeIterator<Item = Item>) -> Result<(), Closed> {
        let mut state = self.state.lock();
        if !state.answers {
            return Err(Closed::Away);
        }
        if state.items.len() + items.len() > MOST {
            return Err(Closed::Full);
        }
        let was_empty = state.items.is_empty();
        state.items.extend(items);
        drop(state);
        if was_empty {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Takes everything; `into` must be empty.
    pub(crate) fn take(&self, into: &mut Vec<Item>) {
        std::mem::swap(&mut self.state.lock().items, into);
    }

    /// Takes what was asked for before `then`.
    pub(crate) fn take_older(&self, then: Instant) -> Vec<Item> {
        let mut state = self.state.lock();
        let old = state.items.iter().take_while(|item| item.asked <= then).count();
        state.items.drain(..old).collect()
    }

    /// Opens for charges: Redis answers.
    pub(crate) fn open(&self) {
        self.state.lock().answers = true;
    }

    /// Redis is away. Hands out what was waiting.
    pub(crate) fn shut(&self) -> Vec<Item> {
        let mut state = self.state.lock();
        state.answers = false;
        std::mem::take(&mut state.items)
    }

    pub(crate) fn answers(&self) -> bool {
        self.state.lock().answers
    }
}
