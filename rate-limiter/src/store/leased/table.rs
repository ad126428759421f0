//! The table of hot keys: shards with a lock each, a bounded number of keys, swept a little at a time.

use std::{
    collections::{
        HashMap,
        hash_map::Entry::{Occupied, Vacant},
    },
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::entry::{Entry, Said};
use crate::{
    model::{descriptor::Hits, key::CellKey},
    store::{
        Ask, Outcome, Source,
        redis::{
            link::Link,
            metrics::StoreMetrics,
            script::{Call, Reply},
        },
    },
};

const SHARDS: usize = 64;

/// Hot keys at most, over all shards: some 16 MB.
const MOST: usize = 65_536;

/// All shards are swept this often, one at a time.
const SWEPT_EVERY: Duration = Duration::from_millis(100);

/// What is borrowed and what is refused, for all workers of a process.
pub(crate) struct Leases {
    shards: Box<[Mutex<Shard>]>,
    replicas: Arc<AtomicU32>,
    metrics: Arc<StoreMetrics>,
    swept: AtomicBool,
}

type Shard = HashMap<CellKey, Entry, BuildHasherDefault<Fingerprint>>;

/// What the table says.
pub(super) enum Decision {
    /// Decided; and with `refill`, so many tokens are to be fetched in the background.
    Decided { outcome: Outcome, refill: Option<u32> },
    /// Redis decides, and is asked for so many tokens more. What is to go back of an earlier limit's lease.
    Ask { want: u32, give_back: Option<Call> },
}

impl Leases {
    pub(crate) fn new(replicas: Arc<AtomicU32>, metrics: Arc<StoreMetrics>) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, replicas, metrics, swept: AtomicBool::new(false) }
    }

    pub(super) fn decide(&self, ask: &Ask, now: Instant) -> Decision {
        let mut shard = self.shard(ask.key).lock();
        let mut give_back = None;
        let room = shard.len() < MOST / SHARDS && matches!(ask.hits, Hits::Take(1..));
        let entry = match shard.entry(ask.key) {
            Occupied(entry) => entry.into_mut(),
            Vacant(place) if room => place.insert(Entry::new(ask, now)),
            Vacant(_) => return Decision::Ask { want: 0, give_back },
        };
        if *entry.limit() != ask.limit {
            let unused = entry.unused(true, now);
            give_back = entry.give_back(ask.key, unused);
            *entry = Entry::new(ask, now);
        }
        let said = entry.decide(ask, self.replicas.load(Ordering::Relaxed), now);
        drop(shard);
        match said {
            Said::Decided(outcome, refill) => {
                match outcome.source {
                    Source::Denial => self.metrics.denials.increment(1),
                    _ => self.metrics.lease_hits.increment(1),
                }
                Decision::Decided { outcome, refill }
            }
            Said::Ask(want) => {
                self.metrics.lease_waits.increment(1);
                Decision::Ask { want, give_back }
            }
        }
    }

    /// Takes in what became of a call. What was borrowed for a key that is no longer known is lost, which only tightens.
    pub(crate) fn settle(&self, call: &Call, sent: Instant, reply: Option<&Reply>) {
        let now = Instant::now();
        if let Some(reply) = reply {
            self.metrics.leased_tokens.increment(reply.granted.into());
        }
        if let Some(entry) = self.shard(call.key).lock().get_mut(&call.key) {
            entry.settle(call, sent, reply, self.replicas.load(Ordering::Relaxed), now);
        }
    }

    /// Takes out everything that is borrowed: what is to be given back at shutdown.
    pub(crate) fn close(&self) -> Vec<Call> {
        let now = Instant::now();
        (0..SHARDS).flat_map(|shard| self.sweep_shard(shard, true, now)).collect()
    }

    /// Whether the caller is the one to sweep.
    pub(super) fn claim_sweeping(&self) -> bool {
        !self.swept.swap(true, Ordering::AcqRel)
    }

    fn sweep_shard(&self, shard: usize, all: bool, now: Instant) -> Vec<Call> {
        let mut back = Vec::new();
        self.shards[shard].lock().retain(|key, entry| {
            let unused = entry.unused(all, now);
            if let Some(call) = entry.give_back(*key, unused) {
                self.metrics.returned_tokens.increment(unused);
                back.push(call);
            }
            !entry.is_idle(now)
        });
        back
    }

    fn shard(&self, key: CellKey) -> &Mutex<Shard> {
        &self.shards[(key.0 >> 64) as usize % SHARDS]
    }
}

/// Gives back what is not used, and forgets what is not asked for; until dropped.
pub(super) async fn sweep(leases: Arc<Leases>, link: Arc<Link>) {
    let mut ticks = interval(SWEPT_EVERY / SHARDS as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for shard in (0..SHARDS).cycle() {
        ticks.tick().await;
        let now = Instant::now();
        for call in leases.sweep_shard(shard, false, now) {
            link.post(call, false, now);
        }
    }
}

/// A fingerprint is a keyed hash already; hashing it again would only cost time.
#[derive(Default)]
struct Fingerprint(u64);

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, number: u128) {
        self.0 = number as u64;
    }
}
