//! The tree itself: from a node and an entry to the node below, without an allocation.
//!
//! The maps hash with XXH3 and no secret. Only the operator puts anything into them, so nobody can make
//! their entries collide; what clients send is looked up and never stored.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Rule;
use crate::model::descriptor::Entry;

/// A map by text.
pub(super) type Map<V> = HashMap<Box<str>, V, BuildHasherDefault<TextHasher>>;

/// One level of one rule, or of several that begin alike.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) rule: Option<Arc<Rule>>,
    below: Option<Box<Branch>>,
}

#[derive(Debug, Default)]
struct Branch {
    keys: Map<Values>,
    /// Keys without a value that end in `*`.
    key_prefixes: Vec<Prefix>,
}

#[derive(Debug, Default)]
struct Values {
    exact: Map<Node>,
    prefixes: Vec<Prefix>,
    any: Option<Node>,
}

#[derive(Debug)]
struct Prefix {
    /// Its place among all that are configured at this level.
    order: usize,
    text: Box<str>,
    node: Node,
}

impl Node {
    /// A node with nothing below.
    pub(super) fn new(rule: Option<Arc<Rule>>) -> Self {
        Self { rule, below: None }
    }

    /// Where an entry leads.
    pub(super) fn child(&self, entry: &Entry<'_>) -> Option<&Self> {
        let branch = self.below.as_deref()?;
        let values = branch.keys.get(entry.key);
        if let Some(node) = values.and_then(|values| values.exact.get(entry.value)) {
            return Some(node);
        }
        let by_value = values.and_then(|values| first(&values.prefixes, entry.value));
        let by_key = first(&branch.key_prefixes, entry.key);
        match by_value.into_iter().chain(by_key).min_by_key(|prefix| prefix.order) {
            Some(prefix) => Some(&prefix.node),
            None => values?.any.as_ref(),
        }
    }

    /// Orders `entries` so that they lead from here to a rule. A level is left as soon as no entry fits, so only what rules
    /// have in common is tried twice.
    pub(super) fn arrange(&self, entries: &mut [Entry<'_>]) -> bool {
        if entries.is_empty() {
            return self.rule.is_some();
        }
        for first in 0..entries.len() {
            entries[..=first].rotate_right(1);
            if self.child(&entries[0]).is_some_and(|node| node.arrange(&mut entries[1..])) {
                return true;
            }
            entries[..=first].rotate_left(1);
        }
        false
    }

    /// Puts `node` below this one, the `order`th there. The same key and value must not be put twice.
    pub(super) fn put(&mut self, order: usize, key: &str, value: &str, node: Self) {
        let branch = self.below.get_or_insert_default();
        if value.is_empty()
            && let Some(prefix) = key.strip_suffix('*')
        {
            branch.key_prefixes.push(Prefix { order, text: prefix.into(), node });
            return;
        }
        let values = branch.keys.entry(key.into()).or_default();
        if value.is_empty() {
            values.any = Some(node);
        } else if let Some(prefix) = value.strip_suffix('*') {
            values.prefixes.push(Prefix { order, text: prefix.into(), node });
        } else {
            values.exact.insert(value.into(), node);
        }
    }
}

fn first<'p>(prefixes: &'p [Prefix], text: &str) -> Option<&'p Prefix> {
    prefixes.iter().find(|prefix| text.starts_with(&*prefix.text))
}

/// XXH3 in one step per text.
#[derive(Default)]
pub(super) struct TextHasher(u64);

impl Hasher for TextHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// What ends a text; it tells nothing where a text is the whole key.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
