//! What limiters are served that are envoyproxy/ratelimit: the domains of ours, as far as they can be expressed there.
//!
//! In a cache of its own: our limiter takes either form, and two of one domain would contradict each other. It is filled
//! when the first such limiter comes, and from then on what is left out is logged whenever that changes.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use chancery_proto::{Message, chancery::RateLimitDomain, type_url};
use chancery_xds::{Cache, Resource, Update};

use crate::{
    model::Name,
    translate::rate_limit::{self, LeftOut},
};

/// The cache of such limiters.
pub(super) struct Peers {
    cache: Arc<Cache>,
    /// By domain.
    left_out: BTreeMap<Name, Vec<LeftOut>>,
}

impl Peers {
    /// With what there is for `limiters`.
    pub(super) fn new(limiters: &Cache) -> Self {
        let tables = limiters.snapshot();
        let domain = |resource: &Resource| Some((resource.name().parse().ok()?, Some(resource.body())));
        let domains = tables.table(type_url::RATE_LIMIT_DOMAIN).resources().filter_map(domain).collect();
        let mut peers = Self { cache: Arc::default(), left_out: BTreeMap::new() };
        peers.publish(tables.head(), &domains);
        peers
    }

    pub(super) fn cache(&self) -> Arc<Cache> {
        self.cache.clone()
    }

    /// Brings the cache to `sequence`, at which these domains get another content, or none.
    pub(super) fn publish(&mut self, sequence: u64, domains: &BTreeMap<Name, Option<Bytes>>) {
        let mut update = Update::default();
        for (name, bytes) in domains {
            let domain = bytes.as_ref().and_then(|bytes| RateLimitDomain::decode(bytes.clone()).ok());
            let (config, left_out) = domain.map(|domain| rate_limit::config(&domain)).unwrap_or_default();
            match config {
                Some(config) => {
                    let resource = Resource::new(type_url::RATE_LIMIT_CONFIG, name.as_str(), &config.encode_to_vec());
                    update.upsert(type_url::RATE_LIMIT_CONFIG, resource);
                }
                None => update.remove(type_url::RATE_LIMIT_CONFIG, name.as_str()),
            }
            if self.left_out.remove(name).unwrap_or_default() != left_out {
                warn(name, &left_out);
            }
            if !left_out.is_empty() {
                self.left_out.insert(name.clone(), left_out);
            }
        }
        self.cache.apply(sequence, update);
    }
}

fn warn(domain: &Name, left_out: &[LeftOut]) {
    for LeftOut { limit, reason } in left_out {
        tracing::warn!(%domain, limit, %reason, "limit is not in force at envoyproxy/ratelimit, which cannot express it");
    }
}
