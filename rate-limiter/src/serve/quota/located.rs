//! What applies to a bucket, and what was used of it as the store and the ledger take it.

use std::time::Duration;

use chancery_proto::envoy::rlqs::{BucketId, rate_limit_quota_usage_reports::BucketQuotaUsage};
use tonic::Status;

use super::{
    super::refusal,
    bucket::{self, About},
    ledger::{REPORT_INTERVAL, Report, Usage},
};
use crate::{
    decide::{Caller, Refused, Ruleset},
    model::{
        descriptor::{Entry, Hits},
        key::{CellKey, Salt},
        limit::{Algorithm, Limit},
        quota::Assignment,
        rule::{Amount, Policy},
    },
    store::{Ask, Outcome, without_redis::share},
};

/// What applies to a bucket.
pub(super) enum Found {
    Limited(Located),
    /// No limit.
    Free,
    /// Nothing of it may pass.
    Refused,
}

/// A bucket that a limit applies to.
pub(super) struct Located {
    key: CellKey,
    limit: Limit,
    policy: Policy,
    /// It is only counted.
    pub(super) harmless: bool,
}

/// What applies to a bucket, counting what was used of it. As for a call per request, what no rule is about passes.
pub(super) fn find(
    ruleset: &Ruleset,
    salt: &Salt,
    caller: &Caller,
    domain: &str,
    (bucket, usage): (&BucketId, &BucketQuotaUsage),
) -> Result<Found, Status> {
    let about = bucket::read(bucket).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let Some(rules) = ruleset.rules.domain(domain) else { return Ok(Found::Free) };
    if !caller.may_use(rules) {
        return Err(refusal(&Refused::NotForCaller { domain: domain.to_owned() }));
    }
    let entries = match &about {
        About::Nothing => return Ok(Found::Free),
        About::TooMuch => return Ok(Found::Refused),
        About::Ordered(entries) => entries.iter().map(|(key, value)| Entry { key, value }).collect(),
        About::Unordered(entries) => {
            let mut entries = entries.clone();
            if !rules.arrange(&mut entries) {
                return Ok(Found::Free);
            }
            entries
        }
    };
    let Some(rule) = rules.find(&entries) else { return Ok(Found::Free) };
    ruleset.count_reported(rule, usage.num_requests_allowed, usage.num_requests_denied);
    let Amount::Limited(limit) = rule.amount else { return Ok(Found::Free) };
    let key = salt.key(&limit, domain, rule.cell(&entries));
    Ok(Found::Limited(Located { key, limit, policy: rule.policy, harmless: rule.shadow || rule.quota }))
}

impl Found {
    /// What a proxy may do with a bucket that has no share of anything.
    pub(super) fn without_a_share(&self) -> Assignment {
        match self {
            Self::Limited(_) | Self::Free => Assignment::Everything,
            Self::Refused => Assignment::Nothing,
        }
    }
}

impl Located {
    /// What was used has been used: it is charged whether or not it is within the limit.
    pub(super) fn ask(&self, usage: &BucketQuotaUsage) -> Ask {
        let policy = Policy { debt: true, ..self.policy };
        Ask { key: self.key, limit: self.limit, hits: Hits::Take(usage.num_requests_allowed), policy }
    }

    /// What was used of it as `bucket`, and charged with this outcome; `replicas` share the limit.
    pub(super) fn report(
        &self,
        bucket: u32,
        usage: &BucketQuotaUsage,
        outcome: Option<&Outcome>,
        replicas: u32,
    ) -> Report {
        let usage = Usage {
            allowed: usage.num_requests_allowed,
            denied: usage.num_requests_denied,
            elapsed: elapsed(usage),
            overdrawn: outcome.is_some_and(|outcome| is_overdrawn(&self.limit, outcome)),
        };
        Report { bucket, key: self.key, limit: share(&self.limit, replicas), usage }
    }
}

fn elapsed(usage: &BucketQuotaUsage) -> Duration {
    let Some(time) = &usage.time_elapsed else { return Duration::ZERO };
    Duration::from_secs(time.seconds.try_into().unwrap_or(0)) + Duration::from_nanos(time.nanos.try_into().unwrap_or(0))
}

/// Whether more was charged than proxies that keep to their shares can use: a burst, and what they report late.
fn is_overdrawn(limit: &Limit, outcome: &Outcome) -> bool {
    let slack = REPORT_INTERVAL * 2;
    match limit.algorithm() {
        Algorithm::TokenBucket => {
            let burst = f64::from(limit.burst()) / f64::from(limit.requests().max(1));
            outcome.reset.as_secs_f64() > limit.per().as_secs_f64() * burst + slack.as_secs_f64()
        }
        // What is reported late may be of a window before, which matters little to long ones.
        Algorithm::FixedWindow => outcome.remaining == 0 && limit.per() > slack,
    }
}
