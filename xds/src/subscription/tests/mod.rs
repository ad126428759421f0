//! The rules of both protocol variants, a test for each, and the laws that hold whatever happens.

mod delta;
mod laws;
mod model;
mod progress;
mod sotw;
mod standing;

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use super::{FellBehind, Gate, Sent, Subscription, TypeRules, Verdict};
use crate::{Cache, Resource, Update};

const T: &str = "type.example/T";
/// Like RDS.
const NAMED: TypeRules =
    TypeRules { full_state: false, legacy_wildcard: false, always_resent: false, piecewise: false };
/// Like CDS and LDS.
const FULL: TypeRules = TypeRules { full_state: true, legacy_wildcard: true, always_resent: false, piecewise: false };
/// Like EDS.
const RESENT: TypeRules =
    TypeRules { full_state: false, legacy_wildcard: false, always_resent: true, piecewise: false };

/// A subscription and the cache it is served from.
struct Bench<S> {
    cache: Cache,
    sequence: u64,
    subscription: S,
    now: Instant,
}

impl<S: Subscription> Bench<S> {
    fn new(rules: TypeRules, resources: &[(&str, &str)]) -> Self {
        let now = Instant::now();
        let mut bench = Self { cache: Cache::new(), sequence: 0, subscription: S::new(rules), now };
        for (name, body) in resources {
            bench.set(name, body);
        }
        bench
    }

    fn set(&mut self, name: &str, body: &str) {
        let mut update = Update::default();
        update.upsert(T, Resource::new(T, name, body.as_bytes()));
        self.apply(update);
    }

    fn remove(&mut self, name: &str) {
        let mut update = Update::default();
        update.remove(T, name);
        self.apply(update);
    }

    fn apply(&mut self, update: Update) {
        self.sequence += 1;
        self.cache.apply(self.sequence, update);
    }

    /// The client opens another stream to the same server.
    fn reconnect(&mut self, rules: TypeRules) {
        self.subscription = S::new(rules);
    }

    fn ask(&mut self, request: S::Request) -> Verdict {
        let tables = self.cache.snapshot();
        self.subscription.on_request(request, tables.table(T), tables.head())
    }

    fn absorb(&mut self) -> Result<(), FellBehind> {
        let tables = self.cache.snapshot();
        self.subscription.progress_mut().absorb(tables.table(T), tables.head())
    }

    fn reply_through(&mut self, gate: Gate) -> Option<(Sent, S::Reply)> {
        self.absorb().unwrap();
        self.subscription.reply(self.cache.snapshot().table(T), gate, self.now)
    }

    fn reply(&mut self) -> Option<(Sent, S::Reply)> {
        self.reply_through(Gate::ALL)
    }

    fn later(&mut self, by: Duration) {
        self.now += by;
    }

    fn settled_through(&self) -> u64 {
        self.subscription.progress().settled_through()
    }
}

/// That there is nothing to send.
fn assert_silent<S: Subscription<Reply: Debug>>(bench: &mut Bench<S>) {
    if let Some((sent, reply)) = bench.reply() {
        panic!("unexpected response {}: {reply:?}", sent.nonce);
    }
}

fn strings<I: IntoIterator<Item: ToString>>(items: I) -> Vec<String> {
    items.into_iter().map(|item| item.to_string()).collect()
}
