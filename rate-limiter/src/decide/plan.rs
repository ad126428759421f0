//! What to charge for a request, and what the charges say about it. Pure: the store stands between the two halves.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use smallvec::SmallVec;

use crate::{
    model::{
        descriptor::{Hits, Override, Request},
        key::Salt,
        limit::{Algorithm, Limit},
        rule::{Domain, Policy, Rule},
        verdict::{Status, Verdict},
    },
    store::{Ask, Outcome, Source},
};

/// A time until admission beyond which it is told as never.
const NEVER: Duration = Duration::from_secs(100 * 366 * 86_400);

/// Charges that belong together.
pub type Asks = SmallVec<[Ask; 4]>;

/// What a request comes down to.
#[derive(Debug)]
pub struct Plan {
    /// What is to be charged.
    pub asks: Asks,
    /// One for each descriptor.
    pub(super) rows: SmallVec<[Row; 4]>,
}

/// One descriptor of a request.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) bound: Bound,
    pub(super) rule: Option<Arc<Rule>>,
    /// What metrics call it, where that is more than the rule.
    pub(super) series: Option<Box<str>>,
    pub(super) hits: Hits,
}

/// What a descriptor is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// Nothing: no rule, or another one replaces it.
    None,
    /// A rule without a limit.
    Unlimited,
    /// A limit: that of one of the plan's asks, in order.
    Limit,
}

/// What a rule says of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Within the limit.
    Ok,
    /// Beyond it, and so refused.
    OverLimit,
    /// Beyond it, and admitted all the same.
    Shadow,
    /// Beyond it, which is only reported.
    Quota,
}

/// What a request is answered, and what is to be returned to the store.
#[derive(Debug)]
pub struct Conclusion {
    /// The answer.
    pub verdict: Verdict,
    /// What was charged for nothing.
    pub give_back: Vec<Ask>,
    /// The same of what was charged without Redis, and so elsewhere.
    pub give_back_alone: Vec<Ask>,
}

/// What is to be charged for `request` by the rules of its domain, if there are any. Limits that requests bring along are
/// counted by the algorithm and policy of the rule in whose place they stand, where there is none by `overrides`.
///
/// As in envoyproxy/ratelimit: a domain that is not known and a descriptor without a rule are free; a limit that the
/// request brings along counts in a known domain only; a rule whose name is among what another descriptor's rule
/// `replaces` is left out.
pub fn plan(domain: Option<&Domain>, overrides: Algorithm, request: &Request<'_>, salt: &Salt) -> Plan {
    let found: SmallVec<[Option<&Arc<Rule>>; 4]> =
        request.descriptors.iter().map(|descriptor| domain?.find(&descriptor.entries)).collect();
    let own = |at: usize| found[at].filter(|_| request.descriptors[at].limit.is_none());
    let replaced = |rule: &Rule| {
        !rule.name.is_empty() && (0..found.len()).filter_map(own).any(|other| other.replaces.contains(&rule.name))
    };
    let mut plan = Plan { asks: Asks::new(), rows: SmallVec::new() };
    for (at, descriptor) in request.descriptors.iter().enumerate() {
        let rule = own(at);
        let (bound, limit) = match (domain, descriptor.limit, rule) {
            (None, ..) | (_, None, None) => (Bound::None, None),
            (_, Some(brought), _) => {
                let algorithm = found[at].and_then(|rule| rule.limit()).map_or(overrides, |limit| limit.algorithm());
                (Bound::Limit, brought_along(brought, algorithm))
            }
            (_, None, Some(rule)) => match rule.limit() {
                None => (Bound::Unlimited, None),
                Some(_) if replaced(rule) => (Bound::None, None),
                limit => (Bound::Limit, limit),
            },
        };
        if let Some(limit) = limit {
            let (key, policy) = match found[at] {
                Some(rule) => (salt.key(&limit, request.domain, rule.cell(&descriptor.entries)), rule.policy),
                None => {
                    let entries = descriptor.entries.iter().copied();
                    (salt.key(&limit, request.domain, entries), Policy::default())
                }
            };
            plan.asks.push(Ask { key, limit, hits: descriptor.hits, policy });
        }
        let rule = rule.filter(|_| bound != Bound::None);
        plan.rows.push(Row {
            bound,
            rule: rule.cloned(),
            series: rule.and_then(|rule| rule.series(&descriptor.entries)).map(String::into_boxed_str),
            hits: descriptor.hits,
        });
    }
    plan
}

