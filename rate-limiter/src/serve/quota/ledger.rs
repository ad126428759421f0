//! Which proxies share which limit, how much each of them wants, and what each was given. Pure: time comes in.
//!
//! A bucket is one cell of one rule. Every report of a proxy moves its demand, and with it everybody's share: the
//! reporter is answered at once, and whose share has changed is told too, without waiting for its own report.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use crate::model::{
    key::CellKey,
    limit::Limit,
    quota::{Assignment, split},
};

/// Envoy reports every five seconds, whatever it is told.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// How long a proxy may use nothing of a bucket before it is told to forget it.
const IDLE: Duration = Duration::from_secs(60);

/// How much of its demand a report replaces.
const NEWEST: f64 = 0.5;

/// Buckets that one proxy may have; more are not assigned.
pub(super) const MAX_BUCKETS: usize = 10_000;

/// One proxy's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StreamId(pub(super) u64);

/// What a proxy used of a bucket since its last report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) allowed: u64,
    pub(super) denied: u64,
    pub(super) elapsed: Duration,
}

/// What became of a report.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// What the reporter may do from now on, and what others of the same bucket may.
    Assigned { own: Assignment, others: Vec<(StreamId, Assignment)> },
    /// The reporter has not used the bucket for long and is to forget it.
    Abandon { others: Vec<(StreamId, Assignment)> },
    /// The proxy has too many buckets.
    TooMany,
}

/// All buckets that proxies report about.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    buckets: HashMap<CellKey, BTreeMap<StreamId, Share>>,
    of_stream: HashMap<StreamId, Vec<CellKey>>,
}

#[derive(Debug)]
struct Share {
    limit: Limit,
    demand: f64,
    used: Instant,
    given: Option<Assignment>,
}

impl Ledger {
    /// Takes a report of `stream` about the bucket `key`, whose limit is `limit` now.
    pub(super) fn report(
        &mut self,
        stream: StreamId,
        key: CellKey,
        limit: Limit,
        usage: Usage,
        now: Instant,
    ) -> Answer {
        let shares = self.buckets.entry(key).or_default();
        if !shares.contains_key(&stream) {
            let buckets = self.of_stream.entry(stream).or_default();
            if buckets.len() >= MAX_BUCKETS {
                self.forget_if_empty(key);
                return Answer::TooMany;
            }
            buckets.push(key);
        }
        let hits = usage.allowed.saturating_add(usage.denied);
        let newest = hits as f64 / usage.elapsed.max(Duration::from_secs(1)).min(REPORT_INTERVAL * 12).as_secs_f64();
        let share = shares
            .entry(stream)
            .and_modify(|share| share.demand = NEWEST * newest + (1.0 - NEWEST) * share.demand)
            .or_insert(Share { limit, demand: newest, used: now, given: None });
        share.limit = limit;
        if hits > 0 {
            share.used = now;
        } else if now.saturating_duration_since(share.used) >= IDLE {
            return Answer::Abandon { others: self.leave_bucket(stream, key) };
        }
        let mut changed = deal(shares, limit);
        let own = shares.get(&stream).and_then(|share| share.given).unwrap_or(Assignment::Nothing);
        changed.retain(|(other, _)| *other != stream);
        Answer::Assigned { own, others: changed }
    }

    /// Forgets a stream that ended; says who has more from now on, and of which bucket.
    pub(super) fn leave(&mut self, stream: StreamId) -> Vec<(CellKey, StreamId, Assignment)> {
        let keys = self.of_stream.remove(&stream).unwrap_or_default();
        let told = keys.into_iter().flat_map(|key| {
            let changed = self.leave_bucket(stream, key);
            changed.into_iter().map(move |(other, assignment)| (key, other, assignment)).collect::<Vec<_>>()
        });
        told.collect()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.buckets.len()
    }

    fn leave_bucket(&mut self, stream: StreamId, key: CellKey) -> Vec<(StreamId, Assignment)> {
        if let Some(keys) = self.of_stream.get_mut(&stream) {
            keys.retain(|other| *other != key);
        }
        let Some(shares) = self.buckets.get_mut(&key) else { return Vec::new() };
        let limit = shares.remove(&stream).map(|share| share.limit);
        let changed = limit.map(|limit| deal(shares, limit)).unwrap_or_default();
        self.forget_if_empty(key);
        changed
    }

