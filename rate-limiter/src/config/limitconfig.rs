//! `ratelimit.config.ratelimit.v3.RateLimitConfig`: envoyproxy/ratelimit's rules as they come over xDS.
//!
//! The same rules as in its YAML, less what the message has no field for (`value_to_metric`, `share_threshold`). Its
//! `metadata` is ignored, as envoyproxy/ratelimit itself does.

use chancery_proto::envoy::rate_limit_config::{
    RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitReplace, RateLimitUnit,
};

use crate::model::{
    limit::{Algorithm, Limit, Unit},
    rule::{Amount, DescriptorSpec, DomainSpec, LimitSpec, Policy, Problem},
};

/// Reads one resource; its rules count by `algorithm`. The origin is the resource's name, or else its domain.
///
/// # Errors
/// Everything that the message says and no rule can mean. What else may be wrong,
/// [`Rules::build`](crate::model::rule::Rules::build) finds.
pub fn read(config: &RateLimitConfig, algorithm: Algorithm) -> Result<DomainSpec, Vec<Problem>> {
    let RateLimitConfig { name, domain, descriptors } = config;
    let origin = if name.is_empty() { domain } else { name };
    let mut reader = Reader { algorithm, origin, problems: Vec::new() };
    let descriptors = reader.descriptors("", descriptors);
    if reader.problems.is_empty() {
        Ok(DomainSpec { name: domain.clone(), descriptors, fleets: None, origin: origin.clone() })
    } else {
        Err(reader.problems)
    }
}

struct Reader<'c> {
    algorithm: Algorithm,
    origin: &'c str,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn descriptors(&mut self, above: &str, descriptors: &[RateLimitDescriptor]) -> Vec<DescriptorSpec> {
        let dot = if above.is_empty() { "" } else { "." };
        let paths = (0..).map(|index: usize| format!("{above}{dot}descriptors[{index}]"));
        paths.zip(descriptors).map(|(path, descriptor)| self.descriptor(&path, descriptor)).collect()
    }

    fn descriptor(&mut self, path: &str, descriptor: &RateLimitDescriptor) -> DescriptorSpec {
        let RateLimitDescriptor {
            key,
            value,
            rate_limit,
            descriptors,
            shadow_mode,
            detailed_metric,
            quota_mode,
            metadata: _,
        } = descriptor;
        DescriptorSpec {
            key: key.clone(),
            value: value.clone(),
            limit: rate_limit.as_ref().and_then(|limit| self.limit(&format!("{path}.rate_limit"), limit)),
            descriptors: self.descriptors(path, descriptors),
            shadow_mode: *shadow_mode,
            quota_mode: *quota_mode,
            detailed_metric: *detailed_metric,
            value_to_metric: false,
            share_threshold: false,
        }
    }

    fn limit(&mut self, path: &str, limit: &RateLimitPolicy) -> Option<LimitSpec> {
        let RateLimitPolicy { unit, requests_per_unit, unlimited, name, replaces } = limit;
        let amount = match (unlimited, known_unit(*unit)) {
            (true, None) if *unit == RateLimitUnit::Unknown as i32 => Amount::Unlimited,
            (true, _) => return self.refuse(format!("{path}.unit"), "has no meaning where the limit is unlimited"),
            (false, None) => return self.refuse(format!("{path}.unit"), &format!("{unit} is not a unit of time")),
            (false, Some(unit)) => match Limit::new(*requests_per_unit, unit.duration(), None, self.algorithm) {
                Ok(limit) => Amount::Limited(limit),
                Err(error) => return self.refuse(path.to_owned(), &error.to_string()),
            },
        };
        let replaces = replaces.iter().map(|RateLimitReplace { name }| name.clone()).collect();
        Some(LimitSpec { amount, name: name.clone(), replaces, policy: Policy::default(), body: None })
    }

    fn refuse<T>(&mut self, path: String, reason: &str) -> Option<T> {
        self.problems.push(Problem { origin: self.origin.to_owned(), path, reason: reason.to_owned() });
        None
    }
}

