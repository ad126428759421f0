//! How an endpoint is chosen, as one of Envoy's policies.
//!
//! What is hashed stands in the cluster and not in the routes, where Envoy has looked for it first: so a service says once what its
//! requests have in common, whoever sends there, and a rule that splits between services has each of them ask for its own.
//!
//! Envoy's default is not written. Everything else is an extension and not the enumeration beside it, which cannot say it all.

use chancery_proto::{
    any,
    envoy::{
        cluster::{LoadBalancingPolicy, load_balancing_policy::Policy as EnvoyPolicy},
        core::TypedExtensionConfig,
        lb_common::{ConsistentHashingLbConfig, SlowStartConfig},
        lb_least_request::LeastRequest,
        lb_maglev::Maglev,
        lb_random::Random,
        lb_ring_hash::RingHash,
        lb_round_robin::RoundRobin,
        route::route_action::{
            HashPolicy,
            hash_policy::{ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter},
        },
        types::Percent,
    },
};

use crate::{
    model::service::{HashKey, HashOf, Hashing, LoadBalancing, Policy, SlowStart},
    translate::value::{duration, number},
};

/// The policy; none where Envoy's default says the same.
pub(super) fn policy(load_balancing: &LoadBalancing) -> Option<LoadBalancingPolicy> {
    let (name, settings) = match &load_balancing.policy {
        Policy::RoundRobin(None) => return None,
        Policy::RoundRobin(Some(start)) => {
            let settings = RoundRobin { slow_start_config: Some(slow_start(start)), ..RoundRobin::default() };
            ("round_robin", any::pack_typed(&settings))
        }
        Policy::LeastRequest(start) => {
            let settings =
                LeastRequest { slow_start_config: start.as_ref().map(slow_start), ..LeastRequest::default() };
            ("least_request", any::pack_typed(&settings))
        }
        Policy::Random => ("random", any::pack_typed(&Random::default())),
        Policy::RingHash(on) => {
            let settings = RingHash { consistent_hashing_lb_config: Some(hashing(on)), ..RingHash::default() };
            ("ring_hash", any::pack_typed(&settings))
        }
        Policy::Maglev(on) => {
            let settings = Maglev { consistent_hashing_lb_config: Some(hashing(on)), ..Maglev::default() };
            ("maglev", any::pack_typed(&settings))
        }
    };
    let config =
        TypedExtensionConfig { name: format!("envoy.load_balancing_policies.{name}"), typed_config: Some(settings) };
    Some(LoadBalancingPolicy { policies: vec![EnvoyPolicy { typed_extension_config: Some(config) }] })
}

fn slow_start(start: &SlowStart) -> SlowStartConfig {
    let SlowStart { window, min_weight_percent } = start;
    SlowStartConfig {
        slow_start_window: Some(duration(*window)),
        min_weight_percent: min_weight_percent.map(|percent| Percent { value: percent.into() }),
        ..SlowStartConfig::default()
    }
}

fn hashing(on: &Hashing) -> ConsistentHashingLbConfig {
    let Hashing { keys, balance_factor } = on;
    ConsistentHashingLbConfig {
        hash_balance_factor: balance_factor.map(number),
        hash_policy: keys.iter().map(hash_policy).collect(),
        ..ConsistentHashingLbConfig::default()
    }
}

fn hash_policy(key: &HashKey) -> HashPolicy {
    let HashKey { of, terminal } = key;
    let of = match of {
        HashOf::Header(name) => PolicySpecifier::Header(Header { header_name: name.clone(), ..Header::default() }),
        HashOf::Query(name) => PolicySpecifier::QueryParameter(QueryParameter { name: name.clone() }),
        HashOf::Cookie { name, made } => PolicySpecifier::Cookie(Cookie {
            name: name.clone(),
            ttl: made.as_ref().map(|made| duration(made.ttl)),
            path: made.as_ref().map(|made| made.path.clone()).unwrap_or_default(),
            ..Cookie::default()
        }),
        HashOf::RemoteAddress => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
    };
    HashPolicy { terminal: *terminal, policy_specifier: Some(of) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chancery_proto::{
        describe::{json, types::Type},
        type_url,
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        model::service::{MadeCookie, Service},
        translate::{cluster, testing::service},
    };

    /// As Envoy reads it.
    fn shown(policy: Policy) -> Value {
        let load_balancing = LoadBalancing { policy, panic_threshold: Some(20), ..LoadBalancing::default() };
        let cluster = cluster::cluster(&Service { load_balancing, ..service("checkout") });
        let cluster =
            json::decode(Type::of_url(type_url::CLUSTER).unwrap(), &cluster::encode_cluster(cluster)).unwrap();
        assert_eq!(cluster["common_lb_config"]["healthy_panic_threshold"], json!({ "value": 20.0 }));
        cluster["load_balancing_policy"]["policies"][0]["typed_extension_config"].clone()
    }

    fn settings(policy: &str, mut fields: Value) -> Value {
        let (name, message) = policy.split_once(' ').unwrap();
        fields["@type"] =
            format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}.v3.{message}").into();
        json!({ "name": format!("envoy.load_balancing_policies.{name}"), "typed_config": fields })
    }

    #[test]
    fn a_policy_is_an_extension_and_the_default_is_not_written() {
        assert_eq!(shown(Policy::RoundRobin(None)), Value::Null);
        assert_eq!(shown(Policy::LeastRequest(None)), settings("least_request LeastRequest", json!({})));
        assert_eq!(shown(Policy::Random), settings("random Random", json!({})));
        let start = SlowStart { window: Duration::from_secs(30), min_weight_percent: Some(5) };
        let slow =
            json!({ "slow_start_config": { "slow_start_window": "30s", "min_weight_percent": { "value": 5.0 } } });
        assert_eq!(shown(Policy::RoundRobin(Some(start))), settings("round_robin RoundRobin", slow.clone()));
        assert_eq!(shown(Policy::LeastRequest(Some(start))), settings("least_request LeastRequest", slow));
    }

    #[test]
    fn every_part_of_a_request_can_be_hashed() {
        let key = |of| HashKey { of, terminal: false };
        let made = MadeCookie { ttl: Duration::from_secs(60), path: "/shop".into() };
        let keys = vec![
            HashKey { terminal: true, ..key(HashOf::Header("x-user".into())) },
            key(HashOf::Query("account".into())),
            key(HashOf::Cookie { name: "sid".into(), made: Some(made) }),
            key(HashOf::Cookie { name: "uid".into(), made: None }),
            key(HashOf::RemoteAddress),
        ];
        let hashing = Hashing { keys, balance_factor: Some(150) };
        let wanted = json!({ "consistent_hashing_lb_config": {
            "hash_balance_factor": 150,
            "hash_policy": [
                { "header": { "header_name": "x-user" }, "terminal": true },
                { "query_parameter": { "name": "account" } },
                { "cookie": { "name": "sid", "ttl": "60s", "path": "/shop" } },
                { "cookie": { "name": "uid" } },
                { "connection_properties": { "source_ip": true } },
            ],
        } });
        assert_eq!(shown(Policy::Maglev(hashing.clone())), settings("maglev Maglev", wanted.clone()));
        assert_eq!(shown(Policy::RingHash(hashing)), settings("ring_hash RingHash", wanted));
    }
}
