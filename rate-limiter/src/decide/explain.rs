//! Why a request would be refused: for each descriptor its rule, its cell, and what is left. Nothing is charged or counted.
//!
//! A look asks the store what one hit would get; what more hits would get follows from that here. With leases it is what
//! this replica knows, which is also what it would decide by.

use std::{sync::Arc, time::Duration};

use super::{
    Caller, Limiter, Refused, admit, check,
    plan::{Bound, Decision, decision, plan},
};
use crate::{
    model::{
        descriptor::{Hits, Request},
        key::CellKey,
        limit::{Algorithm, Limit},
        rule::{Domain, Rule},
    },
    store::{Ask, Charging, Outcome, Outcomes},
};

/// What would become of one descriptor.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// What would be said of it.
    pub finding: Finding,
    /// The rule it falls under, also where that does not apply.
    pub rule: Option<Arc<Rule>>,
    /// The cell that would be charged, and what it says.
    pub cell: Option<Cell>,
}

/// What would be said of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The domain has no rules.
    UnknownDomain,
    /// No rule applies.
    NoRule,
    /// Another descriptor's rule replaces this one's.
    Replaced,
    /// The rule admits everything.
    Unlimited,
    /// Within the limit.
    WithinLimit,
    /// Beyond it, and so refused.
    OverLimit,
    /// Beyond it, and admitted: the rule is in shadow mode.
    Shadow,
    /// Beyond it, which is only reported: the rule is in quota mode.
    Quota,
}

/// A cell as it is now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Its name.
    pub key: CellKey,
    /// The limit it is held against.
    pub limit: Limit,
    /// What the store says of it.
    pub outcome: Outcome,
    /// Until the hits would be admitted if nobody else came; zero if they would be now. `None`: never.
    pub retry: Option<Duration>,
}

impl Limiter {
    /// What [`decide`](Self::decide) would find, descriptor by descriptor, if `request` came now.
    ///
    /// # Errors
    /// As for `decide`.
    pub async fn explain(&self, request: &Request<'_>, caller: &Caller) -> Result<Vec<Explained>, Refused> {
        let parts = &*self.parts;
        let rules = parts.rules.load_full();
        let domain = rules.rules.domain(request.domain);
        check(request)?;
        admit(domain, request, caller)?;
        let plan = plan(domain, rules.overrides, request, &parts.salt.current());
        let looks: Vec<Ask> = plan.asks.iter().map(|ask| Ask { hits: Hits::Take(0), ..*ask }).collect();
        let outcomes = match parts.store.charge(&looks) {
            _ if looks.is_empty() => Outcomes::new(),
            Charging::Done(outcomes) => outcomes,
            Charging::Waiting(outcomes) => outcomes.await,
        };
        let mut cells = looks.iter().zip(outcomes);
        let explain = plan.rows.into_iter().zip(&request.descriptors).map(|(row, descriptor)| match row.bound {
            Bound::None => {
                let found = domain.and_then(|domain| domain.find(&descriptor.entries)).cloned();
                Explained { finding: without_bound(domain, found.as_deref()), rule: found, cell: None }
            }
            Bound::Unlimited => Explained { finding: Finding::Unlimited, rule: row.rule, cell: None },
            Bound::Limit => {
                let cell = cells.next().map(|(ask, outcome)| cell(ask, ask.limit, outcome, row.hits));
                let outcome = cell.map(|cell| Outcome { admitted: cell.retry == Some(Duration::ZERO), ..cell.outcome });
                let finding = match outcome.map(|outcome| decision(row.rule.as_deref(), &outcome)) {
                    None | Some(Decision::Ok) => Finding::WithinLimit,
                    Some(Decision::OverLimit) => Finding::OverLimit,
                    Some(Decision::Shadow) => Finding::Shadow,
                    Some(Decision::Quota) => Finding::Quota,
                };
                Explained { finding, rule: row.rule, cell }
            }
        });
        Ok(explain.collect())
    }
}

fn without_bound(domain: Option<&Domain>, found: Option<&Rule>) -> Finding {
    match (domain, found) {
        (None, _) => Finding::UnknownDomain,
        (_, None) => Finding::NoRule,
        (_, Some(_)) => Finding::Replaced,
    }
}

fn cell(ask: &Ask, limit: Limit, outcome: Outcome, hits: Hits) -> Cell {
    let hits = match hits {
        Hits::Take(hits) => hits,
        Hits::GiveBack(_) => 0,
    };
    let retry = match hits {
        _ if matches!(hits, 0 | 1) && outcome.admitted => Duration::ZERO,
        0 | 1 => outcome.retry,
        _ if outcome.admitted && outcome.remaining >= hits => Duration::ZERO,
        _ => wait(limit, &outcome, hits),
    };
    Cell { key: ask.key, limit, outcome, retry: (retry < Duration::MAX).then_some(retry) }
}

/// Until `hits`, more than there are left, would be admitted.
fn wait(limit: Limit, outcome: &Outcome, hits: u64) -> Duration {
    match limit.algorithm() {
        Algorithm::FixedWindow if hits > limit.requests().into() => Duration::MAX,
        Algorithm::FixedWindow => outcome.reset,
        Algorithm::TokenBucket if limit.requests() == 0 || hits > limit.burst().into() => Duration::MAX,
        // What is used and what is wanted, less what the bucket holds, has to flow back first.
        Algorithm::TokenBucket => {
            let per_hit = limit.per().as_nanos().div_ceil(u128::from(limit.requests()));
            let over = (outcome.reset.as_nanos() + per_hit * u128::from(hits))
                .saturating_sub(per_hit * u128::from(limit.burst()));
            Duration::from_nanos(u64::try_from(over).unwrap_or(u64::MAX))
        }
    }
}
