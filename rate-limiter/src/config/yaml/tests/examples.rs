//! What the examples in envoyproxy/ratelimit's README show, in rules of our own: which rule each descriptor finds, and
//! what a run of requests is answered in fixed windows.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use super::super::parse;
use crate::{
    decide::{Caller, Deciding, Limiter, Ruleset},
    model::{
        descriptor::{Descriptor, Entry, Hits, Request},
        key::Salt,
        limit::Algorithm,
        rule::Rules,
    },
    store::{Clock, Memory, SaltCell},
};

/// Entries as `key=value`, descriptors apart by `|`, entries by a space.
fn descriptors(text: &str) -> Vec<Descriptor<'_>> {
    text.split('|')
        .map(|descriptor| {
            let entries = descriptor.split_whitespace().map(|entry| {
                let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
                Entry { key, value }
            });
            Descriptor { entries: entries.collect(), hits: Hits::Take(1), limit: None }
        })
        .collect()
}

struct Example {
    limiter: Limiter,
    domain: String,
}

impl Example {
    fn new(rules: &str) -> Self {
        let specs = parse("example.yaml", rules.as_bytes(), Algorithm::FixedWindow).unwrap();
        let domain = specs[0].name.clone();
        let rules = Arc::new(ArcSwap::from_pointee(Ruleset::new(Rules::build(&specs).unwrap())));
        let (clock, _) = Clock::by_hand(Duration::from_secs(1_700_000_000));
        Self { limiter: Limiter::new(rules, Arc::new(Memory::new(1_000, clock)), SaltCell::new(Salt([3; 16]))), domain }
    }

    /// The rule of each descriptor, by its path below the domain.
    fn finds(&self, request: &str, paths: &[&str]) {
        let rules = self.limiter.rules();
        let domain = rules.rules.domain(&self.domain).unwrap();
        let found: Vec<String> = descriptors(request)
            .iter()
            .map(|asked| {
                let rule = domain.find(&asked.entries);
                rule.map_or("-".to_owned(), |rule| rule.path[self.domain.len() + 1..].to_owned())
            })
            .collect();
        assert_eq!(found, paths, "{request}");
    }

    /// The verdict on each of several requests in a row, `+` or `-`.
    fn answers(&self, requests: &[&str], verdicts: &str) {
        let verdict = |request: &&str| {
            let request = Request { domain: &self.domain, descriptors: descriptors(request).into() };
            match self.limiter.decide(&request, &Caller::Trusted).unwrap() {
                Deciding::Done(verdict) if verdict.admitted => '+',
                Deciding::Done(_) => '-',
                Deciding::Waiting(_) => panic!("memory answers at once"),
            }
        };
        assert_eq!(requests.iter().map(verdict).collect::<String>(), verdicts, "{requests:?}");
    }
}

#[test]
fn values_have_limits_of_their_own() {
    let example = Example::new(
        "domain: storage\ndescriptors:\n\
         - {key: table, value: orders, rate_limit: {unit: second, requests_per_unit: 2}}\n\
         - {key: table, value: other, rate_limit: {unit: second, requests_per_unit: 1}}\n",
    );
    example.finds("table=orders|table=other|table=carts|chair=orders", &["table_orders", "table_other", "-", "-"]);
    example.answers(&["table=orders", "table=other", "table=orders", "table=orders", "table=other"], "+++--");
}

#[test]
fn nested_levels_count_by_all_their_entries() {
    let example = Example::new(
        "domain: mail\ndescriptors:\n\
         - key: kind\n  value: offer\n  descriptors:\n  - {key: to, rate_limit: {unit: day, requests_per_unit: 1}}\n\
         - {key: to, rate_limit: {unit: day, requests_per_unit: 3}}\n",
    );
    example.finds("kind=offer to=ann|to=ann|kind=bill to=ann|kind=offer", &["kind_offer.to", "to", "-", "-"]);
    // The narrow limit refuses what the wide one would still admit.
    example.answers(&["kind=offer to=ann|to=ann", "kind=offer to=ann|to=ann", "to=ann", "to=ann"], "+-+-");
    example.answers(&["kind=offer to=bob|to=bob", "to=bob", "to=bob", "to=bob"], "+++-");
}

#[test]
fn an_exact_value_is_preferred_to_the_bare_key() {
    let example = Example::new(
        "domain: edge\ndescriptors:\n\
         - {key: address, rate_limit: {unit: second, requests_per_unit: 1}}\n\
         - {key: address, value: 192.0.2.7, rate_limit: {unit: second, requests_per_unit: 0}}\n\
         - {key: address, value: 192.0.2.8}\n",
    );
    example.finds("address=192.0.2.1|address=192.0.2.7|address=192.0.2.8", &["address", "address_192.0.2.7", "-"]);
    example.answers(&["address=192.0.2.1", "address=192.0.2.1", "address=192.0.2.2", "address=192.0.2.7"], "+-+-");
    // A value without a limit is free of the key's.
    example.answers(&["address=192.0.2.8"; 4], "++++");
}

