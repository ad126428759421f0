//! What the limiter is told about the limits of a fleet: its domain.
//!
//! A fleet has a domain while a limit applies to one of its routes. The message is Chancery's own, not Envoy's; it
//! travels to limiters over xDS like everything else. An edit makes anew the domains that it touches, no others.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use chancery_proto::{
    Message,
    chancery::{
        Algorithm as WireAlgorithm, Enforcement as WireEnforcement, RateLimitDomain, RateLimitRule, WithoutRedis,
    },
};

use crate::{
    model::{
        Catalog, Key, Kind, Name,
        rate_limit::{Algorithm, Enforcement, KeyPart, Limit, Mode, RateLimit, WhenRedisIsDown},
    },
    translate::value::duration,
};

/// The domain of `fleet`, none if there is no such fleet or nothing on it is limited.
pub fn domain(catalog: &Catalog, fleet: &Name) -> Option<RateLimitDomain> {
    let fleet = &catalog.fleet(fleet)?.name;
    let limits = catalog.limits_of(fleet).filter_map(|limit| catalog.rate_limit(limit));
    let rules: Vec<_> = limits.map(|limit| rule(limit)).collect();
    (!rules.is_empty()).then(|| RateLimitDomain { name: fleet.to_string(), fleets: vec![fleet.to_string()], rules })
}

/// Every domain, encoded, by its name: that of the fleet.
pub fn all(catalog: &Catalog) -> BTreeMap<Name, Bytes> {
    catalog.fleets().filter_map(|fleet| Some((fleet.name.clone(), encoded(catalog, &fleet.name)?))).collect()
}

/// What the changes to the resources `changed`, which lead from `before` to `after`, mean for each domain: its new bytes, or
/// none if it is gone. A domain that stays what it was is left out.
pub fn changes(before: &Catalog, after: &Catalog, changed: &[Key]) -> BTreeMap<Name, Option<Bytes>> {
    let mut touched = BTreeSet::new();
    for key in changed {
        for catalog in [before, after] {
            touch(key, catalog, &mut touched);
        }
    }
    touched
        .into_iter()
        .filter_map(|fleet| {
            let next = encoded(after, &fleet);
            (next != encoded(before, &fleet)).then_some((fleet, next))
        })
        .collect()
}

/// Adds to `touched` the fleets whose domains depend on the resource `key` in `catalog`.
fn touch(key: &Key, catalog: &Catalog, touched: &mut BTreeSet<Name>) {
    match key.kind {
        Kind::Fleet => touched.extend([key.name.clone()]),
        Kind::RateLimit => {
            let limited = catalog.fleets().filter(|fleet| catalog.fleet_is_limited_by(&fleet.name, &key.name));
            touched.extend(limited.map(|fleet| fleet.name.clone()));
        }
        Kind::Route => {
            let limited = catalog.route(&key.name).filter(|route| !route.rate_limits().is_empty());
            touched.extend(limited.into_iter().flat_map(|route| &route.listeners).map(|place| place.fleet.clone()));
        }
        Kind::Listener | Kind::Team | Kind::Service | Kind::EnvoyPatch => {}
    }
}

/// The domain of `fleet` while some of its proxies are at `ahead` and the others at `behind`: what either of them asks about, and where
/// both ask, as it is behind.
pub fn on_the_way(behind: &Catalog, ahead: &Catalog, fleet: &Name) -> Option<Bytes> {
    let (behind, ahead) = (domain(behind, fleet), domain(ahead, fleet));
    let Some(mut both) = behind else { return ahead.map(|ahead| ahead.encode_to_vec().into()) };
    for rule in ahead.into_iter().flat_map(|ahead| ahead.rules) {
        if both.rules.iter().all(|known| known.name != rule.name) {
            both.rules.push(rule);
        }
    }
    Some(both.encode_to_vec().into())
}

fn encoded(catalog: &Catalog, fleet: &Name) -> Option<Bytes> {
    domain(catalog, fleet).map(|domain| domain.encode_to_vec().into())
}

fn rule(limit: &RateLimit) -> RateLimitRule {
    let RateLimit { name, key, limit, when_redis_is_down, mode, hits: _, denied_body, enforcement } = limit;
    let Limit { requests, per, burst, algorithm } = limit;
    let Mode { shadow, strict, debt } = mode;
    RateLimitRule {
        name: name.to_string(),
        keys: key.iter().map(KeyPart::key).map(str::to_owned).collect(),
        requests: *requests,
        per: Some(duration(*per)),
        burst: burst.unwrap_or(0),
        algorithm: match algorithm {
            Algorithm::TokenBucket => WireAlgorithm::TokenBucket,
            Algorithm::FixedWindow => WireAlgorithm::FixedWindow,
        }
        .into(),
        shadow: *shadow,
        debt: *debt,
        strict: *strict,
        without_redis: match when_redis_is_down {
            WhenRedisIsDown::Local => WithoutRedis::Local,
            WhenRedisIsDown::Allow => WithoutRedis::Allow,
            WhenRedisIsDown::Deny => WithoutRedis::Deny,
        }
        .into(),
        body: denied_body.clone().into_bytes(),
        enforcement: match enforcement {
            Enforcement::Service => WireEnforcement::Service,
            Enforcement::Quota => WireEnforcement::Quota,
        }
        .into(),
    }
}