    fn forget_if_empty(&mut self, key: CellKey) {
        if self.buckets.get(&key).is_some_and(BTreeMap::is_empty) {
            self.buckets.remove(&key);
        }
    }
}

/// Splits `limit` anew, and says whose share is another than before.
fn deal(shares: &mut BTreeMap<StreamId, Share>, limit: Limit) -> Vec<(StreamId, Assignment)> {
    let demands: Vec<f64> = shares.values().map(|share| share.demand).collect();
    let assignments = split(&limit, &demands);
    let mut changed = Vec::new();
    for ((stream, share), assignment) in shares.iter_mut().zip(assignments) {
        if share.given != Some(assignment) {
            share.given = Some(assignment);
            changed.push((*stream, assignment));
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limit::Algorithm;

    const KEY: CellKey = CellKey(7);
    const ONE: StreamId = StreamId(1);
    const TWO: StreamId = StreamId(2);

    fn limit() -> Limit {
        Limit::new(1_000, Duration::from_secs(1), None, Algorithm::TokenBucket).unwrap()
    }

    fn usage(hits: u64) -> Usage {
        Usage { allowed: hits, denied: 0, elapsed: REPORT_INTERVAL }
    }

    fn rate(assignment: Assignment) -> u32 {
        match assignment {
            Assignment::Bucket { tokens_per_fill, fill_interval, .. } => tokens_per_fill / fill_interval,
            Assignment::Nothing => 0,
            Assignment::Everything => u32::MAX,
        }
    }

    fn assigned(answer: Answer) -> (u32, Vec<(StreamId, u32)>) {
        let Answer::Assigned { own, others } = answer else { panic!("{answer:?}") };
        (rate(own), others.into_iter().map(|(stream, assignment)| (stream, rate(assignment))).collect())
    }

    #[test]
    fn the_first_proxy_has_everything_until_another_wants_some() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        assert_eq!(assigned(ledger.report(ONE, KEY, limit(), usage(50_000), now)), (1_000, Vec::new()));
        let (own, others) = assigned(ledger.report(TWO, KEY, limit(), usage(50_000), now));
        assert_eq!(own, 500);
        assert_eq!(others, [(ONE, 500)]);
    }

    #[test]
    fn who_leaves_gives_back_its_share() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.report(ONE, KEY, limit(), usage(50_000), now);
        ledger.report(TWO, KEY, limit(), usage(50_000), now);
        let told = ledger.leave(TWO);
        assert_eq!(
            told.iter().map(|(key, stream, given)| (*key, *stream, rate(*given))).collect::<Vec<_>>(),
            [(KEY, ONE, 1_000)]
        );
        assert_eq!(ledger.leave(ONE), []);
        assert_eq!(ledger.len(), 0);
    }

    #[test]
    fn what_is_not_used_for_long_is_abandoned() {
        let (mut ledger, start) = (Ledger::default(), Instant::now());
        ledger.report(ONE, KEY, limit(), usage(1), start);
        assigned(ledger.report(ONE, KEY, limit(), usage(0), start + IDLE / 2));
        assert_eq!(ledger.report(ONE, KEY, limit(), usage(0), start + IDLE), Answer::Abandon { others: Vec::new() });
        assert_eq!(ledger.len(), 0);
    }

    #[test]
    fn a_proxy_cannot_fill_the_memory_with_buckets() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        for key in 0..MAX_BUCKETS as u128 {
            assigned(ledger.report(ONE, CellKey(key), limit(), usage(1), now));
        }
        assert_eq!(ledger.report(ONE, CellKey(u128::MAX), limit(), usage(1), now), Answer::TooMany);
        assert_eq!(ledger.len(), MAX_BUCKETS);
        // Buckets that it has go on.
        assigned(ledger.report(ONE, CellKey(0), limit(), usage(1), now));
    }

    #[test]
    fn an_edited_limit_is_dealt_out_with_the_next_report() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.report(ONE, KEY, limit(), usage(50_000), now);
        let edited = Limit::new(10, Duration::from_secs(1), None, Algorithm::TokenBucket).unwrap();
        assert_eq!(assigned(ledger.report(ONE, KEY, edited, usage(50_000), now)), (10, Vec::new()));
    }
}
