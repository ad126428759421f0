//! What this program measures: names, meanings, and the handles that a decision counts on.
//!
//! A rule's handles are made when it is first met and kept with the ruleset, so that a decision costs atomic additions
//! only. Values of descriptors are never labels, unless a rule asks for that; then they are capped. The recorder, which is the
//! process's, never forgets a series, so the caps are the process's too: they outlive the rules.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock, OnceLock},
};

use metrics::{Counter, counter, describe_counter};
use parking_lot::RwLock;

use crate::model::rule::Rule;

/// Requests answered, by `result`: `ok`, `over_limit`, or `error` where they could not be decided.
pub const REQUESTS: &str = "chancery_rate_limiter_requests_total";
/// Decisions, by `domain`, `rule` and `outcome`: `ok`, `over_limit`, `shadow`, `quota`.
pub const DECISIONS: &str = "chancery_rate_limiter_decisions_total";
/// Hits asked for, by `domain` and `rule`.
pub const HITS: &str = "chancery_rate_limiter_hits_total";
/// Decisions that admitted and left less than a fifth of the limit, by `domain` and `rule`.
pub const NEAR_LIMIT: &str = "chancery_rate_limiter_near_limit_total";
/// Requests for a domain that has no rules.
pub const UNKNOWN_DOMAIN: &str = "chancery_rate_limiter_unknown_domain_total";
/// Charges returned because another limit refused the request.
pub const GIVEN_BACK: &str = "chancery_rate_limiter_given_back_total";

/// Series with values that one rule may have; what comes later is counted as rule `other` of the domain.
pub const MAX_SERIES: usize = 1_000;

/// Series with values that all rules together may have.
pub const MAX_ALL_SERIES: usize = 10_000;

/// Bytes that values may add to the name of a rule; what is longer is counted as `other` too.
pub const MAX_VALUES: usize = 128;

const OTHER: &str = "other";

/// Tells the recorder what each metric means.
pub fn describe() {
    describe_counter!(REQUESTS, "Requests answered, by result");
    describe_counter!(DECISIONS, "Decisions on descriptors, by rule and outcome");
    describe_counter!(HITS, "Hits asked for, by rule");
    describe_counter!(NEAR_LIMIT, "Decisions that admitted and left less than a fifth of the limit, by rule");
    describe_counter!(UNKNOWN_DOMAIN, "Requests for a domain that has no rules");
    describe_counter!(GIVEN_BACK, "Charges returned because another limit refused the request");
}

/// Handles of what is counted for whole requests. Make them after the recorder is installed.
#[derive(Clone)]
pub(crate) struct Requests {
    pub(crate) ok: Counter,
    pub(crate) over_limit: Counter,
    pub(crate) error: Counter,
    pub(crate) unknown_domain: Counter,
    pub(crate) given_back: Counter,
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self {
            ok: counter!(REQUESTS, "result" => "ok"),
            over_limit: counter!(REQUESTS, "result" => "over_limit"),
            error: counter!(REQUESTS, "result" => "error"),
            unknown_domain: counter!(UNKNOWN_DOMAIN),
            given_back: counter!(GIVEN_BACK),
        }
    }
}

/// Handles of every rule of a set, by index.
pub(crate) struct ByRule {
    rules: Box<[Measured]>,
    /// Limits that came with requests.
    brought: OnceLock<Tally>,
}

/// Handles of one rule, made when they are first counted on.
#[derive(Default)]
struct Measured {
    whole: OnceLock<Tally>,
    /// With `detailed_metric` or `value_to_metric`: by what the rule calls the descriptor.
    series: RwLock<HashMap<String, Arc<Tally>>>,
}

/// Handles of one series.
pub(crate) struct Tally {
    pub(crate) ok: Counter,
    pub(crate) over_limit: Counter,
    pub(crate) shadow: Counter,
    pub(crate) quota: Counter,
    pub(crate) hits: Counter,
    pub(crate) near_limit: Counter,
}

impl ByRule {
    pub(crate) fn new(rules: usize) -> Self {
        Self { rules: std::iter::repeat_with(Measured::default).take(rules).collect(), brought: OnceLock::new() }
    }

    /// Counts on the handles of `rule`, or of limits that came with requests; on those of `series` where the rule asks for it.
    pub(crate) fn count(&self, rule: Option<&Rule>, series: Option<&str>, count: impl FnOnce(&Tally)) {
        let Some(rule) = rule else {
            return count(self.brought.get_or_init(|| Tally::new("", "request")));
        };
        let Some(measured) = self.rules.get(rule.index) else { return };
        match series {
            None => count(measured.whole.get_or_init(|| Tally::new(&rule.domain, &rule.path))),
            Some(series) => count(&measured.series(rule, series)),
        }
    }
}

impl Measured {
    fn series(&self, rule: &Rule, name: &str) -> Arc<Tally> {
        if let Some(tally) = self.series.read().get(name) {
            return tally.clone();
        }
        let has_a_series = name.len() <= rule.path.len() + MAX_VALUES && Series::admit(&rule.path, name);
        let name = if has_a_series { name } else { OTHER };
        if let Some(tally) = self.series.read().get(name) {
            return tally.clone();
        }
        let mut series = self.series.write();
        series.entry(name.to_owned()).or_insert_with(|| Arc::new(Tally::new(&rule.domain, name))).clone()
    }
}

/// The series with values that this process has, by the path of their rule.
#[derive(Default)]
struct Series {
    by_rule: HashMap<Box<str>, HashSet<Box<str>>>,
    count: usize,
}

static SERIES: LazyLock<RwLock<Series>> = LazyLock::new(RwLock::default);

impl Series {
    /// Whether there is such a series, or room for one, which it then takes.
    fn admit(rule: &str, name: &str) -> bool {
        {
            let series = SERIES.read();
            let of_rule = series.by_rule.get(rule);
            if of_rule.is_some_and(|names| names.contains(name)) {
                return true;
            }
            if series.count >= MAX_ALL_SERIES || of_rule.map_or(0, HashSet::len) >= MAX_SERIES {
                return false;
            }
        }
        let mut series = SERIES.write();
        let room = series.count < MAX_ALL_SERIES;
        let names = series.by_rule.entry(rule.into()).or_default();
        let known = names.contains(name);
        let taken = !known && room && names.len() < MAX_SERIES && names.insert(name.into());
        series.count += usize::from(taken);
        known || taken
    }
}

impl Tally {
    fn new(domain: &str, rule: &str) -> Self {
        let decisions = |outcome: &'static str| counter!(DECISIONS, "domain" => domain.to_owned(), "rule" => rule.to_owned(), "outcome" => outcome);
        Self {
            ok: decisions("ok"),
            over_limit: decisions("over_limit"),
            shadow: decisions("shadow"),
            quota: decisions("quota"),
            hits: counter!(HITS, "domain" => domain.to_owned(), "rule" => rule.to_owned()),
            near_limit: counter!(NEAR_LIMIT, "domain" => domain.to_owned(), "rule" => rule.to_owned()),
        }
    }
}
