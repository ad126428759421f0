//! `chancery.config.v1.RateLimitDomain`: the limits of a domain, as Chancery's control plane sends them.
//!
//! Each limit becomes one path of levels: an entry `chancery.limit` with its name, then its keys with any value. Envoy
//! sends a descriptor only if it has a value for every key.

use std::{collections::BTreeSet, time::Duration};

use chancery_proto::{
    chancery::{self, LIMIT_KEY, RateLimitDomain, RateLimitRule},
    google::protobuf,
};

use crate::model::{
    limit::{Algorithm, InvalidLimit, Limit},
    rule::{Amount, DescriptorSpec, DomainSpec, LimitSpec, Policy, Problem, WithoutRedis},
};

/// Reads one resource. The origin is the name of the domain.
///
/// # Errors
/// Everything that the message says and no rule can mean.
pub fn read(domain: &RateLimitDomain) -> Result<DomainSpec, Vec<Problem>> {
    let RateLimitDomain { name, fleets, rules } = domain;
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    let mut descriptors = Vec::with_capacity(rules.len());
    for (index, rule) in rules.iter().enumerate() {
        let mut refuse = |field: &str, reason: String| {
            let path = format!("rules[{index}].{field}");
            problems.push(Problem { origin: name.clone(), path, reason });
        };
        if rule.name.is_empty() || rule.name.ends_with('*') {
            refuse("name", format!("{:?} cannot be the name of a limit", rule.name));
        } else if !names.insert(&rule.name) {
            refuse("name", format!("there is a limit {:?} already", rule.name));
        }
        if let Some(key) = rule.keys.iter().find(|key| key.is_empty() || key.ends_with('*')) {
            refuse("keys", format!("{key:?} cannot be a key"));
        }
        match limit(rule) {
            Ok(limit) => descriptors.push(levels(rule, limit)),
            Err((field, reason)) => refuse(field, reason),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let fleets = (!fleets.is_empty()).then(|| fleets.iter().cloned().collect());
    Ok(DomainSpec { name: name.clone(), descriptors, fleets, origin: name.clone() })
}

fn levels(rule: &RateLimitRule, limit: LimitSpec) -> DescriptorSpec {
    let named = (LIMIT_KEY, rule.name.as_str());
    let mut levels = rule.keys.iter().map(|key| (key.as_str(), "")).rev().chain([named]);
    let level = |(key, value): (&str, &str)| DescriptorSpec {
        key: key.to_owned(),
        value: value.to_owned(),
        ..DescriptorSpec::default()
    };
    // From the last entry, which has the limit, to the first.
    let deepest = levels.next().map(level).unwrap_or_default();
    let deepest = DescriptorSpec { limit: Some(limit), shadow_mode: rule.shadow, ..deepest };
    levels.map(level).fold(deepest, |below, level| DescriptorSpec { descriptors: vec![below], ..level })
}

fn limit(rule: &RateLimitRule) -> Result<LimitSpec, (&'static str, String)> {
    let per = rule.per.as_ref().ok_or_else(|| ("per", "is missing".to_owned()))?;
    let per = duration(per).ok_or_else(|| ("per", "is not a period of time".to_owned()))?;
    let algorithm = match chancery::Algorithm::try_from(rule.algorithm) {
        Ok(chancery::Algorithm::TokenBucket) => Algorithm::TokenBucket,
        Ok(chancery::Algorithm::FixedWindow) => Algorithm::FixedWindow,
        Err(_) => return Err(("algorithm", unknown(rule.algorithm))),
    };
    let without_redis = match chancery::WithoutRedis::try_from(rule.without_redis) {
        Ok(chancery::WithoutRedis::Local) => WithoutRedis::Local,
        Ok(chancery::WithoutRedis::Allow) => WithoutRedis::Allow,
        Ok(chancery::WithoutRedis::Deny) => WithoutRedis::Deny,
        Err(_) => return Err(("without_redis", unknown(rule.without_redis))),
    };
    // Both ways of enforcing count by the same rule; who asks is what differs.
    chancery::Enforcement::try_from(rule.enforcement).map_err(|_| ("enforcement", unknown(rule.enforcement)))?;
    let burst = (rule.burst > 0).then_some(rule.burst);
    let limit = Limit::new(rule.requests, per, burst, algorithm).map_err(|error| {
        let field = match error {
            InvalidLimit::Period => "per",
            InvalidLimit::Burst | InvalidLimit::Refill { .. } => "burst",
        };
        (field, error.to_string())
    })?;
    Ok(LimitSpec {
        amount: Amount::Limited(limit),
        name: rule.name.clone(),
        replaces: Vec::new(),
        policy: Policy { debt: rule.debt, strict: rule.strict, without_redis },
        body: (!rule.body.is_empty()).then(|| rule.body.clone().into()),
    })
}

fn duration(duration: &protobuf::Duration) -> Option<Duration> {
    let nanos = u32::try_from(duration.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(duration.seconds).ok()?, nanos))
}

fn unknown(value: i32) -> String {
    format!("{value} is not known to this version")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rule::Rules;

    fn rule(name: &str, keys: &[&str]) -> RateLimitRule {
        RateLimitRule {
            name: name.into(),
            keys: keys.iter().map(ToString::to_string).collect(),
            requests: 10,
            per: Some(protobuf::Duration { seconds: 1, nanos: 500_000_000 }),
            ..RateLimitRule::default()
        }
    }

    fn domain(rules: Vec<RateLimitRule>) -> RateLimitDomain {
        RateLimitDomain { name: "edge".into(), fleets: vec!["edge".into()], rules }
    }

    #[test]
    fn every_field_arrives() {
        let rule = RateLimitRule {
            burst: 30,
            algorithm: chancery::Algorithm::FixedWindow.into(),
            shadow: true,
            debt: true,
            strict: true,
            without_redis: chancery::WithoutRedis::Deny.into(),
            body: b"slow down".to_vec(),
            enforcement: chancery::Enforcement::Quota.into(),
            ..rule("per-client", &["x-api-key", "remote_address"])
        };
        let spec = read(&domain(vec![rule])).unwrap();
        assert_eq!((spec.name.as_str(), spec.fleets), ("edge", Some(["edge".to_owned()].into())));
        let named = &spec.descriptors[0];
        assert_eq!((named.key.as_str(), named.value.as_str()), (LIMIT_KEY, "per-client"));
        assert!(named.limit.is_none() && !named.shadow_mode);
        let key = &named.descriptors[0];
        assert_eq!((key.key.as_str(), key.value.as_str(), key.limit.is_none()), ("x-api-key", "", true));
        let address = &key.descriptors[0];
        assert_eq!((address.key.as_str(), address.shadow_mode), ("remote_address", true));
        let limit = address.limit.clone().unwrap();
        let expected = Limit::new(10, Duration::from_millis(1500), Some(30), Algorithm::FixedWindow).unwrap();
        assert_eq!(limit.amount, Amount::Limited(expected));
        assert_eq!(limit.policy, Policy { debt: true, strict: true, without_redis: WithoutRedis::Deny });
        assert_eq!((limit.name.as_str(), limit.body.as_deref()), ("per-client", Some(b"slow down".as_slice())));
    }

    #[test]
    fn a_limit_without_keys_is_one_level() {
        let spec = read(&domain(vec![rule("all", &[])])).unwrap();
        assert!(spec.descriptors[0].limit.is_some() && spec.descriptors[0].descriptors.is_empty());
        Rules::build(&[spec]).unwrap();
    }

    #[test]
    fn a_domain_without_fleets_is_for_everybody() {
        assert_eq!(read(&RateLimitDomain { name: "a".into(), ..RateLimitDomain::default() }).unwrap().fleets, None);
    }

    #[test]
    fn every_problem_is_told_with_its_path() {
        let bad = |change: fn(&mut RateLimitRule)| {
            let mut rule = rule("a", &["k"]);
            change(&mut rule);
            read(&domain(vec![rule])).unwrap_err().remove(0).path
        };
        assert_eq!(bad(|rule| rule.name.clear()), "rules[0].name");
        assert_eq!(bad(|rule| rule.name.push('*')), "rules[0].name");
        assert_eq!(bad(|rule| rule.keys.push(String::new())), "rules[0].keys");
        assert_eq!(bad(|rule| rule.per = None), "rules[0].per");
        assert_eq!(bad(|rule| rule.per = Some(protobuf::Duration { seconds: -1, nanos: 0 })), "rules[0].per");
        assert_eq!(bad(|rule| rule.per = Some(protobuf::Duration { seconds: 1, nanos: i32::MAX })), "rules[0].per");
        assert_eq!(bad(|rule| rule.per = Some(protobuf::Duration::default())), "rules[0].per");
        assert_eq!(bad(|rule| rule.burst = u32::MAX), "rules[0].burst");
        assert_eq!(bad(|rule| rule.algorithm = 9), "rules[0].algorithm");
        assert_eq!(bad(|rule| rule.without_redis = 9), "rules[0].without_redis");
        assert_eq!(bad(|rule| rule.enforcement = 9), "rules[0].enforcement");
        let twice = read(&domain(vec![rule("a", &[]), rule("a", &["k"])])).unwrap_err();
        assert_eq!((twice.len(), twice[0].path.as_str(), twice[0].origin.as_str()), (1, "rules[1].name", "edge"));
    }
}
