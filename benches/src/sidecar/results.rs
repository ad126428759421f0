//! What was measured, and what is told of it: medians over rounds, each compared with the others of the same round.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    case::Case,
    subject::Subject::{self, Direct},
};
use crate::{
    machine::Machine,
    statistics::{histogram, median, restored},
};

/// The quantiles that are told.
pub(super) const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];

/// So large a share of wrong answers is no matter.
const TOLERATED: f64 = 0.001;

/// Everything, as it goes to JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) rounds: usize,
    /// What this machine could not run, and why.
    pub(super) left_out: Vec<String>,
    pub(super) cases: Vec<Summary>,
    pub(super) memory: Vec<Memory>,
    /// Connections of the second figure there.
    pub(super) connections: usize,
}

/// A closed loop: what a subject carries, and at which cost.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Closed {
    pub(super) round: usize,
    pub(super) per_second: f64,
    /// CPU of the subject per request; none for the upstream alone.
    pub(super) cpu_micros: Option<f64>,
    /// CPU of the upstream per request.
    pub(super) upstream_micros: f64,
    /// Share of a core that the load used.
    pub(super) load_busy: f64,
    /// Resident after the load.
    pub(super) memory_mb: Option<f64>,
    /// Share of requests that were answered wrongly, or not.
    pub(super) failed: f64,
}

/// An open loop: how long requests took at a rate that all subjects carry.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Open {
    pub(super) round: usize,
    /// At [`QUANTILES`], from when each was due.
    pub(super) micros: [f64; 3],
    pub(super) cpu_micros: Option<f64>,
    pub(super) failed: f64,
    /// Pairs of nanoseconds and how often.
    #[serde(skip)]
    pub(super) latencies: Vec<(u64, u64)>,
}

/// One subject under one kind of load.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measured {
    pub(super) subject: Subject,
    pub(super) closed: Vec<Closed>,
    pub(super) open: Vec<Open>,
    /// All open rounds together.
    #[serde(skip)]
    pub(super) latencies: Histogram<u64>,
}

impl Measured {
    pub(super) fn new(subject: Subject, closed: Vec<Closed>, open: Vec<Open>) -> Self {
        let mut latencies = histogram();
        for round in &open {
            // Both have the bounds of `histogram`.
            let _ = latencies.add(restored(&round.latencies));
        }
        Self { subject, closed, open, latencies }
    }

    /// The median of something over the closed rounds.
    pub(super) fn closed(&self, of: impl Fn(&Closed) -> f64) -> Option<f64> {
        median(self.closed.iter().map(of).collect())
    }

    /// The median CPU per request in closed rounds.
    pub(super) fn cpu(&self) -> Option<f64> {
        median(self.closed.iter().filter_map(|round| round.cpu_micros).collect())
    }

    /// Whether so much went wrong that its figures mean nothing.
    pub(super) fn is_void(&self) -> bool {
        let failed = self.closed.iter().map(|round| round.failed).chain(self.open.iter().map(|round| round.failed));
        failed.fold(0.0, f64::max) > TOLERATED
    }
}

/// One case, all subjects.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    pub(super) case: Case,
    /// Requests per second in the open loop; none if there was no slowest subject.
    pub(super) per_second: Option<u32>,
    pub(super) subjects: Vec<Measured>,
    /// Rounds that gave nothing.
    pub(super) problems: Vec<String>,
}

impl Summary {
    /// What was measured of one subject, if that means something.
    pub(super) fn of(&self, subject: Subject) -> Option<&Measured> {
        self.subjects.iter().find(|measured| measured.subject == subject && !measured.is_void())
    }

    /// CPU per request of one as a share of the other's, the median of the rounds' ratios.
    pub(super) fn cpu_ratio(&self, one: Subject, other: Subject) -> Option<f64> {
        let other = self.of(other)?;
        let ratio = |round: &Closed| {
            let beside = other.closed.iter().find(|beside| beside.round == round.round)?;
            Some(round.cpu_micros? / beside.cpu_micros.filter(|cpu| *cpu > 0.0)?)
        };
        median(self.of(one)?.closed.iter().filter_map(ratio).collect())
    }

    /// What a subject adds to the upstream's own latency at [`QUANTILES`], in microseconds: medians of the rounds' differences.
    pub(super) fn added(&self, subject: Subject) -> Option<[f64; 3]> {
        let (direct, measured) = (self.of(Direct)?, self.of(subject)?);
        let pairs = || {
            let beside = |round: &Open| direct.open.iter().find(|beside| beside.round == round.round);
            measured.open.iter().filter_map(|round| Some((round.micros, beside(round)?.micros))).collect::<Vec<_>>()
        };
        let added = |at: usize| median(pairs().iter().map(|(with, without)| with[at] - without[at]).collect());
        Some([added(0)?, added(1)?, added(2)?])
    }
}

/// What one subject holds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Memory {
    pub(super) subject: Subject,
    /// Configured, with one request served.
    pub(super) idle_mb: f64,
    /// With open connections, each of which was used once.
    pub(super) occupied_mb: f64,
}