#[test]
fn a_rule_is_as_deep_as_the_descriptor() {
    let shallow = "domain: d\ndescriptors: [{key: a, value: x, rate_limit: {unit: second, requests_per_unit: 0}}]\n";
    Example::new(shallow).finds("a=x b=y|a=x", &["-", "a_x"]);
    let deep = "domain: d\ndescriptors:\n- key: a\n  value: x\n  descriptors:\n\
                \x20 - {key: b, rate_limit: {unit: second, requests_per_unit: 0}}\n";
    Example::new(deep).finds("a=x b=y|a=x", &["a_x.b", "-"]);
}

#[test]
fn unlimited_is_a_rule_that_admits() {
    let example = Example::new(
        "domain: d\ndescriptors:\n- {key: inner, rate_limit: {unlimited: true}}\n\
         - {key: outer, rate_limit: {unit: minute, requests_per_unit: 1}}\n",
    );
    example.finds("inner=1|outer=1", &["inner", "outer"]);
    example.answers(&["inner=1", "inner=1", "outer=1", "outer=1"], "+++-");
}

#[test]
fn shadow_mode_never_refuses() {
    let example = Example::new(
        "domain: d\ndescriptors:\n- key: service\n  descriptors:\n\
         \x20 - {key: user, value: ann, rate_limit: {unit: second, requests_per_unit: 1}, shadow_mode: true}\n\
         \x20 - {key: user, value: bob, rate_limit: {unit: second, requests_per_unit: 1}}\n",
    );
    example.answers(&["service=s user=ann", "service=s user=ann", "service=s user=bob", "service=s user=bob"], "+++-");
}

#[test]
fn a_replaced_limit_is_not_charged() {
    let example = Example::new(
        "domain: d\ndescriptors:\n\
         - key: read\n  descriptors:\n  - {key: user, rate_limit: {name: reads, unit: second, requests_per_unit: 1}}\n\
         - key: report\n  descriptors:\n  - {key: user, rate_limit: {unit: second, requests_per_unit: 2, replaces: [{name: reads}]}}\n",
    );
    let both = "read=1 user=ann|report=1 user=ann";
    example.answers(&[both, both, both], "++-");
    example.answers(&["read=1 user=ann", "read=1 user=ann"], "+-");
}

#[test]
fn wildcards_stand_between_values_and_bare_keys() {
    let example = Example::new(
        "domain: d\ndescriptors:\n\
         - {key: path, rate_limit: {unit: minute, requests_per_unit: 5}}\n\
         - {key: path, value: /a*, rate_limit: {unit: minute, requests_per_unit: 1}}\n\
         - {key: path, value: /a/b, rate_limit: {unit: minute, requests_per_unit: 2}}\n\
         - {key: path, value: 'x*y', rate_limit: {unit: minute, requests_per_unit: 3}}\n",
    );
    example
        .finds("path=/a/b|path=/a/c|path=/z|path=xzy|path=x*y", &["path_/a/b", "path_/a*", "path", "path", "path_x*y"]);
    // Each value has a cell of its own.
    example.answers(&["path=/a/1", "path=/a/2", "path=/a/1"], "++-");
}

#[test]
fn a_shared_threshold_is_one_cell_for_all_that_match() {
    let example = Example::new(
        "domain: d\ndescriptors:\n\
         - {key: file, value: img/*, share_threshold: true, rate_limit: {unit: hour, requests_per_unit: 2}}\n\
         - {key: file, value: doc/*, rate_limit: {unit: hour, requests_per_unit: 2}}\n",
    );
    example.answers(&["file=img/a", "file=img/b", "file=img/c"], "++-");
    example.answers(&["file=doc/a", "file=doc/b", "file=doc/c"], "+++");
}

#[test]
fn metrics_name_what_the_flags_ask_for() {
    let example = Example::new(
        "domain: d\ndescriptors:\n\
         - {key: plain, rate_limit: {unit: hour, requests_per_unit: 2}}\n\
         - {key: all, detailed_metric: true, rate_limit: {unit: hour, requests_per_unit: 2}}\n\
         - key: route\n  value_to_metric: true\n  descriptors:\n  - {key: user, rate_limit: {unit: hour, requests_per_unit: 2}}\n",
    );
    let rules = example.limiter.rules();
    let domain = rules.rules.domain("d").unwrap();
    let series: Vec<_> = descriptors("plain=1|all=1|route=cart user=ann")
        .iter()
        .map(|asked| domain.find(&asked.entries).unwrap().series(&asked.entries))
        .collect();
    assert_eq!(series, [None, Some("d.all_1".to_owned()), Some("d.route_cart.user".to_owned())]);
}
