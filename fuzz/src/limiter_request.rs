//! Requests from any client: any bytes are read or refused, and what is read gets a verdict that is true to the request.
#![no_main]

use std::sync::{Arc, LazyLock};

use arc_swap::ArcSwap;
use chancery_rate_limiter::{
    config::yaml::parse,
    decide::{Caller, Deciding, Limiter, MAX_PARTS, Refused, Ruleset},
    model::{key::Salt, limit::Algorithm, rule::Rules},
    serve::wire::request::read,
    store::{Clock, Memory, SaltCell},
};
use libfuzzer_sys::fuzz_target;

/// One of each kind, with names short enough to be guessed.
const RULES: &str = "
domain: d
descriptors:
- {key: a, rate_limit: {unit: hour, requests_per_unit: 9, name: a}}
- {key: a, value: x*, share_threshold: true, rate_limit: {unit: day, requests_per_unit: 4294967295, algorithm: fixed-window}}
- {key: a, value: y, shadow_mode: true, rate_limit: {per: 1ms, requests_per_unit: 0}}
- {key: b, quota_mode: true, rate_limit: {unit: year, requests_per_unit: 1, algorithm: fixed-window}}
- key: c
  rate_limit: {unlimited: true, replaces: [{name: a}]}
  descriptors:
  - {key: a*, detailed_metric: true, rate_limit: {unit: second, requests_per_unit: 3, burst: 100, debt: true}}
";

static LIMITER: LazyLock<Limiter> = LazyLock::new(|| {
    let specs = parse("rules.yaml", RULES.as_bytes(), Algorithm::TokenBucket).expect("good rules");
    let rules = Ruleset::new(Rules::build(&specs).expect("good rules"));
    let store = Arc::new(Memory::new(10_000, Clock::system()));
    Limiter::new(Arc::new(ArcSwap::from_pointee(rules)), store, SaltCell::new(Salt([7; 16])))
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(request) = read(bytes) else { return };
    match LIMITER.decide(&request, &Caller::Trusted) {
        Ok(Deciding::Done(verdict)) => {
            assert_eq!(verdict.statuses.len(), request.descriptors.len());
            assert_eq!(verdict.admitted, verdict.statuses.iter().all(|status| status.admitted));
        }
        Ok(Deciding::Waiting(_)) => panic!("memory answers at once"),
        Err(Refused::TooMany { count, .. }) => assert!(count > MAX_PARTS),
        Err(_) => {}
    }
});
