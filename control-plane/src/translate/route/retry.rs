//! When and how a request is tried again, as Envoy's `RetryPolicy`.

use chancery_proto::{
    any,
    envoy::{
        previous_hosts::PreviousHostsPredicate,
        route::{
            RetryPolicy,
            retry_policy::{RetryBackOff, RetryHostPredicate, retry_host_predicate},
        },
    },
};

use super::matching::header;
use crate::{
    model::retry::{Retry, RetryCondition},
    translate::value::{duration, number},
};

/// How often Envoy draws again for an endpoint that was not tried yet, before it takes one that was.
const OTHER_HOST_DRAWS: i64 = 5;

pub(super) fn retry_policy(retry: &Retry) -> RetryPolicy {
    let Retry { on, statuses, headers, attempts, per_try_timeout, per_try_idle_timeout, another_host, backoff } = retry;
    let mut conditions: Vec<_> = on.iter().copied().map(RetryCondition::as_str).collect();
    // The lists mean nothing to Envoy unless it is told to look at them.
    conditions.extend((!statuses.is_empty()).then_some("retriable-status-codes"));
    conditions.extend((!headers.is_empty()).then_some("retriable-headers"));
    RetryPolicy {
        retry_on: conditions.join(","),
        retriable_status_codes: statuses.iter().copied().map(u32::from).collect(),
        retriable_headers: headers.iter().map(header).collect(),
        num_retries: Some(number(*attempts)),
        per_try_timeout: per_try_timeout.map(duration),
        per_try_idle_timeout: per_try_idle_timeout.map(duration),
        retry_back_off: backoff.map(|backoff| RetryBackOff {
            base_interval: Some(duration(backoff.base)),
            max_interval: Some(duration(backoff.max)),
        }),
        // The endpoint that just failed is the least likely to succeed.
        retry_host_predicate: another_host.then(not_tried_yet).into_iter().collect(),
        host_selection_retry_max_attempts: if *another_host { OTHER_HOST_DRAWS } else { 0 },
        ..RetryPolicy::default()
    }
}

fn not_tried_yet() -> RetryHostPredicate {
    RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any::pack_typed(
            &PreviousHostsPredicate::default(),
        ))),
    }
}