/// Any number of requests per any unit can be counted, so that there always is a limit.
fn brought_along(brought: Override, algorithm: Algorithm) -> Option<Limit> {
    Limit::new(brought.requests, brought.unit.duration(), None, algorithm).ok()
}

/// What `outcomes` of the plan's asks, in order, say about the request.
///
/// If it is refused, hits that were charged to token buckets are given back, so that a client refused by one limit
/// does not use up its others. Windows keep theirs, as envoyproxy/ratelimit's do; so does debt, which is a bill for
/// what has been used already. What was decided without Redis goes back where it was charged then; whether Redis was charged as
/// well, too late to be heard of, no one knows.
///
/// The verdict takes the rules out of the plan.
pub fn conclude(plan: &mut Plan, outcomes: &[Outcome]) -> Conclusion {
    debug_assert_eq!(plan.asks.len(), outcomes.len(), "a store answers each ask");
    let mut verdict = Verdict { admitted: true, ..Verdict::default() };
    let mut answers = plan.asks.iter().zip(outcomes);
    for (at, row) in plan.rows.iter_mut().enumerate() {
        let rule = row.rule.take();
        let status = match row.bound {
            Bound::None => Status { admitted: true, limit: None, rule, remaining: 0, reset: Duration::ZERO },
            Bound::Unlimited => {
                Status { admitted: true, limit: None, rule, remaining: u32::MAX.into(), reset: Duration::ZERO }
            }
            Bound::Limit => {
                let Some((ask, outcome)) = answers.next() else { continue };
                let decision = decision(rule.as_deref(), outcome);
                match decision {
                    Decision::OverLimit => {
                        if verdict.admitted {
                            verdict.body = rule.as_ref().and_then(|rule| rule.body.clone());
                        }
                        verdict.admitted = false;
                    }
                    Decision::Quota => verdict.violations.push(at),
                    Decision::Ok | Decision::Shadow => {}
                }
                limited(ask.limit, rule, decision, outcome)
            }
        };
        verdict.statuses.push(status);
    }
    verdict.tightest = tightest(&verdict.statuses);
    if verdict.admitted {
        return Conclusion { verdict, give_back: Vec::new(), give_back_alone: Vec::new() };
    }
    let give_back = |alone| charged_for_nothing(&plan.asks, outcomes, alone);
    Conclusion { give_back: give_back(false), give_back_alone: give_back(true), verdict }
}

/// What `rule` (a limit that came with the request has none) says of an outcome.
pub(super) fn decision(rule: Option<&Rule>, outcome: &Outcome) -> Decision {
    match rule {
        _ if outcome.admitted => Decision::Ok,
        Some(rule) if rule.quota => Decision::Quota,
        Some(rule) if rule.shadow => Decision::Shadow,
        _ => Decision::OverLimit,
    }
}

fn limited(limit: Limit, rule: Option<Arc<Rule>>, decision: Decision, outcome: &Outcome) -> Status {
    let admitted = decision != Decision::OverLimit;
    let reset = match outcome.retry {
        _ if admitted => outcome.reset,
        retry if retry > NEVER => limit.per(),
        retry => retry,
    };
    Status { admitted, limit: Some(limit), rule, remaining: outcome.remaining, reset }
}

fn tightest(statuses: &[Status]) -> Option<usize> {
    let limited = statuses.iter().enumerate().filter(|(_, status)| status.limit.is_some());
    let tightness = |status: &Status| {
        // Of those that refuse the longest: before that, asking again is in vain.
        let wait = if status.admitted { Duration::ZERO } else { status.reset };
        (status.admitted, Reverse(wait), status.remaining)
    };
    limited.min_by_key(|(_, status)| tightness(status)).map(|(at, _)| at)
}

/// What was charged without Redis (`alone`), or what was not.
fn charged_for_nothing(asks: &[Ask], outcomes: &[Outcome], alone: bool) -> Vec<Ask> {
    let charged = asks.iter().zip(outcomes).filter(|(ask, outcome)| {
        outcome.admitted
            && (outcome.source == Source::WithoutRedis) == alone
            && ask.limit.algorithm() == Algorithm::TokenBucket
            && !ask.policy.debt
    });
    charged
        .filter_map(|(ask, _)| match ask.hits {
            Hits::Take(hits) if hits > 0 => Some(Ask { hits: Hits::GiveBack(hits), ..*ask }),
            Hits::Take(_) | Hits::GiveBack(_) => None,
        })
        .collect()
}
