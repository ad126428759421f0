//! A limit that each proxy keeps by itself.

use std::time::Duration;

use super::super::text;
use crate::model::{local_rate_limit::LocalRateLimit, problem::Problems, wire::LocalRateLimitSpec};

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn local_rate_limit(spec: &LocalRateLimitSpec, problems: &mut Problems) -> Option<LocalRateLimit> {
    let LocalRateLimitSpec { requests, per, burst } = spec;
    let per = {
        let mut problems = problems.at("per");
        let per = problems.ok(text::duration(per, text::HOUR));
        if per.is_some_and(|per| per < SECOND) {
            problems.report("must not be below 1s");
        }
        per
    };
    let burst = burst.unwrap_or(*requests);
    if burst < *requests {
        problems.at("burst").report("must not be below requests");
    }
    Some(LocalRateLimit { requests: *requests, per: per?, burst })
}
