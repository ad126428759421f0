//! Which proxies share which limit, how much each of them wants, and what each was given. Pure: time comes in.
//!
//! Members of a cell share its limit: each is one bucket of one proxy (several buckets of a proxy may be about one cell).
//! A report moves its member's demand, and with it everybody's share: the reporter is answered at once, and whose
//! share has changed is to be told too, without waiting for its own report.
//!
//! A proxy that is given another bucket than before starts it full. So shares are not dealt out anew for every
//! ripple of demand, and a cell that was charged much more than its limit gives nothing until that is paid back.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::model::{
    key::CellKey,
    limit::Limit,
    quota::{Assignment, split},
};

/// Envoy reports every five seconds, whatever it is told.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// How long a proxy may use nothing of a bucket before it is told to forget it.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// How much of its demand a report replaces.
const NEWEST: f64 = 0.5;

/// Part of a share that has to change before shares are dealt out anew.
const RIPPLE: u32 = 8;

/// One proxy's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StreamId(pub(super) u64);

/// One bucket of one stream, by the number that the stream gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Member {
    pub(super) stream: StreamId,
    pub(super) bucket: u32,
}

/// What a stream reports of one of its buckets, which is about the cell `key`, whose limit is `limit` now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) bucket: u32,
    pub(super) key: CellKey,
    pub(super) limit: Limit,
    pub(super) usage: Usage,
}

/// What a proxy used of a bucket since its last report, and what that did to the cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) allowed: u64,
    pub(super) denied: u64,
    pub(super) elapsed: Duration,
    /// Much more than the limit was charged to the cell.
    pub(super) overdrawn: bool,
}

/// What a proxy is told about a bucket that it reported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Answer {
    /// What the proxy may do from now on.
    Assigned(Assignment),
    /// The proxy has not used the bucket for long and is to forget it.
    Abandon,
}

/// All buckets that proxies report about; how many of a proxy there can be is for its stream to bound.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    cells: HashMap<CellKey, BTreeMap<Member, Share>>,
    places: HashMap<StreamId, HashMap<u32, CellKey>>,
}

#[derive(Debug)]
struct Share {
    limit: Limit,
    demand: f64,
    used: Instant,
    /// What it was last dealt, of which limit.
    dealt: Option<(Limit, Assignment)>,
    /// The cell was overdrawn when it last reported.
    overdrawn: bool,
}

impl Share {
    fn given(&self) -> Assignment {
        match self.dealt {
            Some((_, assignment)) if !self.overdrawn => assignment,
            _ => Assignment::Nothing,
        }
    }
}

/// Cells whose members changed, or their demand. Each is dealt out once, at the end: its members may be many.
type Touched = BTreeMap<CellKey, Touch>;

struct Touch {
    limit: Limit,
    /// Somebody left, whose share is free.
    left: bool,
}

impl Ledger {
    /// Takes a report of `stream`; says what it may do, bucket by bucket. Those whose share is another than before, other
    /// than what was reported, are added to `changed`.
    pub(super) fn report(
        &mut self,
        stream: StreamId,
        reports: &[Report],
        now: Instant,
        changed: &mut Vec<Member>,
    ) -> Vec<Answer> {
        let mut touched = Touched::new();
        for report in reports {
            self.take(stream, report, now, &mut touched);
        }
        self.deal_out(touched, changed);
        let reported: HashSet<u32> = reports.iter().map(|report| report.bucket).collect();
        changed.retain(|member| member.stream != stream || !reported.contains(&member.bucket));
        let answer = |report: &Report| {
            self.given(Member { stream, bucket: report.bucket }).map_or(Answer::Abandon, Answer::Assigned)
        };
        reports.iter().map(answer).collect()
    }

    /// What a member may do now; `None` if it is none.
    pub(super) fn given(&self, member: Member) -> Option<Assignment> {
        self.cells.get(&self.place(member)?)?.get(&member).map(Share::given)
    }

    /// Forgets buckets of a stream. Those who have more from now on are added to `changed`.
    pub(super) fn forget(&mut self, stream: StreamId, buckets: &[u32], changed: &mut Vec<Member>) {
        let mut touched = Touched::new();
        for &bucket in buckets {
            self.remove(Member { stream, bucket }, &mut touched);
        }
        self.deal_out(touched, changed);
    }

