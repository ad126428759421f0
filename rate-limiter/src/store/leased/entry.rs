//! What is kept of one hot key: how often it is asked for, what was borrowed, what was refused.
//!
//! Pure: the moment comes as an argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    model::{
        cell::Meter,
        descriptor::Hits,
        key::CellKey,
        lease::{self, COVERS, Demand, FEW, LIFE},
        limit::Limit,
    },
    store::{
        Ask, Outcome, Source,
        denials::Denial,
        redis::script::{Call, Reply, TICKS_PER_SECOND, duration},
    },
};

/// After this long without a request, what is borrowed goes back; a few tokens stay for their life, as a key that gets no more
/// is seldom asked for.
const SILENT: Duration = Duration::from_millis(200);

/// A key without anything borrowed or refused is forgotten after this long without a request.
const FORGOTTEN: Duration = Duration::from_secs(1);

/// A refill that has not come back by now is not waited for: the link that carried it is gone.
const REFILL: Duration = Duration::from_secs(1);

/// How long demand is counted before the rate is told anew.
const MEASURED: Duration = Duration::from_millis(50);

/// One hot key.
#[derive(Debug)]
pub(super) struct Entry {
    limit: Limit,
    meter: Meter,
    rate: Rate,
    /// What is left of the lease before; used up first.
    before: Lease,
    lease: Lease,
    /// What was left of leases that are over when another one came, and goes back with the next sweep.
    over: Lease,
    refill: Option<Instant>,
    pub(super) denial: Option<Denial>,
    /// What Redis had left, and when the bucket would be full, by its last answer.
    beyond: u64,
    full_at: Instant,
    used: Instant,
}

/// Tokens taken out of the bucket at once.
#[derive(Clone, Copy, Debug)]
struct Lease {
    left: u64,
    granted: u64,
    since: Instant,
}

/// How often a key is asked for here.
#[derive(Debug)]
struct Rate {
    hits: u64,
    since: Instant,
    per_second: f64,
    /// Hits, each worth the less the longer ago: after a lease's life about a third.
    lately: f64,
    last: Instant,
}

/// What an entry says to a request.
#[derive(Debug)]
pub(super) enum Said {
    /// Decided; and with `Some`, so many tokens are to be fetched in the background.
    Decided(Outcome, Option<u32>),
    /// Redis decides, and is asked for so many tokens more.
    Ask(u32),
}

impl Entry {
    pub(super) fn new(ask: &Ask, now: Instant) -> Self {
        let nothing = Lease { left: 0, granted: 0, since: now };
        Self {
            limit: ask.limit,
            meter: Meter::new(&ask.limit, TICKS_PER_SECOND),
            rate: Rate { hits: 0, since: now, per_second: 0.0, lately: 0.0, last: now },
            before: nothing,
            lease: nothing,
            over: nothing,
            refill: None,
            denial: None,
            beyond: 0,
            full_at: now,
            used: now,
        }
    }

    pub(super) fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Decides, if what is known here suffices. The limit must be this entry's.
    pub(super) fn decide(&mut self, ask: &Ask, replicas: u32, now: Instant) -> Said {
        match ask.hits {
            Hits::GiveBack(hits) => self.take_back(hits, now),
            // A look is a question about Redis's cell.
            Hits::Take(0) => Said::Ask(0),
            Hits::Take(hits) => self.take(hits, replicas, now),
        }
    }

    fn take(&mut self, hits: u64, replicas: u32, now: Instant) -> Said {
        self.used = now;
        let demand = self.rate.count(hits, now);
        let size = lease::size(&self.limit, demand, replicas);
        let (before, lease) = (self.before.usable(now), self.lease.usable(now));
        if before + lease >= hits {
            let from_before = before.min(hits);
            self.before.left -= from_before;
            self.lease.left -= hits - from_before;
            let left = before + lease - hits;
            let outcome = Outcome {
                admitted: true,
                remaining: left + self.beyond,
                reset: self.full_at.saturating_duration_since(now),
                retry: Duration::ZERO,
                source: Source::Lease,
            };
            let low = left * 4 <= self.lease.granted && self.denial.is_none_or(|denial| denial.is_over(now));
            // A lease of one is none.
            return Said::Decided(outcome, if low && size > 1 { self.may_refill(size, now) } else { None });
        }
        if let Some(outcome) = self.denial.and_then(|denial| denial.refuse(hits, now)) {
            return Said::Decided(outcome, None);
        }
        Said::Ask(self.may_refill(size.saturating_sub(1), now).unwrap_or(0))
    }

    /// Tokens that were taken from the lease return to it; others are Redis's affair.
    fn take_back(&mut self, hits: u64, now: Instant) -> Said {
        self.denial = None;
        if self.lease.is_over(now) || self.lease.granted - self.lease.left < hits {
            return Said::Ask(0);
        }
        self.lease.left += hits;
        let outcome = Outcome {
            admitted: true,
            remaining: self.before.usable(now) + self.lease.left + self.beyond,
            reset: self.full_at.saturating_duration_since(now),
            retry: Duration::ZERO,
            source: Source::Lease,
        };
        Said::Decided(outcome, None)
    }

