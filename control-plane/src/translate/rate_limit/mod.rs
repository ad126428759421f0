//! Limits as the proxies and the limiter see them.
//!
//! A proxy asks its fleet's limiter about each request on a route with limits, with one descriptor per limit
//! (`descriptors`); the limiter has what is admitted from its own resource ([`domain()`]). The domain is the
//! fleet's name, so limits of the same name on two fleets are counted apart.
//!
//! envoyproxy/ratelimit can take the place of our limiter, for what it can express of a domain (`config`).
//!
//! Or it enforces a limit itself, within a share that the limiter assigns to it: `quota`.
//!
//! Whether a listener asks at all depends on the fleet alone ([`filters`]): the first limit of a fleet must not
//! drain the connections of its listeners.

mod config;
mod descriptors;
mod domain;
mod limiter;
mod quota;

use std::collections::BTreeMap;

use chancery_proto::{any, envoy::hcm::HttpFilter, google::protobuf::Any};

pub use chancery_proto::chancery::LIMIT_KEY;
pub use config::{LeftOut, Reason, config};
pub use domain::{all, changes, domain, on_the_way};
pub use limiter::{CLUSTER, cluster};

use crate::model::{
    Name,
    fleet::RateLimiter,
    rate_limit::{Enforcement, RateLimit},
};

/// The filters on the listeners of `fleet`, whose limiter is `limiter`. They do nothing on a route without limits. What a
/// proxy decides itself comes first: it costs no question.
pub fn filters(fleet: &Name, limiter: &RateLimiter) -> impl Iterator<Item = HttpFilter> {
    quota::filters(fleet, limiter).into_iter().chain([limiter::filter(fleet, limiter)])
}

/// What the filters, by their names, are told about a rule with `limits`, of which at most one is a quota.
pub fn per_route(limits: &[&RateLimit]) -> BTreeMap<String, Any> {
    let enforced_by =
        |enforcement| limits.iter().copied().filter(move |limit: &&RateLimit| limit.enforcement == enforcement);
    let mut filters: BTreeMap<String, Any> = enforced_by(Enforcement::Quota).flat_map(quota::per_route).collect();
    if enforced_by(Enforcement::Service).next().is_some() {
        let asked = descriptors::descriptors(enforced_by(Enforcement::Service));
        filters.insert(limiter::FILTER.to_owned(), any::pack_typed(&asked));
    }
    filters
}

#[cfg(test)]
mod tests;
