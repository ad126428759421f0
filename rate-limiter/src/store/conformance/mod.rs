//! What every store must do, as one suite: each store's own tests call [`conforms`].
//!
//! Two nets under one rope. [`laws`] say in plain numbers what a user relies on; [`schedule`] charges at random. Whatever
//! either charges is also put to the [`Oracle`], which computes the same with [`Meter`](crate::model::cell::Meter) over a map,
//! in the store's own ticks, and every field of every answer is compared.
//!
//! What the suite holds stores to, beyond the arithmetic:
//! - limits are not part of a cell's name: an edited limit goes on from the same cell;
//! - the algorithm is: with another one, counting starts afresh (the two read a cell's bits differently);
//! - asks of one call are charged in their order, also where they name the same cell.
//!
//! Every trial has keys of its own, so that one store serves the whole suite; time starts anew with each.
//! All times are whole microseconds, which every store's ticks can tell exactly.

mod laws;
mod oracle;
mod schedule;

use std::time::Duration;

use oracle::{Oracle, compare};

use super::{Ask, Charging, Outcome, Outcomes, Store};
use crate::model::{
    descriptor::{Entry, Hits},
    key::{CellKey, Salt},
    limit::{Algorithm, Limit},
    rule::Policy,
};

/// 2026-01-01T00:00:00Z since the Unix epoch: every trial starts then.
pub(crate) const START: Duration = Duration::from_secs(1_767_225_600);

/// A store under test.
pub(crate) struct Subject<'a> {
    /// The store; it need not be empty.
    pub(crate) store: &'a dyn Store,
    /// Makes it a time, since the Unix epoch. The store must count by this time alone, and forget nothing by another.
    pub(crate) set_now: &'a dyn Fn(Duration),
    /// What it counts time in.
    pub(crate) ticks: Ticks,
}

/// How a store counts time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks {
    /// How many there are in a second; a tick is a whole number of nanoseconds.
    pub(crate) per_second: u64,
    /// When they start, since the Unix epoch.
    pub(crate) epoch: Duration,
}

/// Runs the suite.
///
/// # Panics
/// The store does not conform.
pub(crate) async fn conforms(subject: &Subject<'_>) {
    laws::all(subject).await;
    schedule::random(subject, 0..150).await;
}

/// One course of events on cells of its own.
struct Trial<'a> {
    subject: &'a Subject<'a>,
    name: String,
    now: Duration,
    oracle: Oracle,
}

impl<'a> Trial<'a> {
    fn new(subject: &'a Subject<'a>, name: impl Into<String>) -> Self {
        (subject.set_now)(START);
        Self { subject, name: name.into(), now: START, oracle: Oracle::new(subject.ticks) }
    }

    /// The `n`th cell of this trial; no other trial has it.
    fn key(&self, n: usize) -> CellKey {
        let value = n.to_string();
        Salt([7; 16]).key(
            &bucket(1, Duration::from_secs(1), 1),
            &self.name,
            std::iter::once(Entry { key: "n", value: &value }),
        )
    }

    fn advance(&mut self, by: Duration) {
        assert_eq!(by.subsec_nanos() % 1_000, 0, "the suite counts in whole microseconds");
        self.now += by;
        (self.subject.set_now)(self.now);
    }

    /// Charges, and compares with the oracle.
    async fn charge(&mut self, asks: &[Ask]) -> Outcomes {
        let outcomes = match self.subject.store.charge(asks) {
            Charging::Done(outcomes) => outcomes,
            Charging::Waiting(outcomes) => outcomes.await,
        };
        assert_eq!(outcomes.len(), asks.len(), "{}: one outcome for each ask", self.name);
        for (place, (ask, outcome)) in asks.iter().zip(&outcomes).enumerate() {
            let expected = self.oracle.charge(ask, self.now);
            if let Err(difference) = compare(outcome, &expected, self.subject.ticks) {
                panic!(
                    "{}, at {:?}, ask {place}: {difference}\n  {ask:?}\n  is {outcome:?}\n  not {expected:?}",
                    self.name,
                    self.now - START
                );
            }
        }
        outcomes
    }

    async fn one(&mut self, ask: Ask) -> Outcome {
        self.charge(&[ask]).await[0]
    }

    async fn take(&mut self, n: usize, limit: Limit, hits: u64) -> Outcome {
        self.one(ask(self.key(n), limit, Hits::Take(hits))).await
    }

    async fn give_back(&mut self, n: usize, limit: Limit, hits: u64) -> Outcome {
        self.one(ask(self.key(n), limit, Hits::GiveBack(hits))).await
    }
}

/// A charge without debt. Strict, so that a store that leases decides exactly as well.
fn ask(key: CellKey, limit: Limit, hits: Hits) -> Ask {
    Ask { key, limit, hits, policy: Policy { strict: true, ..Policy::default() } }
}

fn bucket(requests: u32, per: Duration, burst: u32) -> Limit {
    Limit::new(requests, per, Some(burst), Algorithm::TokenBucket).unwrap()
}

fn window(requests: u32, per: Duration) -> Limit {
    Limit::new(requests, per, None, Algorithm::FixedWindow).unwrap()
}