fn known_unit(unit: i32) -> Option<Unit> {
    Some(match RateLimitUnit::try_from(unit).ok()? {
        RateLimitUnit::Unknown => return None,
        RateLimitUnit::Second => Unit::Second,
        RateLimitUnit::Minute => Unit::Minute,
        RateLimitUnit::Hour => Unit::Hour,
        RateLimitUnit::Day => Unit::Day,
        RateLimitUnit::Week => Unit::Week,
        RateLimitUnit::Month => Unit::Month,
        RateLimitUnit::Year => Unit::Year,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(unit: i32, requests_per_unit: u32) -> Option<RateLimitPolicy> {
        Some(RateLimitPolicy { unit, requests_per_unit, ..RateLimitPolicy::default() })
    }

    fn config(descriptors: Vec<RateLimitDescriptor>) -> RateLimitConfig {
        RateLimitConfig { name: "gateway/edge".into(), domain: "edge".into(), descriptors }
    }

    #[test]
    fn every_field_arrives() {
        let leaf = RateLimitDescriptor {
            key: "path".into(),
            rate_limit: Some(RateLimitPolicy {
                name: "narrow".into(),
                replaces: vec![RateLimitReplace { name: "wide".into() }],
                ..policy(RateLimitUnit::Week as i32, 7).unwrap()
            }),
            shadow_mode: true,
            quota_mode: true,
            detailed_metric: true,
            ..RateLimitDescriptor::default()
        };
        let tree = RateLimitDescriptor {
            key: "host".into(),
            value: "a".into(),
            rate_limit: Some(RateLimitPolicy { unlimited: true, ..RateLimitPolicy::default() }),
            descriptors: vec![leaf],
            ..RateLimitDescriptor::default()
        };
        let spec = read(&config(vec![tree]), Algorithm::FixedWindow).unwrap();
        assert_eq!((spec.name.as_str(), spec.origin.as_str(), spec.fleets), ("edge", "gateway/edge", None));
        let host = &spec.descriptors[0];
        assert_eq!((host.key.as_str(), host.value.as_str()), ("host", "a"));
        assert_eq!(host.limit.as_ref().unwrap().amount, Amount::Unlimited);
        let path = &host.descriptors[0];
        assert!(path.shadow_mode && path.quota_mode && path.detailed_metric);
        let limit = path.limit.as_ref().unwrap();
        let week = Limit::new(7, Unit::Week.duration(), None, Algorithm::FixedWindow).unwrap();
        assert_eq!((limit.amount, limit.name.as_str()), (Amount::Limited(week), "narrow"));
        assert_eq!(limit.replaces, ["wide"]);
    }

    #[test]
    fn every_problem_is_told_with_its_path() {
        let bad = |limit| RateLimitDescriptor { key: "k".into(), rate_limit: limit, ..RateLimitDescriptor::default() };
        let unlimited = RateLimitPolicy { unlimited: true, ..policy(RateLimitUnit::Day as i32, 1).unwrap() };
        let nested = RateLimitDescriptor { descriptors: vec![bad(Some(unlimited))], ..bad(policy(0, 1)) };
        let problems = read(&config(vec![bad(policy(99, 1)), nested]), Algorithm::TokenBucket).unwrap_err();
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "gateway/edge: descriptors[0].rate_limit.unit: 99 is not a unit of time",
                "gateway/edge: descriptors[1].rate_limit.unit: 0 is not a unit of time",
                "gateway/edge: descriptors[1].descriptors[0].rate_limit.unit: has no meaning where the limit is unlimited",
            ]
        );
    }

    #[test]
    fn every_unit_has_a_number() {
        let units: Vec<Option<Unit>> = (0..=8).map(known_unit).collect();
        use Unit::{Day, Hour, Minute, Month, Second, Week, Year};
        let known =
            [None, Some(Second), Some(Minute), Some(Hour), Some(Day), Some(Month), Some(Year), Some(Week), None];
        assert_eq!(units, known);
    }
}
