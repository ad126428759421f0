//! A domain as envoyproxy/ratelimit takes it over xDS: `RateLimitConfig`.
//!
//! That model knows requests per unit of time, counted in windows that are aligned to the clock. A limit that says anything
//! else is left out, with a reason, and not bent into something near: whoever reads `100 per second` must find it so. What
//! stands beside a limit (`denied.body`, `whenRedisIsDown`, `strict`) has no field there and changes nothing about how much is
//! admitted.

use std::time::Duration;

use chancery_proto::{
    chancery::{Algorithm, Enforcement, LIMIT_KEY, RateLimitDomain, RateLimitRule},
    envoy::rate_limit_config::{RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitUnit},
};

/// The units, by their length; months and years are those of envoyproxy/ratelimit.
const UNITS: [(u64, RateLimitUnit); 7] = [
    (1, RateLimitUnit::Second),
    (60, RateLimitUnit::Minute),
    (60 * 60, RateLimitUnit::Hour),
    (24 * 60 * 60, RateLimitUnit::Day),
    (7 * 24 * 60 * 60, RateLimitUnit::Week),
    (30 * 24 * 60 * 60, RateLimitUnit::Month),
    (365 * 24 * 60 * 60, RateLimitUnit::Year),
];

/// A limit that cannot be expressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub limit: String,
    /// Why not.
    pub reason: Reason,
}

/// Why a limit cannot be expressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It admits evenly, with a burst.
    #[error("its algorithm is token-bucket, not fixed-window")]
    TokenBucket,
    /// Its window has a length of its own.
    #[error("its window is {0:?}, not a second, minute, hour, day, week, 30 days or 365 days")]
    Window(Duration),
    /// It is charged at the end of a request.
    #[error("it has debt")]
    Debt,
    /// The proxies enforce it.
    #[error("it is enforced as a quota")]
    Quota,
}

/// `domain` for envoyproxy/ratelimit, and what of it is left out; without anything that can be expressed, none.
pub fn config(domain: &RateLimitDomain) -> (Option<RateLimitConfig>, Vec<LeftOut>) {
    let (mut descriptors, mut left_out) = (Vec::new(), Vec::new());
    for rule in &domain.rules {
        match descriptor(rule) {
            Ok(descriptor) => descriptors.push(descriptor),
            Err(reason) => left_out.push(LeftOut { limit: rule.name.clone(), reason }),
        }
    }
    let name = &domain.name;
    let config = RateLimitConfig { name: name.clone(), domain: name.clone(), descriptors };
    ((!config.descriptors.is_empty()).then_some(config), left_out)
}

/// The descriptors of a limit, as `descriptors` has the proxies send them: its name, and below it one level per part of its
/// key, of whatever value.
fn descriptor(rule: &RateLimitRule) -> Result<RateLimitDescriptor, Reason> {
    if rule.enforcement() == Enforcement::Quota {
        return Err(Reason::Quota);
    }
    if rule.algorithm() != Algorithm::FixedWindow {
        return Err(Reason::TokenBucket);
    }
    if rule.debt {
        return Err(Reason::Debt);
    }
    let policy =
        RateLimitPolicy { unit: unit(rule)?.into(), requests_per_unit: rule.requests, ..RateLimitPolicy::default() };
    let entry = |key: &str, value: &str| RateLimitDescriptor {
        key: key.to_owned(),
        value: value.to_owned(),
        ..RateLimitDescriptor::default()
    };
    let mut levels: Vec<_> = rule.keys.iter().map(|key| entry(key, "")).collect();
    levels.insert(0, entry(LIMIT_KEY, &rule.name));
    let innermost = levels.pop().unwrap_or_default();
    let innermost = RateLimitDescriptor { rate_limit: Some(policy), shadow_mode: rule.shadow, ..innermost };
    Ok(levels.into_iter().rfold(innermost, |below, level| RateLimitDescriptor { descriptors: vec![below], ..level }))
}

fn unit(rule: &RateLimitRule) -> Result<RateLimitUnit, Reason> {
    let per = rule.per.unwrap_or_default();
    let length = Duration::new(u64::try_from(per.seconds).unwrap_or(0), u32::try_from(per.nanos).unwrap_or(0));
    let unit = UNITS.into_iter().find(|(seconds, _)| Duration::from_secs(*seconds) == length);
    unit.map(|(_, unit)| unit).ok_or(Reason::Window(length))
}

#[cfg(test)]
mod tests {
    use chancery_proto::google::protobuf;

    use super::*;

    fn rule(name: &str, seconds: i64) -> RateLimitRule {
        RateLimitRule {
            name: name.into(),
            keys: vec!["x-api-key".into(), "remote_address".into()],
            requests: 100,
            per: Some(protobuf::Duration { seconds, nanos: 0 }),
            algorithm: Algorithm::FixedWindow.into(),
            ..RateLimitRule::default()
        }
    }

    fn domain(rules: Vec<RateLimitRule>) -> RateLimitDomain {
        RateLimitDomain { name: "edge".into(), fleets: vec!["edge".into()], rules }
    }

    #[test]
    fn a_limit_is_a_path_of_descriptors() {
        let plain = RateLimitRule { keys: Vec::new(), shadow: true, ..rule("all", 3600) };
        let (config, left_out) = config(&domain(vec![rule("per-client", 60), plain]));
        insta::assert_snapshot!(crate::translate::testing::snapshot(&config.unwrap()));
        assert_eq!(left_out, []);
    }

    #[test]
    fn every_unit_has_its_length() {
        for (seconds, unit) in UNITS {
            let (config, _) =
                config(&domain(vec![RateLimitRule { keys: Vec::new(), ..rule("l", i64::try_from(seconds).unwrap()) }]));
            assert_eq!(config.unwrap().descriptors[0].rate_limit.as_ref().unwrap().unit(), unit);
        }
    }

    #[test]
    fn what_cannot_be_said_is_left_out_and_named() {
        let rules = vec![
            RateLimitRule { algorithm: Algorithm::TokenBucket.into(), ..rule("smooth", 60) },
            rule("odd", 10),
            RateLimitRule { per: Some(protobuf::Duration { seconds: 1, nanos: 1 }), ..rule("finer", 1) },
            RateLimitRule { debt: true, ..rule("debt", 60) },
            RateLimitRule { enforcement: Enforcement::Quota.into(), ..rule("quota", 60) },
        ];
        let (nothing, left_out) = config(&domain(rules.clone()));
        assert_eq!(nothing, None);
        let reasons: Vec<_> = left_out.into_iter().map(|one| (one.limit, one.reason)).collect();
        let expected = [
            ("smooth", Reason::TokenBucket),
            ("odd", Reason::Window(Duration::from_secs(10))),
            ("finer", Reason::Window(Duration::new(1, 1))),
            ("debt", Reason::Debt),
            ("quota", Reason::Quota),
        ];
        assert_eq!(reasons, expected.map(|(limit, reason)| (limit.to_owned(), reason)));
        let (some, left_out) = config(&domain([rules, vec![rule("good", 1)]].concat()));
        assert_eq!((some.unwrap().descriptors.len(), left_out.len()), (1, 5), "the others go on");
    }
}
