//! What a service's spec says of failing and slow endpoints, of retries, and of too many requests.
//!
//! What is not given stays open, so that the proxy's own default holds; bounds that contradict each other, or the default
//! of the one that is not given, are refused here and nowhere later.

use std::time::Duration;

use crate::model::{
    parse::text,
    problem::Problems,
    service::{AdaptiveConcurrency, Breaker, ConcurrencyAlgorithm, Hedging, OutlierDetection, RetryBudget},
    wire::{
        AdaptiveConcurrencySpec, BreakerSpec, ConcurrencyAlgorithmSpec, DurationText, HedgingSpec,
        OutlierDetectionSpec, RetryBudgetSpec,
    },
};

/// The longest wait before a second request is sent.
const MAX_HEDGE_DELAY: Duration = Duration::from_secs(60);

/// What the sidecar takes where only the other bound is given.
const DEFAULT_OPEN_FOR: Duration = Duration::from_secs(1);
const DEFAULT_OPEN_FOR_MOST: Duration = Duration::from_secs(60);
const DEFAULT_LEAST_CONCURRENCY: u32 = 20;
const DEFAULT_MOST_CONCURRENCY: u32 = 200;

pub(super) fn breaker(spec: &BreakerSpec, has_budget: bool, problems: &mut Problems) -> Option<Breaker> {
    let BreakerSpec {
        max_connections,
        max_requests,
        max_pending,
        max_retries,
        consecutive_failures,
        min_success_percent,
        open_for,
        open_for_most,
        probe_timeout,
        max_out_percent,
    } = spec;
    if has_budget && max_retries.is_some() {
        problems.at("maxRetries").report("does nothing beside retryBudget; leave out one of the two");
    }
    let open_for = duration(open_for.as_ref(), text::HOUR, &mut problems.at("openFor"));
    let open_for_most = duration(open_for_most.as_ref(), text::HOUR, &mut problems.at("openForMost"));
    let probe_timeout = duration(probe_timeout.as_ref(), text::HOUR, &mut problems.at("probeTimeout"));
    let breaker = Breaker {
        max_connections: *max_connections,
        max_requests: *max_requests,
        max_pending: *max_pending,
        max_retries: *max_retries,
        consecutive_failures: *consecutive_failures,
        min_success_percent: *min_success_percent,
        open_for: open_for?,
        open_for_most: open_for_most?,
        probe_timeout: probe_timeout?,
        max_out_percent: *max_out_percent,
    };
    let (least, most) = (breaker.open_for, breaker.open_for_most);
    if most.unwrap_or(DEFAULT_OPEN_FOR_MOST) < least.unwrap_or(DEFAULT_OPEN_FOR) {
        let (field, reason) = match (least, most) {
            (Some(_), None) => ("openFor", "must not be above openForMost, which is 60s if it is not given"),
            (None, _) => ("openForMost", "must not be below openFor, which is 1s if it is not given"),
            (Some(_), Some(_)) => ("openForMost", "must not be below openFor"),
        };
        problems.at(field).report(reason);
    }
    Some(breaker)
}

pub(super) fn retry_budget(spec: &RetryBudgetSpec, problems: &mut Problems) -> Option<RetryBudget> {
    let RetryBudgetSpec { percent, ttl, min_per_second } = spec;
    let ttl = duration(ttl.as_ref(), text::HOUR, &mut problems.at("ttl"));
    Some(RetryBudget { percent: *percent, ttl: ttl?, min_per_second: *min_per_second })
}

pub(super) fn hedging(spec: &HedgingSpec, problems: &mut Problems) -> Option<Hedging> {
    let HedgingSpec { percentile, min_samples, min_delay } = spec;
    let min_delay = duration(min_delay.as_ref(), MAX_HEDGE_DELAY, &mut problems.at("minDelay"));
    Some(Hedging { percentile: *percentile, min_samples: *min_samples, min_delay: min_delay? })
}

pub(super) fn adaptive_concurrency(spec: &AdaptiveConcurrencySpec, problems: &mut Problems) -> AdaptiveConcurrency {
    let AdaptiveConcurrencySpec { algorithm, min, max } = *spec;
    if max.unwrap_or(DEFAULT_MOST_CONCURRENCY) < min.unwrap_or(DEFAULT_LEAST_CONCURRENCY) {
        let (field, reason) = match (min, max) {
            (Some(_), None) => ("min", "must not be above max, which is 200 if it is not given"),
            (None, _) => ("max", "must not be below min, which is 20 if it is not given"),
            (Some(_), Some(_)) => ("max", "must not be below min"),
        };
        problems.at(field).report(reason);
    }
    let algorithm = match algorithm {
        None | Some(ConcurrencyAlgorithmSpec::Gradient) => ConcurrencyAlgorithm::Gradient,
        Some(ConcurrencyAlgorithmSpec::Aimd) => ConcurrencyAlgorithm::Aimd,
    };
    AdaptiveConcurrency { algorithm, min, max }
}

pub(super) fn outlier_detection(spec: &OutlierDetectionSpec, problems: &mut Problems) -> Option<OutlierDetection> {
    let OutlierDetectionSpec {
        consecutive_5xx,
        consecutive_gateway_failures,
        interval,
        eject_for,
        max_ejected_percent,
        failure_percent,
        min_endpoints,
        min_requests,
    } = spec;
    let interval = duration(interval.as_ref(), text::HOUR, &mut problems.at("interval"));
    let eject_for = duration(eject_for.as_ref(), text::DAY, &mut problems.at("ejectFor"));
    Some(OutlierDetection {
        consecutive_5xx: *consecutive_5xx,
        consecutive_gateway_failures: *consecutive_gateway_failures,
        interval: interval?,
        eject_for: eject_for?,
        max_ejected_percent: *max_ejected_percent,
        failure_percent: *failure_percent,
        min_endpoints: *min_endpoints,
        min_requests: *min_requests,
    })
}

/// `None` if it is given but bad.
fn duration(given: Option<&DurationText>, most: Duration, problems: &mut Problems) -> Option<Option<Duration>> {
    match given {
        None => Some(None),
        Some(given) => problems.ok(text::duration(given, most)).map(Some),
    }
}
