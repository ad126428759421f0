use chancery_proto::{chancery::RateLimitRule, envoy::rate_limit_config, google::protobuf};

use super::*;
use crate::model::rule::Rules;

fn own(name: &str, requests: u32) -> Received {
    let rule = RateLimitRule {
        name: "all".into(),
        requests,
        per: (requests < 1000).then_some(protobuf::Duration { seconds: 1, nanos: 0 }),
        ..RateLimitRule::default()
    };
    let domain = RateLimitDomain { name: name.into(), fleets: Vec::new(), rules: vec![rule] };
    Received { name: name.into(), version: requests.to_string(), body: domain.encode_to_vec().into() }
}

fn config(name: &str, domain: &str, unit: i32) -> Received {
    let policy = rate_limit_config::RateLimitPolicy { unit, requests_per_unit: 1, ..Default::default() };
    let descriptor =
        rate_limit_config::RateLimitDescriptor { key: "k".into(), rate_limit: Some(policy), ..Default::default() };
    let config = RateLimitConfig { name: name.into(), domain: domain.into(), descriptors: vec![descriptor] };
    Received { name: name.into(), version: unit.to_string(), body: config.encode_to_vec().into() }
}

/// The set in force, as a limiter builds it, and what was in it whenever it changed.
struct Bench {
    held: Held,
    puts: Vec<Vec<String>>,
}

impl Bench {
    fn new() -> Self {
        Self { held: Held::new(Algorithm::TokenBucket), puts: Vec::new() }
    }

    fn take(&mut self, kind: Kind, upserts: &[Received], removed: &[&str]) -> Result<(), Vec<Refused>> {
        let removed = removed.iter().map(|name| Arc::from(*name)).collect();
        let batch = Batch { type_url: kind.type_url().into(), upserts: upserts.to_vec(), removed };
        let puts = &mut self.puts;
        self.held.take(&batch, &mut |specs| {
            Rules::build(&specs).map_err(|problems| problems.into_iter().map(Problem::from).collect::<Vec<_>>())?;
            puts.push(specs.into_iter().map(|spec| spec.name).collect());
            Ok(())
        })
    }

    fn in_force(&self) -> Vec<(String, String)> {
        let loaded = self.held.in_force.values();
        loaded.map(|loaded| (loaded.spec.origin.clone(), loaded.version.clone())).collect()
    }
}

