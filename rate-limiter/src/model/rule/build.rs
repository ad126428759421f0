//! From specifications to the tree; every problem is reported, each with where it is.

use std::{collections::HashMap, sync::Arc};

use super::{
    DescriptorSpec, Domain, DomainSpec, Level, LimitSpec, Rule, Rules, Value, push_level,
    tree::{Map, Node},
};

/// Levels that a rule may have at most.
pub const MAX_DEPTH: usize = 32;

/// Levels of all rules together, so that no configuration can take all memory.
pub const MAX_RULES: usize = 1_000_000;

/// Why a set of rules is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {path}: {reason}")]
pub struct Problem {
    /// File or resource.
    pub origin: String,
    /// Where in it: `descriptors[0].rate_limit`; `domain` for the name of the domain.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// `most` bounds the levels of all rules together.
pub(super) fn compile(specs: &[DomainSpec], most: usize) -> Result<Rules, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut rules = Vec::new();
    let mut domains: Map<Domain> = Map::default();
    let mut origins: HashMap<&str, &str> = HashMap::new();
    let mut levels = 0;
    for spec in specs {
        let problem = |path: &str, reason| Problem { origin: spec.origin.clone(), path: path.to_owned(), reason };
        if spec.name.is_empty() {
            problems.push(problem("domain", "the domain must not be empty".to_owned()));
        } else if let Some(first) = origins.insert(&spec.name, &spec.origin) {
            problems.push(problem("domain", format!("domain {:?} is already in {first}", spec.name)));
        }
        let mut building = Building {
            origin: &spec.origin,
            domain: spec.name.as_str().into(),
            problems: &mut problems,
            rules: &mut rules,
            count: &mut levels,
            most,
            levels: Vec::new(),
        };
        let root = building.node(None, &spec.descriptors, "", &spec.name);
        let domain = Domain { name: building.domain, origin: spec.origin.clone(), fleets: spec.fleets.clone(), root };
        domains.insert(spec.name.as_str().into(), domain);
    }
    if problems.is_empty() { Ok(Rules { domains, rules }) } else { Err(problems) }
}

/// One domain on its way into the tree.
struct Building<'s> {
    origin: &'s str,
    domain: Arc<str>,
    problems: &'s mut Vec<Problem>,
    rules: &'s mut Vec<Arc<Rule>>,
    /// Levels so far, of all domains.
    count: &'s mut usize,
    most: usize,
    /// Levels from the root to here.
    levels: Vec<Level>,
}

impl Building<'_> {
    /// `at` is where `descriptors` are in the configuration, `path` what the rules there are called.
    fn node(&mut self, rule: Option<Arc<Rule>>, descriptors: &[DescriptorSpec], at: &str, path: &str) -> Node {
        let mut node = Node::new(rule);
        let mut seen: HashMap<(&str, &str), usize> = HashMap::new();
        for (order, spec) in descriptors.iter().enumerate() {
            let at = format!("{at}{}descriptors[{order}]", if at.is_empty() { "" } else { "." });
            *self.count += 1;
            if *self.count > self.most {
                if *self.count == self.most + 1 {
                    self.problem(&at, format!("there are more than {} descriptors in all", self.most));
                }
                return node;
            }
            if self.levels.len() == MAX_DEPTH {
                self.problem(&at, format!("descriptors are nested more than {MAX_DEPTH} deep"));
                return node;
            }
            if spec.key.is_empty() {
                self.problem(&at, "the key must not be empty".to_owned());
            } else if let Some(first) = seen.insert((&spec.key, &spec.value), order) {
                self.problem(&at, format!("has the same key and value as descriptors[{first}] beside it"));
            }
            let below = self.level(spec, &at, path);
            node.put(order, &spec.key, &spec.value, below);
        }
        node
    }

    fn level(&mut self, spec: &DescriptorSpec, at: &str, path: &str) -> Node {
        let text = if spec.value.is_empty() { &spec.key } else { &spec.value };
        if spec.share_threshold && !text.ends_with('*') {
            self.problem(at, "share_threshold needs a value that ends in *".to_owned());
        }
        let mut path = path.to_owned();
        push_level(&mut path, &spec.key, &spec.value);
        self.levels.push(Level {
            key: spec.key.clone(),
            value: match &*spec.value {
                "" => Value::Any,
                value if value.ends_with('*') => Value::Prefix(value.to_owned()),
                value => Value::Exact(value.to_owned()),
            },
            shared: spec.share_threshold,
            value_to_metric: spec.value_to_metric,
        });
        let rule = spec.limit.as_ref().map(|limit| self.rule(spec, limit, at, &path));
        let node = self.node(rule, &spec.descriptors, at, &path);
        self.levels.pop();
        node
    }

    fn rule(&mut self, spec: &DescriptorSpec, limit: &LimitSpec, at: &str, path: &str) -> Arc<Rule> {
        for (place, replaced) in limit.replaces.iter().enumerate() {
            let at = || format!("{at}.rate_limit.replaces[{place}]");
            if replaced.is_empty() {
                self.problem(&at(), "the name must not be empty".to_owned());
            } else if *replaced == limit.name {
                self.problem(&at(), "a limit cannot replace itself".to_owned());
            }
        }
        let rule = Arc::new(Rule {
            index: self.rules.len(),
            domain: self.domain.clone(),
            path: path.to_owned(),
            levels: self.levels.as_slice().into(),
            amount: limit.amount,
            name: limit.name.clone(),
            replaces: limit.replaces.clone(),
            policy: limit.policy,
            shadow: spec.shadow_mode,
            quota: spec.quota_mode,
            detailed_metric: spec.detailed_metric,
            body: limit.body.clone(),
        });
        self.rules.push(rule.clone());
        rule
    }

    fn problem(&mut self, at: &str, reason: String) {
        self.problems.push(Problem { origin: self.origin.to_owned(), path: at.to_owned(), reason });
    }
}
