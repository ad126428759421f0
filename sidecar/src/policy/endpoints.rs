//! Which endpoints of a cluster may be asked, and who may be out at the same time.
//!
//! Two things put an endpoint out: its breaker, which then lets one request probe it, and outlier detection, which ejects it for
//! a time. Neither decides alone, since both see one endpoint while what remains matters: here is the one place where it is
//! decided, and the cap is on all who are out, for whatever reason.
//!
//! The cap, of `n` endpoints: `n · percent / 100` rounded down, but one at least (Envoy ejects nobody of three by its default of
//! 10 %), and never all. A percentage of zero means nobody. What the cap refused is counted, and asked for again at the
//! next failure.
//!
//! Invariant: after every call no more are out than the cap allows. When endpoints go or the cap is lowered, those who would have
//! been back first are back now.
//!
//! Where both would put an endpoint out, outlier detection has it: that is what the cluster's configuration asks for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    breaker::{self, Breaker, Judgement, Pass, Phase, Readiness},
    classify::Verdict,
    outlier::{self, Cause, Record, Tally},
    p2c::Standing,
};

/// What puts endpoints out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// The breaker of each endpoint, if they have one.
    pub breaker: Option<breaker::Settings>,
    /// Outlier detection, if the cluster asks for it.
    pub outlier: Option<outlier::Settings>,
    /// How many of a hundred may be out; 10 (`max_ejection_percent`).
    pub max_ejection_percent: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { breaker: Some(breaker::Settings::default()), outlier: None, max_ejection_percent: 10 }
    }
}

/// One endpoint of a set. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(u64);

/// The endpoints of a cluster.
#[derive(Debug)]
pub struct EndpointSet {
    settings: Settings,
    members: BTreeMap<EndpointId, Member>,
    next: u64,
    /// When the endpoints are next compared.
    comparison: Duration,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Member {
    breaker: Option<Breaker>,
    record: Record,
    /// Until when it is ejected.
    ejected: Option<Duration>,
}

/// What has happened since the set was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Breakers that opened; not those that opened again after a probe.
    pub opened: u64,
    /// Breakers that opened again, since a probe met a failure or had no answer in time.
    pub opened_again: u64,
    /// Probes that were sent: breakers that were half open.
    pub probed: u64,
    /// Breakers that a good probe closed.
    pub closed: u64,
    /// Endpoints ejected.
    pub ejected: u64,
    /// Endpoints that would be out, but for the cap.
    pub refused: u64,
}

/// How an endpoint stands, to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether it may be asked.
    pub standing: Standing,
    /// For how long it is ejected, if it is.
    pub ejected: Option<Duration>,
    /// The state of its breaker, if it has one.
    pub breaker: Option<Phase>,
}

/// That a request may go to an endpoint. To be given back exactly once, by [`EndpointSet::record`] or [`EndpointSet::cancel`].
#[must_use = "a probe that is not given back blocks the endpoint until its deadline"]
#[derive(Debug, PartialEq, Eq)]
pub struct Admission(Option<Pass>);

impl Admission {
    /// Whether the request is the probe of a breaker.
    pub fn is_probe(&self) -> bool {
        self.0.as_ref().is_some_and(Pass::is_probe)
    }
}

/// What became of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// Its breaker opened.
    Opened,
    /// Its breaker opened again, after a probe.
    OpenedAgain,
    /// It was ejected.
    Ejected(Cause),
    /// It would be out, but for the cap.
    Refused,
    /// It is back. What is held against it elsewhere ([`PeakEwma::forgive`](super::ewma::PeakEwma::forgive)) should be forgotten.
    Back,
}

impl EndpointSet {
    /// Without endpoints.
    pub fn new(settings: Settings, now: Duration) -> Self {
        let comparison = next_comparison(&settings, now);
        Self { settings, members: BTreeMap::new(), next: 0, comparison, counts: Counts::default() }
    }

    /// Takes new settings. Who is out stays out, as far as the new settings allow; says who is back.
    pub fn configure(&mut self, settings: Settings, now: Duration) -> Vec<EndpointId> {
        let intervals = [self.settings, settings].map(|settings| settings.outlier.map(|outlier| outlier.interval));
        if intervals[0] != intervals[1] {
            self.comparison = next_comparison(&settings, now);
        }
        self.settings = settings;
        let before = self.who_is_out();
        for member in self.members.values_mut() {
            match (settings.breaker, &mut member.breaker) {
                (Some(settings), Some(breaker)) => breaker.configure(settings),
                (settings, breaker) => *breaker = settings.map(Breaker::new),
            }
            if settings.outlier.is_none() && member.ejected.is_some() {
                member.come_back(now);
            }
        }
        self.keep_to_the_cap(now);
        let after = self.who_is_out();
        before.difference(&after).copied().collect()
    }