    /// Forgets a stream that ended. Those who have more from now on are added to `changed`.
    pub(super) fn leave(&mut self, stream: StreamId, changed: &mut Vec<Member>) {
        let mut touched = Touched::new();
        for (bucket, key) in self.places.remove(&stream).unwrap_or_default() {
            self.leave_cell(Member { stream, bucket }, key, &mut touched);
        }
        self.deal_out(touched, changed);
    }

    fn place(&self, member: Member) -> Option<CellKey> {
        self.places.get(&member.stream)?.get(&member.bucket).copied()
    }

    /// Takes the report of one bucket. It is no member any more if it was not used for long.
    fn take(&mut self, stream: StreamId, report: &Report, now: Instant, touched: &mut Touched) {
        let &Report { bucket, key, limit, usage } = report;
        let member = Member { stream, bucket };
        // The rule is another one than at the last report.
        if self.place(member).is_some_and(|place| place != key) {
            self.remove(member, touched);
        }
        self.places.entry(stream).or_default().insert(bucket, key);
        let hits = usage.allowed.saturating_add(usage.denied);
        let newest = hits as f64 / usage.elapsed.clamp(Duration::from_secs(1), REPORT_INTERVAL * 12).as_secs_f64();
        // Nobody can have more than everything; a flood of refused requests must not be remembered for long.
        let newest = newest.min(f64::from(limit.requests()) / limit.per().as_secs_f64());
        let share = self
            .cells
            .entry(key)
            .or_default()
            .entry(member)
            .and_modify(|share| share.demand = NEWEST * newest + (1.0 - NEWEST) * share.demand)
            .or_insert(Share { limit, demand: newest, used: now, dealt: None, overdrawn: false });
        share.limit = limit;
        share.overdrawn = usage.overdrawn;
        if hits > 0 {
            share.used = now;
        } else if now.saturating_duration_since(share.used) >= IDLE {
            return self.remove(member, touched);
        }
        touched.entry(key).or_insert(Touch { limit, left: false }).limit = limit;
    }

    fn remove(&mut self, member: Member, touched: &mut Touched) {
        if let Some(key) = self.places.get_mut(&member.stream).and_then(|places| places.remove(&member.bucket)) {
            self.leave_cell(member, key, touched);
        }
    }

    fn leave_cell(&mut self, member: Member, key: CellKey, touched: &mut Touched) {
        let left = self.cells.get_mut(&key).and_then(|shares| shares.remove(&member));
        if let Some(Share { limit, .. }) = left {
            touched.entry(key).or_insert(Touch { limit, left: true }).left = true;
        }
    }

    fn deal_out(&mut self, touched: Touched, changed: &mut Vec<Member>) {
        for (key, Touch { limit, left }) in touched {
            let Some(shares) = self.cells.get_mut(&key) else { continue };
            if shares.is_empty() {
                self.cells.remove(&key);
            } else if left || !is_settled(shares, limit) {
                deal(shares, limit, changed);
            }
        }
    }
}

/// Whether everybody has about what a new deal would give.
fn is_settled(shares: &BTreeMap<Member, Share>, limit: Limit) -> bool {
    let wanted = split(&limit, &demands(shares));
    shares.values().zip(wanted).all(|(share, wanted)| match share.dealt {
        Some((of, dealt)) => of == limit && is_about(dealt, wanted),
        None => false,
    })
}

fn is_about(dealt: Assignment, wanted: Assignment) -> bool {
    match (dealt, wanted) {
        (Assignment::Bucket { tokens_per_fill: dealt, .. }, Assignment::Bucket { tokens_per_fill: wanted, .. }) => {
            dealt.abs_diff(wanted) <= dealt.max(wanted) / RIPPLE
        }
        (dealt, wanted) => dealt == wanted,
    }
}

fn deal(shares: &mut BTreeMap<Member, Share>, limit: Limit, changed: &mut Vec<Member>) {
    let assignments = split(&limit, &demands(shares));
    for ((member, share), assignment) in shares.iter_mut().zip(assignments) {
        let before = share.dealt.replace((limit, assignment));
        if before.map(|(_, before)| before) != Some(assignment) {
            changed.push(*member);
        }
    }
}

fn demands(shares: &BTreeMap<Member, Share>) -> Vec<f64> {
    shares.values().map(|share| share.demand).collect()
}

#[cfg(test)]
mod tests;