fn refusal(result: Result<(), Vec<Refused>>) -> (String, String) {
    let mut refused = result.unwrap_err();
    assert_eq!(refused.len(), 1, "{refused:?}");
    let Refused { name, reason } = refused.remove(0);
    (name.to_string(), reason)
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn each_batch_is_one_change() {
    let mut bench = Bench::new();
    bench.take(Kind::Domain, &[own("edge", 1), own("core", 1)], &[]).unwrap();
    bench.take(Kind::Config, &[config("gw", "legacy", 1)], &[]).unwrap();
    bench.take(Kind::Domain, &[own("edge", 2)], &["core"]).unwrap();
    assert_eq!(bench.puts, [vec!["core", "edge"], vec!["core", "edge", "legacy"], vec!["edge", "legacy"]]);
    assert_eq!(bench.in_force(), pairs(&[("rateLimitDomain edge", "2"), ("rateLimitConfig gw", "1")]));
}

#[test]
fn an_empty_first_answer_is_a_change_too() {
    let mut bench = Bench::new();
    bench.take(Kind::Domain, &[], &[]).unwrap();
    assert_eq!(bench.puts, [Vec::<String>::new()]);
}

#[test]
fn the_last_good_content_of_a_bad_resource_stays_and_the_others_go_on() {
    let mut bench = Bench::new();
    bench.take(Kind::Domain, &[own("edge", 1), own("core", 1)], &[]).unwrap();
    let (name, reason) = refusal(bench.take(Kind::Domain, &[own("edge", 1000), own("core", 2)], &[]));
    assert_eq!((name.as_str(), reason.as_str()), ("edge", "rules[0].per: is missing"));
    assert_eq!(bench.in_force(), pairs(&[("rateLimitDomain core", "2"), ("rateLimitDomain edge", "1")]));
    bench.take(Kind::Domain, &[own("edge", 3)], &[]).unwrap();
    assert_eq!(bench.in_force()[1].1, "3");
}

#[test]
fn what_is_no_message_is_refused() {
    let garbage = Received { body: Bytes::from_static(&[0xff]), ..own("edge", 1) };
    let (name, reason) = refusal(Bench::new().take(Kind::Domain, &[garbage], &[]));
    assert_eq!(name, "edge");
    assert!(reason.starts_with("cannot be read: "), "{reason}");
}

#[test]
fn a_domain_that_another_resource_has_waits_until_that_one_is_gone() {
    let mut bench = Bench::new();
    bench.take(Kind::Config, &[config("first", "edge", 1)], &[]).unwrap();
    let (name, reason) =
        refusal(bench.take(Kind::Config, &[config("second", "edge", 1), config("third", "x", 1)], &[]));
    assert_eq!(
        (name.as_str(), reason.as_str()),
        ("second", "domain: domain \"edge\" is already in rateLimitConfig first")
    );
    // It is in the way of one that is in force, though it comes before it: the newcomer is refused.
    let (name, _) = refusal(bench.take(Kind::Domain, &[own("edge", 1)], &[]));
    assert_eq!(name, "edge");
    assert_eq!(bench.in_force(), pairs(&[("rateLimitConfig first", "1"), ("rateLimitConfig third", "1")]));
    bench.take(Kind::Config, &[], &["first"]).unwrap();
    assert_eq!(bench.in_force(), pairs(&[("rateLimitDomain edge", "1"), ("rateLimitConfig third", "1")]));
    bench.take(Kind::Config, &[], &["second"]).unwrap();
    bench.take(Kind::Domain, &[], &["edge"]).unwrap();
    assert_eq!(bench.in_force(), pairs(&[("rateLimitConfig third", "1")]));
}

#[test]
fn two_newcomers_for_one_domain_are_not_both_refused() {
    let mut bench = Bench::new();
    let (name, _) = refusal(bench.take(Kind::Config, &[config("a", "edge", 1), config("b", "edge", 1)], &[]));
    assert_eq!(name, "b");
    assert_eq!(bench.in_force(), pairs(&[("rateLimitConfig a", "1")]));
}

#[test]
fn a_set_that_is_refused_for_something_else_leaves_everything_as_it_was() {
    let mut bench = Bench::new();
    bench.take(Kind::Domain, &[own("edge", 1)], &[]).unwrap();
    let batch = Batch { type_url: Kind::Domain.type_url().into(), upserts: vec![own("core", 1)], removed: Vec::new() };
    let other = Problem { file: "limits.yaml".into(), line: 1, column: 1, path: String::new(), reason: "taken".into() };
    let (name, reason) = refusal(bench.held.take(&batch, &mut |specs| match specs.len() {
        1 => Ok(()),
        _ => Err(vec![other.clone()]),
    }));
    assert_eq!((name.as_str(), reason.as_str()), ("core", "taken"));
    assert_eq!(bench.in_force(), pairs(&[("rateLimitDomain edge", "1")]));
    let nothing = Batch { upserts: Vec::new(), removed: vec!["edge".into()], ..batch };
    bench.held.take(&nothing, &mut |_| Err(vec![other.clone()])).unwrap();
    assert_eq!(bench.in_force(), pairs(&[("rateLimitDomain edge", "1")]));
}

#[test]
fn what_is_saved_is_what_is_in_force() {
    let mut bench = Bench::new();
    bench.take(Kind::Domain, &[own("edge", 1)], &[]).unwrap();
    let _ = bench.take(Kind::Config, &[config("gw", "legacy", 2), config("dup", "legacy", 2)], &[]);
    let _ = bench.take(Kind::Domain, &[own("edge", 1000)], &[]);
    let saved = bench.held.save();
    let restored = Held::restore(&saved, Algorithm::TokenBucket).unwrap();
    assert_eq!(restored.specs(), bench.held.specs());
    let versions: Vec<_> =
        restored.versions().into_iter().map(|(_, name, version)| (name.to_string(), version)).collect();
    assert_eq!(versions, pairs(&[("edge", "1"), ("dup", "2")]));
    assert_eq!(restored.save(), saved);
    assert!(Held::restore(&saved[..saved.len() - 1], Algorithm::TokenBucket).is_err());
}