    /// A new endpoint, which is in.
    pub fn insert(&mut self) -> EndpointId {
        let id = EndpointId(self.next);
        self.next += 1;
        self.members.insert(id, Member { breaker: self.settings.breaker.map(Breaker::new), ..Member::default() });
        id
    }

    /// An endpoint is gone. Says who is back because of that.
    pub fn remove(&mut self, id: EndpointId, now: Duration) -> Vec<EndpointId> {
        self.members.remove(&id);
        self.keep_to_the_cap(now)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many are out, those included who are due a probe.
    pub fn out(&self) -> usize {
        self.members.values().filter(|member| member.is_out()).count()
    }

    /// What has happened.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether an endpoint may be asked. One that is not in the set may not.
    pub fn standing(&self, id: EndpointId, now: Duration) -> Standing {
        self.members.get(&id).map_or(Standing::Out, |member| member.standing(now))
    }

    /// How an endpoint stands. None if it is not in the set.
    pub fn condition(&self, id: EndpointId, now: Duration) -> Option<Condition> {
        let member = self.members.get(&id)?;
        Some(Condition {
            standing: member.standing(now),
            ejected: member.ejected.map(|until| until.saturating_sub(now)),
            breaker: member.breaker.as_ref().map(|breaker| breaker.phase(now)),
        })
    }

    /// Lets a request go to an endpoint, or not. In a `panic`, which is when all are out, it may go; what it meets there
    /// is then not counted by the breaker.
    pub fn admit(&mut self, id: EndpointId, panic: bool, now: Duration) -> Option<Admission> {
        let member = self.members.get_mut(&id)?;
        let admission = if member.ejected.is_some() {
            None
        } else {
            match &mut member.breaker {
                Some(breaker) => {
                    self.counts.opened_again += u64::from(breaker.has_lost_probe(now));
                    let pass = breaker.admit(now);
                    self.counts.probed += u64::from(pass.as_ref().is_some_and(Pass::is_probe));
                    pass.map(|pass| Admission(Some(pass)))
                }
                None => Some(Admission(None)),
            }
        };
        admission.or(panic.then_some(Admission(None)))
    }

    /// Counts what an admitted request has met, and for how long the endpoint asked to be left alone. `chance` is asked for numbers
    /// from 0 to 1.
    pub fn record(
        &mut self,
        id: EndpointId,
        admission: Admission,
        verdict: Verdict,
        asked: Option<Duration>,
        now: Duration,
        chance: &mut dyn FnMut() -> f64,
    ) -> Change {
        // Nobody is put out for a good answer, and counting who is out takes a look at everyone.
        let room = verdict != Verdict::Success && self.has_room();
        let Some(member) = self.members.get_mut(&id) else { return Change::None };
        let was_in = !member.is_out();
        let mut refused = false;
        if let Some(outlier) = self.settings.outlier.as_ref().filter(|_| was_in) {
            for cause in member.record.answer(outlier, verdict) {
                if !outlier.enforces(cause, chance()) {
                    continue;
                }
                if room {
                    member.eject(outlier, now, chance());
                    self.counts.ejected += 1;
                    return Change::Ejected(cause);
                }
                refused = true;
            }
        }
        let judgement = match (&mut member.breaker, admission.0) {
            (Some(breaker), Some(pass)) => breaker.record(pass, verdict, now, chance()),
            _ => Judgement::Unchanged,
        };
        let change = match judgement {
            Judgement::Unchanged => Change::None,
            Judgement::Closed => {
                self.counts.closed += 1;
                Change::Back
            }
            Judgement::OpenedAgain => {
                self.counts.opened_again += 1;
                Change::OpenedAgain
            }
            Judgement::WouldOpen if room => {
                if let Some(breaker) = &mut member.breaker {
                    breaker.open(now, chance(), asked);
                }
                self.counts.opened += 1;
                return Change::Opened;
            }
            Judgement::WouldOpen => {
                refused = true;
                Change::None
            }
        };
        self.counts.refused += u64::from(refused);
        if refused { Change::Refused } else { change }
    }

    /// Takes back that a request was admitted: it has met nothing.
    pub fn cancel(&mut self, id: EndpointId, admission: Admission, now: Duration) {
        let breaker = self.members.get_mut(&id).and_then(|member| member.breaker.as_mut());
        if let (Some(breaker), Some(pass)) = (breaker, admission.0) {
            breaker.cancel(pass, now);
        }
    }

    /// When [`Self::tick`] has something to do next; never, if there is no outlier detection.
    pub fn next_tick(&self) -> Option<Duration> {
        self.settings.outlier?;
        let back = self.members.values().filter_map(|member| member.ejected);
        back.chain([self.comparison]).min()
    }

    /// Brings those back whose time is over, and at the end of an interval compares all endpoints. Says what became of whom.
    pub fn tick(&mut self, now: Duration, chance: &mut dyn FnMut() -> f64) -> Vec<(EndpointId, Change)> {
        let Some(outlier) = self.settings.outlier else { return Vec::new() };
        let mut changes = Vec::new();
        for (id, member) in &mut self.members {
            if member.ejected.is_some_and(|until| until <= now) {
                member.come_back(now);
                changes.push((*id, Change::Back));
            }
        }
        if self.comparison <= now {
            self.comparison = next_comparison(&self.settings, now);
            self.compare(&outlier, now, chance, &mut changes);
        }
        changes
    }

    fn compare(
        &mut self,
        outlier: &outlier::Settings,
        now: Duration,
        chance: &mut dyn FnMut() -> f64,
        changes: &mut Vec<(EndpointId, Change)>,
    ) {
        let all = self.members.iter_mut().map(|(id, member)| (*id, member.is_out(), member.record.end_interval()));
        let (ids, tallies): (Vec<EndpointId>, Vec<Tally>) =
            all.filter(|(_, out, _)| !out).map(|(id, _, tally)| (id, tally)).unzip();
        for (index, cause) in outlier.outliers(&tallies) {
            let room = self.has_room();
            let Some(member) = self.members.get_mut(&ids[index]) else { continue };
            if member.is_out() || !outlier.enforces(cause, chance()) {
                continue;
            }
            if room {
                member.eject(outlier, now, chance());
                self.counts.ejected += 1;
                changes.push((ids[index], Change::Ejected(cause)));
            } else {
                self.counts.refused += 1;
                changes.push((ids[index], Change::Refused));
            }
        }
        for member in self.members.values_mut().filter(|member| !member.is_out()) {
            member.record.make_good(outlier, now);
        }
    }

    fn has_room(&self) -> bool {
        self.out() < self.cap()
    }

    /// How many may be out.
    fn cap(&self) -> usize {
        match (self.members.len(), self.settings.max_ejection_percent.min(100) as usize) {
            (_, 0) => 0,
            (all, percent) => (all * percent / 100).max(1).min(all.saturating_sub(1)),
        }
    }

    /// Brings back whom the cap no longer allows to be out: who would have been back first.
    fn keep_to_the_cap(&mut self, now: Duration) -> Vec<EndpointId> {
        let mut out: Vec<(Duration, EndpointId)> =
            self.members.iter().filter_map(|(id, member)| Some((member.until()?, *id))).collect();
        out.sort_unstable();
        out.truncate(out.len().saturating_sub(self.cap()));
        for (_, id) in &out {
            if let Some(member) = self.members.get_mut(id) {
                member.come_back(now);
            }
        }
        out.into_iter().map(|(_, id)| id).collect()
    }

    fn who_is_out(&self) -> BTreeSet<EndpointId> {
        self.members.iter().filter(|(_, member)| member.is_out()).map(|(id, _)| *id).collect()
    }
}

impl Member {
    fn is_out(&self) -> bool {
        self.until().is_some()
    }

