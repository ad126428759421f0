//! A request becomes a verdict: rules, cells, all or nothing.
//!
//! [`plan()`] and [`conclude`] are pure; [`Limiter::decide`] puts the store between them. Where the store answers at
//! once nothing is allocated and no task is switched.

pub mod explain;
mod plan;

use std::{future::Future, pin::Pin, sync::Arc};

use arc_swap::ArcSwap;

pub use self::plan::{Asks, Conclusion, Plan, conclude, plan};
use self::plan::{Bound, Decision, decision};
use crate::{
    metrics::{ByRule, Requests},
    model::{
        descriptor::{Hits, Request},
        key::Salt,
        limit::{Algorithm, Limit},
        rule::{Domain, Rule, Rules},
        verdict::Verdict,
    },
    store::{Charging, Outcome, SaltCell, Source, Store},
};

/// Descriptors of a request, and entries of a descriptor. Envoy sends a handful.
pub const MAX_PARTS: usize = 64;

/// Bytes of a domain, a key or a value.
pub const MAX_TEXT: usize = 128 * 1024;

/// Rules in force, and what is counted for them. Swapped in whole.
pub struct Ruleset {
    /// The rules.
    pub rules: Rules,
    /// How limits are counted that requests bring along where no rule says it.
    pub overrides: Algorithm,
    counts: ByRule,
}

/// Decides. Cheap to clone; better one made per worker, sharing rules and cells.
#[derive(Clone)]
pub struct Limiter {
    parts: Arc<Parts>,
}

struct Parts {
    rules: Arc<ArcSwap<Ruleset>>,
    store: Arc<dyn Store>,
    salt: SaltCell,
    requests: Requests,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// Nobody is asked who they are: the port takes plaintext because the operator said so. Every domain is open.
    Trusted,
    /// A client that did not say who it is. Domains of fleets are closed to it.
    #[default]
    Anonymous,
    /// A client with a certificate that names no fleet. Domains of fleets are closed to it.
    Certified,
    /// A proxy of a fleet.
    Fleet(Arc<str>),
}

/// Why a request cannot be decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No domain.
    #[error("the domain must not be empty")]
    NoDomain,
    /// Nothing to decide.
    #[error("there must be at least one descriptor")]
    NoDescriptors,
    /// The caller's fleet may not use this domain.
    #[error("domain {domain:?} is not for this client")]
    NotForCaller {
        /// The domain.
        domain: String,
    },
    /// More descriptors, or more entries in one, than any proxy sends.
    #[error("there are {count} {what}, more than {MAX_PARTS}")]
    TooMany {
        /// Descriptors, or entries of one.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// A text longer than any proxy sends.
    #[error("the {what} has {length} bytes, more than {MAX_TEXT}")]
    TooLong {
        /// Domain, key or value.
        what: &'static str,
        /// Its bytes.
        length: usize,
    },
}

/// A decision under way.
#[expect(clippy::large_enum_variant, reason = "most decisions are done at once; boxing them would allocate for each")]
pub enum Deciding {
    /// Decided.
    Done(Verdict),
    /// Waiting for the store. Dropping it abandons the answer, not the charges; then nothing is given back.
    Waiting(Pin<Box<dyn Future<Output = Verdict> + Send>>),
}

impl Caller {
    /// Whether this domain is open to the caller.
    pub fn may_use(&self, domain: &Domain) -> bool {
        match self {
            Self::Trusted => true,
            Self::Anonymous | Self::Certified => domain.admits(None),
            Self::Fleet(fleet) => domain.admits(Some(fleet)),
        }
    }
}

impl Ruleset {
    /// Puts `rules` in force. Limits that requests bring along are token buckets unless a rule in their place says otherwise.
    pub fn new(rules: Rules) -> Self {
        Self::with(rules, Algorithm::default())
    }

    /// As [`Ruleset::new`], with limits that requests bring along counted by `overrides`.
    pub fn with(rules: Rules, overrides: Algorithm) -> Self {
        let counts = ByRule::new(rules.all().len());
        Self { rules, overrides, counts }
    }

    /// Counts what a proxy reports to have decided by itself, of one hit each. `rule` is one of this set.
    pub fn count_reported(&self, rule: &Rule, admitted: u64, refused: u64) {
        self.counts.count(Some(rule), None, |tally| {
            tally.ok.increment(admitted);
            tally.over_limit.increment(refused);
            tally.hits.increment(admitted.saturating_add(refused));
        });
    }
}

impl Limiter {
    /// Decides by `rules` on `store`. The metrics recorder must be installed before.
    pub fn new(rules: Arc<ArcSwap<Ruleset>>, store: Arc<dyn Store>, salt: SaltCell) -> Self {
        Self { parts: Arc::new(Parts { rules, store, salt, requests: Requests::new() }) }
    }

