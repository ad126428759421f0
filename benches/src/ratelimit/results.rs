//! What was measured, and what is told of it: medians over rounds, ratios to the floor of the same round.

use std::{collections::HashMap, time::Duration};

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use super::{case::Case, subject::Subject};
use crate::{
    machine::Machine,
    report::milliseconds,
    statistics::{histogram, median, restored},
};

/// So large a share of decisions without Redis is no matter.
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
}

/// One server under one load, once.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Round {
    #[serde(skip)]
    pub(super) number: usize,
    pub(super) per_second: f64,
    pub(super) refused_share: f64,
    /// CPU of the server per decision.
    pub(super) cpu_micros: f64,
    pub(super) redis_cpu_micros: Option<f64>,
    /// Commands that Redis was sent per decision.
    pub(super) redis_calls: Option<f64>,
    /// Share of a core that the load used.
    pub(super) load_busy: f64,
    /// Resident, before the load and after it.
    pub(super) memory_mb: [f64; 2],
    /// Where every key was asked for before.
    pub(super) bytes_per_key: Option<f64>,
    pub(super) longest_while_filling_ms: Option<f64>,
    /// Share of the decisions that one on Redis made without it.
    pub(super) without_redis: f64,
    /// Answers without a verdict; they count as no decision.
    pub(super) failed: u64,
    pub(super) unanswered: u64,
    /// Pairs of nanoseconds and how often; the quantiles stand in [`Measured`].
    #[serde(skip)]
    pub(super) latencies: Vec<(u64, u64)>,
}

impl Round {
    fn histogram(&self) -> Histogram<u64> {
        restored(&self.latencies)
    }
}

/// One server under one load.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Measured {
    pub(super) server: Subject,
    pub(super) rounds: Vec<Round>,
    /// Decisions per second, as a share of the floor's in the same round.
    pub(super) of_floor: Option<f64>,
    /// Medians of the rounds' quantiles.
    pub(super) quantiles: Quantiles,
    /// All rounds together.
    #[serde(skip)]
    pub(super) latencies: Histogram<u64>,
}

impl Measured {
    /// Without the ratio, for which the floor has to be known.
    pub(super) fn new(server: Subject, rounds: Vec<Round>) -> Self {
        let each: Vec<Histogram<u64>> = rounds.iter().map(Round::histogram).collect();
        let mut latencies = histogram();
        for round in &each {
            // Both have the bounds of `histogram`.
            let _ = latencies.add(round);
        }
        let quantile = |share| {
            let seconds = each.iter().map(|round| Duration::from_nanos(round.value_at_quantile(share)).as_secs_f64());
            Duration::from_secs_f64(median(seconds.collect()).unwrap_or(0.0))
        };
        let [p50, p90, p99, p999, max] = [0.5, 0.9, 0.99, 0.999, 1.0].map(quantile);
        Self { server, rounds, of_floor: None, quantiles: Quantiles { p50, p90, p99, p999, max }, latencies }
    }

    /// The median of something over the rounds.
    pub(super) fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect()).unwrap_or(f64::NAN)
    }

    /// The same for what only some servers have.
    pub(super) fn median_of(&self, of: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
        Some(self.median(|round| of(round).unwrap_or(f64::NAN))).filter(|middle| !middle.is_nan())
    }

    /// Whether it is a server on Redis that decided without it, so that something else was measured than was meant.
    pub(super) fn is_void(&self) -> bool {
        self.rounds.iter().any(|round| round.without_redis > TOLERATED)
    }
}

/// Latencies.
#[derive(Clone, Copy)]
pub(super) struct Quantiles {
    pub(super) p50: Duration,
    pub(super) p90: Duration,
    pub(super) p99: Duration,
    pub(super) p999: Duration,
    pub(super) max: Duration,
}

impl Serialize for Quantiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape {
            p50_ms: f64,
            p90_ms: f64,
            p99_ms: f64,
            p999_ms: f64,
            max_ms: f64,
        }
        let Self { p50, p90, p99, p999, max } = *self;
        let [p50_ms, p90_ms, p99_ms, p999_ms, max_ms] = [p50, p90, p99, p999, max].map(milliseconds);
        Shape { p50_ms, p90_ms, p99_ms, p999_ms, max_ms }.serialize(serializer)
    }
}

/// One case, all servers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    pub(super) case: Case,
    pub(super) servers: Vec<Measured>,
    /// Rounds that gave nothing.
    pub(super) problems: Vec<String>,
}

impl Summary {
    /// Compares each server with the floor, round by round.
    pub(super) fn new(case: Case, mut servers: Vec<Measured>, problems: Vec<String>) -> Self {
        let floor = servers.iter().find(|measured| measured.server == Subject::Floor);
        let floor: HashMap<usize, f64> =
            floor.into_iter().flat_map(|floor| &floor.rounds).map(|round| (round.number, round.per_second)).collect();
        for measured in &mut servers {
            let ratio = |round: &Round| {
                let floor = floor.get(&round.number).filter(|floor| **floor > 0.0)?;
                Some(round.per_second / floor)
            };
            measured.of_floor = median(measured.rounds.iter().filter_map(ratio).collect());
        }
        Self { case, servers, problems }
    }

    /// What was measured of one server.
    pub(super) fn of(&self, server: Subject) -> Option<&Measured> {
        self.servers.iter().find(|measured| measured.server == server)
    }
}
