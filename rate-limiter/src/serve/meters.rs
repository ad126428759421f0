//! What is measured about calls and connections, each metric declared here and nowhere else. (What was decided is
//! counted where it is decided.)
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

/// Counter: calls that got no verdict though one was on its way, by `reason`: `deadline`, or `abandoned` by the caller.
pub const UNANSWERED: &str = "chancery_rate_limiter_unanswered_total";
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
    metrics::describe_counter!(
        UNANSWERED,
        "Calls without a verdict, by reason: the deadline passed, or the caller gave up"
    );
    metrics::describe_gauge!(WAITING, "Calls that wait for the store");
    metrics::describe_gauge!(CONNECTIONS, "Open gRPC connections, by worker");
    metrics::describe_counter!(
        DURATION_BUCKET,
        "Calls by the time from arrival to answer: those of at most le seconds"
    );
    metrics::describe_counter!(DURATION_COUNT, "Calls that were timed");
    metrics::describe_gauge!(DURATION_SUM, metrics::Unit::Seconds, "Time that all timed calls took together");
}

/// Counts calls. Shared by all connections of a process.
#[derive(Debug)]
pub struct Meters {
    late: Counter,
    abandoned: Counter,
    waiting: Gauge,
    buckets: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            late: metrics::counter!(UNANSWERED, "reason" => "deadline"),
            abandoned: metrics::counter!(UNANSWERED, "reason" => "abandoned"),
            waiting: metrics::gauge!(WAITING),
            buckets: Default::default(),
            microseconds: AtomicU64::new(0),
        }
    }
}

impl Meters {
    /// Counts calls that were answered together, each after `took`.
    pub fn answered(&self, calls: u64, took: Duration) {
        if calls > 0 {
            let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            let bucket = BOUNDS.iter().position(|(bound, _)| took <= *bound).unwrap_or(BOUNDS.len());
            self.buckets[bucket].fetch_add(calls, Relaxed);
            self.microseconds.fetch_add(took.saturating_mul(calls), Relaxed);
        }
    }

    /// Counts a call whose deadline passed before its verdict came.
    pub fn late(&self) {
        self.late.increment(1);
    }

    /// Counts a call that its caller gave up before its verdict came.
    pub fn abandoned(&self) {
        self.abandoned.increment(1);
    }

    /// A call waits from now on; `false`: it does no longer.
    pub fn waits(&self, begins: bool) {
        if begins { self.waiting.increment(1.0) } else { self.waiting.decrement(1.0) }
    }

    /// How many calls were timed.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
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
    fn calls_are_shown_by_duration() {
        let shown = chancery_runtime::telemetry::metrics().unwrap();
        let meters = Meters::default();
        meters.answered(3, Duration::from_micros(51));
        meters.answered(1, Duration::from_secs(2));
        meters.publish();
        let buckets = meters.buckets.each_ref().map(|bucket| bucket.load(Relaxed));
        assert_eq!((buckets[0], buckets[1], buckets[BOUNDS.len()], buckets.iter().sum()), (0, 3, 1, 4));

        let text = shown.render();
        for line in [
            format!("{DURATION_BUCKET}{{le=\"0.00005\"}} 0"),
            format!("{DURATION_BUCKET}{{le=\"0.0001\"}} 3"),
            format!("{DURATION_BUCKET}{{le=\"1\"}} 3"),
            format!("{DURATION_BUCKET}{{le=\"+Inf\"}} 4"),
            format!("{DURATION_COUNT} 4"),
        ] {
            assert!(text.contains(&line), "no {line} in\n{text}");
        }
    }
}