    /// One refill at a time.
    fn may_refill(&mut self, want: u32, now: Instant) -> Option<u32> {
        if want == 0 || self.refill.is_some_and(|since| now < since + REFILL) {
            return None;
        }
        self.refill = Some(now);
        Some(want)
    }

    /// Takes in what became of a call that was sent at `sent`.
    pub(super) fn settle(&mut self, call: &Call, sent: Instant, reply: Option<&Reply>, replicas: u32, now: Instant) {
        if call.want > 0 {
            self.refill = None;
        }
        // What was borrowed under an earlier limit is lost, which only tightens.
        let Some(reply) = reply.filter(|_| call.meter == self.meter) else { return };
        let outcome = reply.outcome();
        self.beyond = outcome.remaining;
        self.full_at = now.checked_add(outcome.reset).unwrap_or(now);
        if reply.granted > 0 {
            for lease in [&mut self.before, &mut self.lease] {
                if lease.left > 0 && lease.is_over(now) {
                    let since = if self.over.left > 0 { self.over.since.min(lease.since) } else { lease.since };
                    self.over = Lease { left: self.over.left + std::mem::take(&mut lease.left), granted: 0, since };
                }
            }
            let left = self.before.usable(now) + self.lease.usable(now);
            let since = if self.before.usable(now) > 0 { self.before.since } else { self.lease.since };
            self.before = Lease { left, granted: left, since };
            self.lease = Lease { left: reply.granted.into(), granted: reply.granted.into(), since: sent };
        }
        self.denial = match call.hits {
            Hits::Take(hits) if !outcome.admitted => {
                Some(Denial::new(hits, &outcome, self.handful(replicas, now), now))
            }
            _ => None,
        };
    }

    /// How long to wait beyond the first token, so that one call fetches several.
    fn handful(&self, replicas: u32, now: Instant) -> Duration {
        let size = lease::size(&self.limit, self.rate.demand(now), replicas);
        self.interval().saturating_mul(size.saturating_sub(1)).min(COVERS)
    }

    /// What goes back of leases that are over, or that nobody uses: all of them with `all`.
    pub(super) fn unused(&mut self, all: bool, now: Instant) -> u64 {
        let silent = now >= self.used + SILENT;
        let interval = self.interval();
        let returned = |lease: &mut Lease| {
            let unwanted = all || silent && lease.granted > FEW.into();
            if lease.left == 0 || !(unwanted || lease.is_over(now)) {
                return 0;
            }
            let left = std::mem::take(&mut lease.left);
            lease.granted = 0;
            let gained = now.saturating_duration_since(lease.since).as_nanos() / interval.as_nanos().max(1) + 1;
            left.saturating_sub(u64::try_from(gained).unwrap_or(u64::MAX))
        };
        returned(&mut self.before) + returned(&mut self.lease) + returned(&mut self.over)
    }

    /// A charge that gives back `hits` by the limit they were borrowed under.
    pub(super) fn give_back(&self, key: CellKey, hits: u64) -> Option<Call> {
        let call = Call { key, meter: self.meter, hits: Hits::GiveBack(hits), debt: false, want: 0 };
        (hits > 0).then_some(call)
    }

    /// Time from one hit to the next, as Redis counts it.
    fn interval(&self) -> Duration {
        match self.meter {
            Meter::Bucket { interval, .. } => duration(interval),
            _ => self.limit.per(),
        }
    }

    /// Whether nothing would be lost by forgetting it.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let borrowed = self.before.left + self.lease.left + self.over.left > 0;
        let refilling = self.refill.is_some_and(|since| now < since + REFILL);
        !borrowed && !refilling && self.denial.is_none_or(|denial| denial.is_over(now)) && now >= self.used + FORGOTTEN
    }
}

impl Lease {
    fn usable(&self, now: Instant) -> u64 {
        if self.is_over(now) { 0 } else { self.left }
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.since + LIFE
    }
}

impl Rate {
    /// Counts, and says what the demand was before.
    fn count(&mut self, hits: u64, now: Instant) -> Demand {
        self.hits = self.hits.saturating_add(hits);
        let measured = now.saturating_duration_since(self.since);
        if measured >= MEASURED {
            let newest = self.hits as f64 / measured.as_secs_f64();
            // After a long silence the past says nothing.
            self.per_second = if measured > 4 * MEASURED { newest } else { f64::midpoint(self.per_second, newest) };
            self.hits = 0;
            self.since = now;
        }
        let demand = self.demand(now);
        self.lately = demand.earlier + hits as f64;
        self.last = now;
        demand
    }

    fn demand(&self, now: Instant) -> Demand {
        let lives = now.saturating_duration_since(self.last).as_secs_f64() / LIFE.as_secs_f64();
        Demand { rate: self.per_second, earlier: self.lately * (-lives).exp() }
    }
}

#[cfg(test)]
mod tests;