    /// The verdict on `request`.
    ///
    /// # Errors
    /// The request makes no sense, or the caller may not ask it.
    pub fn decide(&self, request: &Request<'_>, caller: &Caller) -> Result<Deciding, Refused> {
        let Parts { rules, store, salt, requests } = &*self.parts;
        let rules = rules.load();
        let domain = rules.rules.domain(request.domain);
        check(request).and_then(|()| admit(domain, request, caller)).inspect_err(|_| requests.error.increment(1))?;
        if domain.is_none() {
            requests.unknown_domain.increment(1);
        }
        let mut plan = plan(domain, rules.overrides, request, &salt.current());
        if plan.asks.is_empty() {
            return Ok(Deciding::Done(self.parts.finish(&rules, &mut plan, &[])));
        }
        Ok(match store.charge(&plan.asks) {
            Charging::Done(outcomes) => Deciding::Done(self.parts.finish(&rules, &mut plan, &outcomes)),
            Charging::Waiting(outcomes) => {
                let (parts, rules) = (self.parts.clone(), Arc::clone(&rules));
                Deciding::Waiting(Box::pin(async move {
                    let outcomes = outcomes.await;
                    parts.finish(&rules, &mut plan, &outcomes)
                }))
            }
        })
    }

    /// Where its cells are kept.
    pub fn store(&self) -> &dyn Store {
        &*self.parts.store
    }

    /// How its cells are named now.
    pub fn salt(&self) -> Salt {
        self.parts.salt.current()
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Ruleset> {
        self.parts.rules.load_full()
    }
}

impl Parts {
    fn finish(&self, rules: &Ruleset, plan: &mut Plan, outcomes: &[Outcome]) -> Verdict {
        count(&rules.counts, plan, outcomes);
        let Conclusion { verdict, give_back, give_back_alone } = conclude(plan, outcomes);
        let requests = if verdict.admitted { &self.requests.ok } else { &self.requests.over_limit };
        requests.increment(1);
        if !give_back.is_empty() {
            self.requests.given_back.increment(give_back.len() as u64);
            // Nobody waits for the answer. A charge is under way once it is asked for; dropping the answer
            // does not take it back, so there is no task to own.
            drop(self.store.charge(&give_back));
        }
        if !give_back_alone.is_empty() {
            self.requests.given_back.increment(give_back_alone.len() as u64);
            self.store.give_back_alone(&give_back_alone);
        }
        verdict
    }
}

fn admit(domain: Option<&Domain>, request: &Request<'_>, caller: &Caller) -> Result<(), Refused> {
    if domain.is_none_or(|domain| caller.may_use(domain)) {
        Ok(())
    } else {
        Err(Refused::NotForCaller { domain: request.domain.to_owned() })
    }
}

fn check(request: &Request<'_>) -> Result<(), Refused> {
    if request.domain.is_empty() {
        return Err(Refused::NoDomain);
    }
    if request.descriptors.is_empty() {
        return Err(Refused::NoDescriptors);
    }
    text("domain", request.domain)?;
    parts("descriptors", request.descriptors.len())?;
    for descriptor in &request.descriptors {
        parts("entries in a descriptor", descriptor.entries.len())?;
        for entry in &descriptor.entries {
            text("key of an entry", entry.key)?;
            text("value of an entry", entry.value)?;
        }
    }
    Ok(())
}

fn parts(what: &'static str, count: usize) -> Result<(), Refused> {
    if count > MAX_PARTS { Err(Refused::TooMany { what, count }) } else { Ok(()) }
}

fn text(what: &'static str, text: &str) -> Result<(), Refused> {
    if text.len() > MAX_TEXT { Err(Refused::TooLong { what, length: text.len() }) } else { Ok(()) }
}

fn count(counts: &ByRule, plan: &Plan, outcomes: &[Outcome]) {
    let mut answers = plan.asks.iter().zip(outcomes);
    for row in &plan.rows {
        let (decision, near) = match row.bound {
            Bound::None => continue,
            Bound::Unlimited => (Decision::Ok, false),
            Bound::Limit => {
                let Some((ask, outcome)) = answers.next() else { return };
                (decision(row.rule.as_deref(), outcome), outcome.admitted && near(ask.limit, outcome))
            }
        };
        counts.count(row.rule.as_deref(), row.series.as_deref(), |tally| {
            match decision {
                Decision::Ok => &tally.ok,
                Decision::OverLimit => &tally.over_limit,
                Decision::Shadow => &tally.shadow,
                Decision::Quota => &tally.quota,
            }
            .increment(1);
            if let Hits::Take(hits) = row.hits {
                tally.hits.increment(hits);
            }
            if near {
                tally.near_limit.increment(1);
            }
        });
    }
}

/// Whether more than four fifths are used. What is left of a lease says nothing of the limit.
fn near(limit: Limit, outcome: &Outcome) -> bool {
    let whole = match limit.algorithm() {
        Algorithm::TokenBucket => limit.burst(),
        Algorithm::FixedWindow => limit.requests(),
    };
    outcome.source != Source::Lease && outcome.remaining.saturating_mul(5) < whole.into()
}

#[cfg(test)]
mod tests;
