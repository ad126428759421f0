//! What is measured about calls and connections, each metric declared here and nowhere else.
//!
//! A call takes about two microseconds, so counting one must take nanoseconds: handles are looked up once, a
//! connection counts what one read brought in one step, and durations go into buckets of our own. (The exporter's
//! histograms keep every sample until they are folded: tens of megabytes at this rate.) The buckets are published as
//! counters under the names that a histogram's series have, so queries do not see a difference.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use metrics::{Counter, Gauge};

/// Counter: calls of `ShouldRateLimit` by `outcome`.
pub const REQUESTS: &str = "chancery_rate_limiter_requests_total";
/// Gauge: calls that wait for the store.
pub const WAITING: &str = "chancery_rate_limiter_requests_waiting";
/// Gauge: open connections, by `worker`.
pub const CONNECTIONS: &str = "chancery_rate_limiter_connections";
/// Counter: how many calls took at most `le` seconds from their arrival to their answer.
pub const DURATION_BUCKET: &str = "chancery_rate_limiter_request_duration_seconds_bucket";
/// Counter: how many calls were timed.
pub const DURATION_COUNT: &str = "chancery_rate_limiter_request_duration_seconds_count";
/// Gauge: how long all of them took, in seconds.
pub const DURATION_SUM: &str = "chancery_rate_limiter_request_duration_seconds_sum";

/// Upper bounds of the buckets in microseconds, and as the label says them in seconds.
const BOUNDS: [(u64, &str); 12] = [
    (50, "0.00005"),
    (100, "0.0001"),
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (20_000, "0.02"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (1_000_000, "1"),
];

/// Tells the recorder what the metrics mean. Call once, after the recorder is installed.
pub fn describe() {
    metrics::describe_counter!(REQUESTS, "Calls of ShouldRateLimit");
    metrics::describe_gauge!(WAITING, "Calls that wait for the store");
    metrics::describe_gauge!(CONNECTIONS, "Open gRPC connections");
    metrics::describe_counter!(DURATION_BUCKET, "Calls by the time from arrival to answer");
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Within all limits.
    Admitted,
    /// Over a limit.
    Limited,
    /// It made no sense.
    Invalid,
    /// The caller may not ask that.
    Forbidden,
    /// Its deadline passed.
    Late,
    /// The caller gave it up.
    Abandoned,
}

impl Outcome {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Admitted, "admitted"),
        (Self::Limited, "limited"),
        (Self::Invalid, "invalid"),
        (Self::Forbidden, "forbidden"),
        (Self::Late, "late"),
        (Self::Abandoned, "abandoned"),
    ];

    /// How a verdict counts.
    pub fn of(admitted: bool) -> Self {
        if admitted { Self::Admitted } else { Self::Limited }
    }
}

/// Counts calls. Shared by all connections of a process.
#[derive(Debug)]
pub struct Meters {
    outcomes: [Counter; Outcome::ALL.len()],
    waiting: Gauge,
    buckets: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

/// Calls that were answered together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally([u32; Outcome::ALL.len()]);

impl Tally {
    /// Counts one.
    pub fn add(&mut self, outcome: Outcome) {
        self.0[outcome as usize] += 1;
    }
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            outcomes: Outcome::ALL.map(|(_, label)| metrics::counter!(REQUESTS, "outcome" => label)),
            waiting: metrics::gauge!(WAITING),
            buckets: Default::default(),
            microseconds: AtomicU64::new(0),
        }
    }
}

impl Meters {
    /// Counts calls that were answered together, each after `took`.
    pub fn answered(&self, tally: Tally, took: Duration) {
        let mut calls = 0;
        for (counter, count) in self.outcomes.iter().zip(tally.0) {
            if count > 0 {
                counter.increment(count.into());
                calls += u64::from(count);
            }
        }
        if calls > 0 {
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let bucket = BOUNDS.iter().position(|(bound, _)| took <= *bound).unwrap_or(BOUNDS.len());
            self.buckets[bucket].fetch_add(calls, Relaxed);
            self.microseconds.fetch_add(took.saturating_mul(calls), Relaxed);
        }
    }

    /// Counts one call that was answered after `took`.
    pub fn ended(&self, outcome: Outcome, took: Duration) {
        let mut tally = Tally::default();
        tally.add(outcome);
        self.answered(tally, took);
    }

    /// A call waits from now on; `false`: it does no longer.
    pub fn waits(&self, begins: bool) {
        if begins { self.waiting.increment(1.0) } else { self.waiting.decrement(1.0) }
    }

    /// Makes the durations visible. To be called every now and then.
    pub fn publish(&self) {
        let mut calls = 0;
        let bounds = BOUNDS.iter().map(|(_, label)| *label).chain(["+Inf"]);
        for (bucket, bound) in self.buckets.iter().zip(bounds) {
            calls += bucket.load(Relaxed);
            metrics::counter!(DURATION_BUCKET, "le" => bound).absolute(calls);
        }
        metrics::counter!(DURATION_COUNT).absolute(calls);
        metrics::gauge!(DURATION_SUM).set(self.microseconds.load(Relaxed) as f64 / 1e6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_their_own_place() {
        for (index, (outcome, _)) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }

    #[test]
    fn calls_are_shown_by_outcome_and_duration() {
        let shown = chancery_runtime::telemetry::metrics().unwrap();
        let meters = Meters::default();
        let mut tally = Tally::default();
        for outcome in [Outcome::Admitted, Outcome::Admitted, Outcome::Limited] {
            tally.add(outcome);
        }
        meters.answered(tally, Duration::from_micros(51));
        meters.ended(Outcome::Late, Duration::from_secs(2));
        meters.publish();
        let text = shown.render();
        let bucket = |bound: &str| format!("{DURATION_BUCKET}{{le=\"{bound}\"}}");
        for line in [
            format!("{REQUESTS}{{outcome=\"admitted\"}} 2"),
            format!("{REQUESTS}{{outcome=\"limited\"}} 1"),
            format!("{} 0", bucket("0.00005")),
            format!("{} 3", bucket("0.0001")),
            format!("{} 3", bucket("1")),
            format!("{} 4", bucket("+Inf")),
            format!("{DURATION_COUNT} 4"),
        ] {
            assert!(text.contains(&line), "no {line} in\n{text}");
        }
    }
}
