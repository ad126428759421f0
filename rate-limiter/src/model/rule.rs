//! The rules of all domains, as a tree that descriptors are looked up in.
//!
//! [`DomainSpec`] is what every form of configuration (YAML, RateLimitConfig, Chancery's own) is read into;
//! [`Rules::build`] checks it and makes the tree, or reports every problem with its path. Precedence is that
//! of envoyproxy/ratelimit; see [`Domain::find`] for where ours is stricter.

mod build;
mod spec;
mod tree;

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use self::tree::{Map, Node};
pub use self::{
    build::{MAX_DEPTH, MAX_RULES, Problem},
    spec::{Amount, DescriptorSpec, DomainSpec, LimitSpec, Policy, WithoutRedis},
};
use super::{descriptor::Entry, limit::Limit};

/// A rule that was found.
#[derive(Debug, PartialEq)]
pub struct Rule {
    /// Its place among all rules of the set, from zero; for metrics.
    pub index: usize,
    /// Its domain.
    pub domain: Arc<str>,
    /// Its path, such as `edge.remote_address` (domain, then `key` or `key_value` of each level).
    pub path: String,
    /// How each entry was configured to match, outermost first.
    pub levels: Box<[Level]>,
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
    /// Body of the refusal.
    pub body: Option<Bytes>,
}

/// How one entry of a descriptor is matched by a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Level {
    /// The key. With [`Value::Any`], a trailing `*` matches what begins so.
    pub key: String,
    /// The values.
    pub value: Value,
    /// Whether all values share one cell.
    pub shared: bool,
    /// Whether the value is named in metrics.
    pub value_to_metric: bool,
}

/// Which values of an entry are matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Any.
    Any,
    /// This one.
    Exact(String),
    /// Those that begin as the pattern does; its trailing `*` is kept.
    Prefix(String),
}

/// All rules of all domains.
#[derive(Debug, Default)]
pub struct Rules {
    domains: Map<Domain>,
    rules: Vec<Arc<Rule>>,
}

/// The rules of one domain.
#[derive(Debug)]
pub struct Domain {
    name: Arc<str>,
    origin: String,
    fleets: Option<BTreeSet<String>>,
    root: Node,
}

impl Rules {
    /// Checks and compiles. Domains of the same name are refused.
    ///
    /// # Errors
    /// Every problem of every domain.
    pub fn build(specs: &[DomainSpec]) -> Result<Self, Vec<Problem>> {
        build::compile(specs, MAX_RULES)
    }

    /// A domain's rules.
    pub fn domain(&self, name: &str) -> Option<&Domain> {
        self.domains.get(name)
    }

    /// Every domain, in no order.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.domains.values()
    }

    /// Every rule, by index.
    pub fn all(&self) -> &[Arc<Rule>] {
        &self.rules
    }
}

impl Domain {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it was read from: a file, or a resource.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Fleets whose proxies may ask; `None`: every client that may connect.
    pub fn fleets(&self) -> Option<&BTreeSet<String>> {
        self.fleets.as_ref()
    }

    /// The rule that a descriptor of these entries falls under. At each level the exact value comes first, then the
    /// first wildcard in the order of the file that matches, then the bare key. What was chosen is kept, even if it leads to
    /// no rule, and the rule must be exactly as deep as the descriptor.
    ///
    /// envoyproxy/ratelimit joins key and value with `_` before it compares. Here they are compared apart: there, a
    /// rule for the key `a_b` also takes entries of key `a` and value `b`, and `a_b`, `c` cannot stand beside
    /// `a`, `b_c`. Nor can a client choose among wildcards by sending the pattern itself as a value. A key
    /// that ends in `*` without a value matches entries whose key begins so, as there.
    pub fn find(&self, entries: &[Entry<'_>]) -> Option<&Arc<Rule>> {
        let mut node = &self.root;
        for entry in entries {
            node = node.child(entry)?;
        }
        node.rule.as_ref()
    }

    /// Puts entries that came in no order (RLQS names a bucket by a map) into one that leads to a rule, if there is one.
    /// Entries are tried in the order of their keys, so that the answer does not depend on how they came.
    pub fn arrange(&self, entries: &mut [Entry<'_>]) -> bool {
        entries.sort_unstable_by(|a, b| a.key.cmp(b.key));
        self.root.arrange(entries)
    }

    /// Whether proxies of `fleet` may ask. `None` is a client without a fleet.
    pub fn admits(&self, fleet: Option<&str>) -> bool {
        self.fleets.as_ref().is_none_or(|fleets| fleet.is_some_and(|fleet| fleets.contains(fleet)))
    }
}

impl Rule {
    /// The limit, if there is one.
    pub fn limit(&self) -> Option<Limit> {
        match self.amount {
            Amount::Limited(limit) => Some(limit),
            Amount::Unlimited => None,
        }
    }

    /// The entries that name the cell: where values share one, the pattern stands for them.
    pub fn cell<'a>(&'a self, entries: &'a [Entry<'a>]) -> impl Iterator<Item = Entry<'a>> + Clone {
        entries.iter().zip(&self.levels).map(|(entry, level)| match (level.shared, level.pattern()) {
            (true, Some(pattern)) => Entry { value: pattern, ..*entry },
            _ => *entry,
        })
    }

    /// What metrics call `entries` under this rule, where that is not simply its path: every value of the descriptor with
    /// `detailed_metric`, else those of levels with `value_to_metric`. Shared values are called by their pattern.
    pub fn series(&self, entries: &[Entry<'_>]) -> Option<String> {
        if !self.detailed_metric && !self.levels.iter().any(Level::varies) {
            return None;
        }
        let mut series = String::from(&*self.domain);
        for (entry, level) in entries.iter().zip(&self.levels) {
            let value = match (level.shared, level.pattern()) {
                (true, Some(pattern)) => pattern,
                _ if self.detailed_metric || level.varies() => entry.value,
                (_, pattern) => pattern.unwrap_or_default(),
            };
            push_level(&mut series, entry.key, value);
        }
        Some(series)
    }
}

impl Level {
    fn pattern(&self) -> Option<&str> {
        match &self.value {
            Value::Exact(value) | Value::Prefix(value) => Some(value),
            Value::Any if self.key.ends_with('*') => Some(&self.key),
            Value::Any => None,
        }
    }

    /// Whether metrics name a value that only the request knows.
    fn varies(&self) -> bool {
        self.value_to_metric && !self.shared && !matches!(self.value, Value::Exact(_))
    }
}

/// Appends a level to the path of a rule.
fn push_level(path: &mut String, key: &str, value: &str) {
    path.push('.');
    path.push_str(key);
    if !value.is_empty() {
        path.push('_');
        path.push_str(value);
    }
}

#[cfg(test)]
mod tests;
