//! Which proxies share which limit, how much each of them wants, and what each was given. Pure: time comes in.
//!
//! Members of a cell share its limit: each is one bucket of one proxy (several buckets of a proxy may be about one cell).
//! A report moves its member's demand, and with it everybody's share: the reporter is answered at once, and whose
//! share has changed is to be told too, without waiting for its own report.
//!
//! A proxy that is given another bucket than before starts it full. So shares are not dealt out anew for every
//! ripple of demand, and a cell that was charged much more than its limit gives nothing until that is paid back.

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

/// What a proxy used of a bucket since its last report, and what that did to the cell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) allowed: u64,
    pub(super) denied: u64,
    pub(super) elapsed: Duration,
    /// Much more than the limit was charged to the cell.
    pub(super) overdrawn: bool,
}

/// What became of a report.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// What the reporter may do from now on.
    Assigned(Assignment),
    /// The reporter has not used the bucket for long and is to forget it.
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

impl Ledger {
    /// Takes a report of `member` about the cell `key`, whose limit is `limit` now. Those whose share is another
    /// than before, other than the reporter, are added to `changed`.
    pub(super) fn report(
        &mut self,
        member: Member,
        key: CellKey,
        limit: Limit,
        usage: Usage,
        now: Instant,
        changed: &mut Vec<Member>,
    ) -> Answer {
        // The rule is another one than at the last report.
        if self.place(member).is_some_and(|place| place != key) {
            self.forget(member, changed);
        }
        self.places.entry(member.stream).or_default().insert(member.bucket, key);
        let hits = usage.allowed.saturating_add(usage.denied);
        let newest = hits as f64 / usage.elapsed.clamp(Duration::from_secs(1), REPORT_INTERVAL * 12).as_secs_f64();
        // Nobody can have more than everything; a flood of refused requests must not be remembered for long.
        let newest = newest.min(f64::from(limit.requests()) / limit.per().as_secs_f64());
        let shares = self.cells.entry(key).or_default();
        let share = shares
            .entry(member)
            .and_modify(|share| share.demand = NEWEST * newest + (1.0 - NEWEST) * share.demand)
            .or_insert(Share { limit, demand: newest, used: now, dealt: None, overdrawn: false });
        share.limit = limit;
        share.overdrawn = usage.overdrawn;
        if hits > 0 {
            share.used = now;
        } else if now.saturating_duration_since(share.used) >= IDLE {
            self.forget(member, changed);
            return Answer::Abandon;
        }
        if !is_settled(shares, limit) {
            deal(shares, limit, changed);
            changed.retain(|other| *other != member);
        }
        Answer::Assigned(self.given(member).unwrap_or(Assignment::Nothing))
    }

    /// What a member may do now; `None` if it is none.
    pub(super) fn given(&self, member: Member) -> Option<Assignment> {
        self.cells.get(&self.place(member)?)?.get(&member).map(Share::given)
    }

    /// Forgets one bucket of a stream. Those who have more from now on are added to `changed`.
    pub(super) fn forget(&mut self, member: Member, changed: &mut Vec<Member>) {
        let Some(places) = self.places.get_mut(&member.stream) else { return };
        if let Some(key) = places.remove(&member.bucket) {
            self.leave_cell(member, key, changed);
        }
    }

    /// Forgets a stream that ended. Those who have more from now on are added to `changed`.
    pub(super) fn leave(&mut self, stream: StreamId, changed: &mut Vec<Member>) {
        for (bucket, key) in self.places.remove(&stream).unwrap_or_default() {
            self.leave_cell(Member { stream, bucket }, key, changed);
        }
        changed.retain(|member| member.stream != stream);
    }

    fn place(&self, member: Member) -> Option<CellKey> {
        self.places.get(&member.stream)?.get(&member.bucket).copied()
    }

    fn leave_cell(&mut self, member: Member, key: CellKey, changed: &mut Vec<Member>) {
        let Some(shares) = self.cells.get_mut(&key) else { return };
        let Some(left) = shares.remove(&member) else { return };
        if shares.is_empty() {
            self.cells.remove(&key);
        } else {
            deal(shares, left.limit, changed);
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
