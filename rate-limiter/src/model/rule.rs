//! The rules of all domains, as a tree that descriptors are looked up in.
//!
//! [`DomainSpec`] is what every form of configuration (YAML, RateLimitConfig, Chancery's own) is read into;
//! [`Rules::build`] checks it and makes the tree, or reports every problem with its path.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use super::{
    descriptor::{Descriptor, Entry},
    limit::Limit,
};

/// A domain as it was configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DomainSpec {
    /// Its name.
    pub name: String,
    /// Its rules.
    pub descriptors: Vec<DescriptorSpec>,
    /// Fleets whose proxies may ask; `None`: every client that may connect.
    pub fleets: Option<BTreeSet<String>>,
    /// Where it was read from, for messages: a file, or a resource.
    pub origin: String,
}

/// One level of a rule as it was configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DescriptorSpec {
    /// The entry's key.
    pub key: String,
    /// Its value; empty: any. A trailing `*` matches what begins so.
    pub value: String,
    /// The limit here.
    pub limit: Option<LimitSpec>,
    /// Levels below.
    pub descriptors: Vec<DescriptorSpec>,
    /// Decide and count, but admit.
    pub shadow_mode: bool,
    /// Report without deciding.
    pub quota_mode: bool,
    /// Count by the whole descriptor in metrics.
    pub detailed_metric: bool,
    /// Name the value of this level in metrics.
    pub value_to_metric: bool,
    /// All values that match a wildcard share one cell.
    pub share_threshold: bool,
}

/// A limit as it was configured.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitSpec {
    /// How much.
    pub amount: Amount,
    /// Its name, for `replaces` and responses.
    pub name: String,
    /// Names of limits that do not apply where this one does.
    pub replaces: Vec<String>,
    /// What happens beyond.
    pub policy: Policy,
    /// Body of the refusal.
    pub body: Option<Bytes>,
}

/// How much a rule admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Everything.
    Unlimited,
    /// So much.
    Limited(Limit),
}

/// How a limit behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Count what is refused too, below zero.
    pub debt: bool,
    /// Never lease: every decision is Redis's own.
    pub strict: bool,
    /// What to do without Redis.
    pub without_redis: WithoutRedis,
}

/// What to do without Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WithoutRedis {
    /// Count here, a replica's share of the limit.
    #[default]
    Local,
    /// Admit.
    Allow,
    /// Refuse.
    Deny,
}

/// A rule that was found.
#[derive(Debug, PartialEq)]
pub struct Rule {
    /// Its place among all rules of the set, from zero; for metrics.
    pub index: usize,
    /// Its path, such as `edge.remote_address` (domain, then `key` or `key_value` of each level).
    pub path: String,
    /// How much.
    pub amount: Amount,
    /// Its name; may be empty.
    pub name: String,
    /// Names of limits that it replaces.
    pub replaces: Vec<String>,
    /// What happens beyond.
    pub policy: Policy,
    /// Decide and count, but admit.
    pub shadow: bool,
    /// Report without deciding.
    pub quota: bool,
    /// Count by the whole descriptor in metrics.
    pub detailed_metric: bool,
    /// For each level, whether its value is named in metrics.
    pub value_to_metric: Vec<bool>,
    /// Body of the refusal.
    pub body: Option<Bytes>,
}

/// A rule, and how its cell is named for this descriptor.
#[derive(Clone, Debug)]
pub struct Match<'r> {
    /// The rule.
    pub rule: &'r Arc<Rule>,
    /// For levels that share a cell among values: the pattern that stands for the value.
    pub shared: smallvec::SmallVec<[(usize, &'r str); 1]>,
}

/// Why a set of rules is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {path}: {reason}")]
pub struct Problem {
    /// File or resource.
    pub origin: String,
    /// Where in it: `descriptors[0].rate_limit`; empty for the whole.
    pub path: String,
    /// Why.
    pub reason: String,
}

// LEAD: bodies of what follows are helper `model`'s.

/// All rules of all domains.
#[derive(Debug, Default)]
pub struct Rules {
    domains: std::collections::HashMap<String, Domain>,
    rules: Vec<Arc<Rule>>,
}

/// The rules of one domain.
#[derive(Debug, Default)]
pub struct Domain {
    fleets: Option<BTreeSet<String>>,
}

impl Rules {
    /// Checks and compiles. Domains of the same name are refused.
    ///
    /// # Errors
    /// Every problem of every domain.
    pub fn build(specs: &[DomainSpec]) -> Result<Self, Vec<Problem>> {
        let _ = specs;
        Ok(Self::default())
    }

    /// A domain's rules.
    pub fn domain(&self, name: &str) -> Option<&Domain> {
        self.domains.get(name)
    }

    /// Every rule, by index.
    pub fn all(&self) -> &[Arc<Rule>] {
        &self.rules
    }
}

impl Domain {
    /// The rule that a descriptor falls under. Precedence as in envoyproxy/ratelimit: at each level exact value, then the first wildcard that matches,
    /// then the bare key; the rule must be as deep as the descriptor.
    pub fn find(&self, descriptor: &Descriptor<'_>) -> Option<Match<'_>> {
        let _: &[Entry<'_>] = &descriptor.entries;
        None
    }

    /// Whether proxies of `fleet` may ask. `None` is a client without a fleet.
    pub fn admits(&self, fleet: Option<&str>) -> bool {
        self.fleets.as_ref().is_none_or(|fleets| fleet.is_some_and(|fleet| fleets.contains(fleet)))
    }
}
