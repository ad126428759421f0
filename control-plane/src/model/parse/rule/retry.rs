//! When and how a request is tried again.

use std::time::Duration;

use super::{super::text, matches::header_match};
use crate::model::{
    problem::Problems,
    retry::{Backoff, Retry},
    wire::{BackoffSpec, DurationText, RetrySpec},
};

const DEFAULT_ATTEMPTS: u32 = 1;

/// The longest wait of a backoff that sets only the first one, as a multiple of that: Envoy's default.
const DEFAULT_BACKOFF_FACTOR: u32 = 10;

/// `timeout` is that of the rule.
pub(super) fn retry(spec: &RetrySpec, timeout: Option<Duration>, problems: &mut Problems) -> Option<Retry> {
    let RetrySpec {
        on,
        statuses,
        response_headers,
        attempts,
        per_try_timeout,
        per_try_idle_timeout,
        another_host,
        backoff: waits,
    } = spec;
    if on.is_none() && statuses.is_none() && response_headers.is_none() {
        problems.report("needs on, statuses or responseHeaders");
    }
    let conditions = on.iter().flatten().map(|on| on.0).collect();
    let on = once(conditions, &mut problems.at("on"));
    let statuses = statuses.iter().flatten().map(|status| status.0).collect();
    let statuses = once(statuses, &mut problems.at("statuses"));
    let headers = problems.at("responseHeaders").each(response_headers.clone().unwrap_or_default(), header_match);
    let mut time = |field: &str, time: &Option<DurationText>| {
        text::optional_duration(time.as_ref(), text::DAY, &mut problems.at(field))
    };
    let per_try_timeout = time("perTryTimeout", per_try_timeout);
    let per_try_idle_timeout = time("perTryIdleTimeout", per_try_idle_timeout);
    let mut not_above = |field: &str, time: Option<Duration>, bound: Option<Duration>, whose: &str| {
        if time.zip(bound).is_some_and(|(time, bound)| time > bound) {
            problems.at(field).report(format!("must not be above {whose}"));
        }
    };
    not_above("perTryTimeout", per_try_timeout, timeout, "the rule's timeout");
    not_above("perTryIdleTimeout", per_try_idle_timeout, timeout, "the rule's timeout");
    not_above("perTryIdleTimeout", per_try_idle_timeout, per_try_timeout, "perTryTimeout");
    let backoff = waits.as_ref().and_then(|spec| backoff(spec, &mut problems.at("backoff")));
    Some(Retry {
        on,
        statuses,
        headers: headers?,
        attempts: attempts.unwrap_or(DEFAULT_ATTEMPTS),
        per_try_timeout,
        per_try_idle_timeout,
        another_host: another_host.unwrap_or(true),
        backoff,
    })
}

/// Sorted, each once.
fn once<T: Ord>(mut items: Vec<T>, problems: &mut Problems) -> Vec<T> {
    problems.each_once(&items);
    items.sort_unstable();
    items
}

fn backoff(spec: &BackoffSpec, problems: &mut Problems) -> Option<Backoff> {
    let BackoffSpec { base, max } = spec;
    let base = problems.at("base").ok(text::duration(base, text::HOUR));
    let max = match max {
        None => base.map(|base| base.saturating_mul(DEFAULT_BACKOFF_FACTOR).min(text::HOUR)),
        Some(max) => problems.at("max").ok(text::duration(max, text::HOUR)),
    };
    let backoff = Backoff { base: base?, max: max? };
    if backoff.max < backoff.base {
        problems.at("max").report("must not be below base");
    }
    Some(backoff)
}