    /// Until when it is out, a probe not counted.
    fn until(&self) -> Option<Duration> {
        self.ejected.or_else(|| self.breaker.as_ref()?.until())
    }

    fn standing(&self, now: Duration) -> Standing {
        if self.ejected.is_some() {
            return Standing::Out;
        }
        match self.breaker.as_ref().map(|breaker| breaker.readiness(now)) {
            None | Some(Readiness::Closed) => Standing::In,
            Some(Readiness::Probe) => Standing::Probe,
            Some(Readiness::Open) => Standing::Out,
        }
    }

    fn eject(&mut self, outlier: &outlier::Settings, now: Duration, chance: f64) {
        self.ejected = Some(now.saturating_add(self.record.eject(outlier, chance)));
        // What led to this is not to open the breaker when it is over.
        if let Some(breaker) = &mut self.breaker {
            breaker.close();
        }
    }

    fn come_back(&mut self, now: Duration) {
        if self.ejected.take().is_some() {
            self.record.come_back(now);
        }
        if let Some(breaker) = &mut self.breaker {
            breaker.close();
        }
    }
}

fn next_comparison(settings: &Settings, now: Duration) -> Duration {
    // An interval of nothing would compare without end.
    let interval = settings.outlier.map_or(Duration::MAX, |outlier| outlier.interval.max(Duration::from_millis(1)));
    now.saturating_add(interval)
}

#[cfg(test)]
mod tests;
