//! What a request waits on: a slot for each of its charges.
//!
//! The charges of one request may travel apart (in a cluster, to several servers) and one of them may fail alone. A ticket
//! ends when every slot is filled, or when it is closed at its deadline; what comes later is dropped. It costs one
//! allocation, as a channel for one value would.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::store::Outcome;

/// One for each slot; `None`: Redis did not answer in time, or is away.
pub(crate) type Answers = SmallVec<[Option<Outcome>; 4]>;

/// Shared between a request and the link that answers it.
#[derive(Debug)]
pub(crate) struct Ticket(Mutex<State>);

#[derive(Debug)]
struct State {
    answers: Answers,
    missing: usize,
    waker: Option<Waker>,
}

impl Ticket {
    pub(crate) fn new(slots: usize) -> Arc<Self> {
        let answers = smallvec::smallvec![None; slots];
        Arc::new(Self(Mutex::new(State { answers, missing: slots, waker: None })))
    }

    /// Fills a slot, once. `None` says that there will be no answer. Says whether it was not too late.
    pub(crate) fn answer(&self, slot: usize, outcome: Option<Outcome>) -> bool {
        let mut state = self.0.lock();
        if state.missing == 0 {
            return false;
        }
        state.answers[slot] = outcome;
        state.missing -= 1;
        let waker = if state.missing == 0 { state.waker.take() } else { None };
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        true
    }

    /// Ends the wait; empty slots stay empty. Says whether there were any.
    pub(crate) fn close(&self) -> bool {
        let mut state = self.0.lock();
        let open = state.missing > 0;
        state.missing = 0;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        open
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.0.lock().missing == 0
    }
}

/// Waits for a ticket to end. Whoever holds the other end sees to it that it does.
pub(crate) struct Wait(pub(crate) Arc<Ticket>);

impl Future for Wait {
    type Output = Answers;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answers> {
        let mut state = self.0.0.lock();
        if state.missing == 0 {
            return Poll::Ready(std::mem::take(&mut state.answers));
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::store::Source;

    fn outcome(remaining: u64) -> Outcome {
        let (reset, retry) = (Duration::ZERO, Duration::ZERO);
        Outcome { admitted: true, remaining, reset, retry, source: Source::Redis }
    }

    #[test]
    fn it_ends_when_every_slot_is_filled() {
        let ticket = Ticket::new(2);
        let mut wait = Wait(ticket.clone());
        assert!((&mut wait).now_or_never().is_none());
        assert!(ticket.answer(1, Some(outcome(7))));
        assert!((&mut wait).now_or_never().is_none() && !ticket.is_closed());
        ticket.answer(0, None);
        assert_eq!(wait.now_or_never().unwrap()[..], [None, Some(outcome(7))]);
    }

    #[test]
    fn what_comes_after_the_deadline_is_dropped() {
        let ticket = Ticket::new(2);
        ticket.answer(0, Some(outcome(1)));
        assert!(ticket.close());
        assert!(!ticket.answer(1, Some(outcome(2))));
        assert!(!ticket.close());
        assert_eq!(Wait(ticket).now_or_never().unwrap()[..], [Some(outcome(1)), None]);
    }
}
