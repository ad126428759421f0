//! The store over Redis: borrowed tokens and remembered refusals in front, Redis behind, the rules' policies when it is away.
//!
//! A key that is asked for often is not worth a call each time. One call takes a handful of tokens out of its
//! bucket in Redis (a *lease*), and this process hands them out. How many is [`model::lease`](crate::model::lease)'s affair: as many as 50 ms
//! of the demand seen here need, or a few for half a second, at most an eighth of the burst divided by the replicas; only
//! for token buckets, and never for strict rules or those with debt. At a quarter left the next lease is fetched in the
//! background, by one call at a time per key. A request that comes when nothing is left goes to Redis itself, in the same
//! batch as everyone else's.
//!
//! **Bound.** A token is taken out of the bucket before it is handed out, and is handed out within [`LIFE`](crate::model::lease::LIFE) or not at
//! all. So whatever is admitted in an interval `t` left the bucket in an interval of `t + LIFE`: at most
//! `burst + (t + LIFE) / T` hits, over all replicas. What crashes with a replica is lost: it only
//! tightens the limit, for less than a lease's life.
//!
//! **What is given back.** Unused tokens go back when a lease ends, when its key falls silent, when the limit is edited and at
//! shutdown, less what the bucket would have gained in the meantime: had they never been taken, a bucket that
//! was full would have gained nothing. Giving back more would break the bound.
//!
//! **Cost.** What is hot is kept in a bounded table, behind one short lock per key's shard, never held while waiting.
//! A key that finds no place there is decided by Redis each time.

mod entry;
mod table;

use std::{pin::Pin, sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::{task::JoinHandle, time::Instant};

use super::{
    Ask, Charging, Outcome, Outcomes, Source, Store,
    redis::{
        link::{Asked, Link},
        metrics::StoreMetrics,
        script::Call,
        tended::tended,
    },
    without_redis::Fallback,
};
use crate::model::descriptor::Hits;
use table::Decision;
pub(crate) use table::Leases;

/// How long a start waits for the first connection, and how often it looks.
const SETTLE: Duration = Duration::from_secs(1);
const SETTLE_LOOK: Duration = Duration::from_millis(2);

/// A worker's store.
pub(crate) struct Leased {
    /// `None`: every decision is Redis's own.
    leases: Option<Arc<Leases>>,
    link: Arc<Link>,
    fallback: Fallback,
    metrics: Arc<StoreMetrics>,
    sweeper: Option<JoinHandle<()>>,
}

impl Leased {
    /// Decides by `leases`, `link` and `fallback`, in this order. The first store over a table also sweeps it.
    pub(crate) fn new(leases: Option<Arc<Leases>>, link: Link, fallback: Fallback, metrics: Arc<StoreMetrics>) -> Self {
        let link = Arc::new(link);
        let sweeper = leases.clone().filter(|leases| leases.claim_sweeping()).map(|leases| {
            let link = link.clone();
            tokio::spawn(tended("sweep of leases", move || table::sweep(leases.clone(), link.clone())))
        });
        Self { leases, link, fallback, metrics, sweeper }
    }

    /// Whether Redis answers.
    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// What can be said without Redis; otherwise what to ask it.
    fn decide(&self, ask: &Ask, now: Instant) -> Result<Outcome, Asked> {
        let Some(call) = Call::new(ask, 0) else { return Ok(never(ask)) };
        let leases = match &self.leases {
            Some(leases) if !ask.policy.strict && !ask.policy.debt => leases,
            _ => return Err(Asked { call, noted: false }),
        };
        match leases.decide(ask, now) {
            Decision::Decided { outcome, refill } => {
                if let Some(want) = refill {
                    let call = Call { hits: Hits::Take(0), want, ..call };
                    if !self.link.post(call, true, now) {
                        leases.settle(&call, now, None);
                    }
                }
                Ok(outcome)
            }
            Decision::Ask { want, give_back } => {
                if let Some(unused) = give_back {
                    self.link.post(unused, false, now);
                }
                Err(Asked { call: Call { want, ..call }, noted: true })
            }
        }
    }
}

impl Store for Leased {
    fn settled(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            let connected = async {
                while !self.link.answers() {
                    tokio::time::sleep(SETTLE_LOOK).await;
                }
            };
            // Past it, it starts without Redis.
            let _ = tokio::time::timeout(SETTLE, connected).await;
        })
    }

    fn give_back_alone(&self, refunds: &[Ask]) {
        for refund in refunds {
            self.fallback.charge(refund);
        }
    }

    fn charge(&self, asks: &[Ask]) -> Charging {
        let now = Instant::now();
        let mut outcomes = Outcomes::new();
        let mut open: SmallVec<[(usize, Ask); 4]> = SmallVec::new();
        let mut asked: SmallVec<[Asked; 4]> = SmallVec::new();
        for (place, ask) in asks.iter().enumerate() {
            match self.decide(ask, now) {
                Ok(outcome) => outcomes.push(outcome),
                Err(question) => {
                    outcomes.push(never(ask)); // Its place; overwritten below.
                    open.push((place, *ask));
                    asked.push(question);
                }
            }
        }
        if open.is_empty() {
            return Charging::Done(outcomes);
        }
        let noted: SmallVec<[Call; 4]> = asked.iter().filter(|asked| asked.noted).map(|asked| asked.call).collect();
        let Some(wait) = self.link.ask(asked, now) else {
            if let Some(leases) = &self.leases {
                noted.iter().for_each(|call| leases.settle(call, now, None));
            }
            self.metrics.without_redis.increment(open.len() as u64);
            for (place, ask) in open {
                outcomes[place] = self.fallback.charge(&ask);
            }
            return Charging::Done(outcomes);
        };
        let (fallback, metrics) = (self.fallback.clone(), self.metrics.clone());
        Charging::Waiting(Box::pin(async move {
            for ((place, ask), answer) in open.into_iter().zip(wait.await) {
                outcomes[place] = answer.unwrap_or_else(|| {
                    metrics.without_redis.increment(1);
                    fallback.charge(&ask)
                });
            }
            outcomes
        }))
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        if let Some(sweeper) = self.sweeper.take() {
            sweeper.abort();
        }
    }
}

/// The answer of a limit of zero, which has no cell.
fn never(ask: &Ask) -> Outcome {
    let admitted = matches!(ask.hits, Hits::GiveBack(_));
    let retry = if admitted { std::time::Duration::ZERO } else { std::time::Duration::MAX };
    Outcome { admitted, remaining: 0, reset: std::time::Duration::ZERO, retry, source: Source::Memory }
}

#[cfg(test)]
mod tests;
