//! How an endpoint is chosen, as one of Envoy's policies.
//!
//! What is hashed stands in the cluster and not in the routes, where Envoy has looked for it first: so a service says once what its
//! requests have in common, whoever sends there, and a rule that splits between services has each of them ask for its own.
//!
//! Envoy's default is not written. Everything else is an extension and not the enumeration beside it, which cannot say it all.

use std::collections::BTreeSet;

use chancery_proto::{
    any,
    envoy::{
        cluster::{LoadBalancingPolicy, load_balancing_policy::Policy as EnvoyPolicy},
        core::TypedExtensionConfig,
        lb_common::{
            ConsistentHashingLbConfig, LocalityLbConfig, SlowStartConfig,
            locality_lb_config::{LocalityConfigSpecifier, ZoneAwareLbConfig, zone_aware_lb_config::ForceLocalZone},
        },
        lb_least_request::LeastRequest,
        lb_maglev::Maglev,
        lb_random::Random,
        lb_ring_hash::RingHash,
        lb_round_robin::RoundRobin,
        lb_subset::{
            Subset,
            subset::{LbSubsetFallbackPolicy, LbSubsetSelector, lb_subset_selector::LbSubsetSelectorFallbackPolicy},
        },
        route::route_action::{
            HashPolicy,
            hash_policy::{ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter},
        },
        types::Percent,
    },
    google::protobuf::{Any, UInt64Value},
};
use prost::{Message as _, Name, encoding};

use crate::{
    model::service::{HashKey, HashOf, Hashing, LoadBalancing, Policy, Service, SlowStart, SubsetFallback, Subsets},
    translate::{
        metadata,
        value::{duration, number},
    },
};

/// The policy of `service`; none where Envoy's default says the same.
pub(super) fn policy(service: &Service) -> Option<LoadBalancingPolicy> {
    let Service { load_balancing, subsets, .. } = service;
    match (subsets.selectors.is_empty(), &load_balancing.policy) {
        (true, Policy::RoundRobin(None)) if load_balancing.zone_aware.is_none() => None,
        (true, _) => Some(among(load_balancing)),
        (false, _) => Some(in_subsets(subsets, among(load_balancing))),
    }
}

/// The policy within each subset. A request that wants none has any endpoint, whatever becomes of one that wants a subset without
/// endpoints.
fn in_subsets(subsets: &Subsets, policy: LoadBalancingPolicy) -> LoadBalancingPolicy {
    let Subsets { selectors, default } = subsets;
    let selector = |(names, fallback): (&BTreeSet<String>, &SubsetFallback)| LbSubsetSelector {
        keys: names.iter().cloned().collect(),
        fallback_policy: match fallback {
            SubsetFallback::None => LbSubsetSelectorFallbackPolicy::NoFallback,
            SubsetFallback::Any => LbSubsetSelectorFallbackPolicy::AnyEndpoint,
            SubsetFallback::Default => LbSubsetSelectorFallbackPolicy::DefaultSubset,
        }
        .into(),
        ..LbSubsetSelector::default()
    };
    let rest = Subset {
        fallback_policy: LbSubsetFallbackPolicy::AnyEndpoint.into(),
        subset_selectors: selectors.iter().map(selector).collect(),
        subset_lb_policy: Some(policy),
        ..Subset::default()
    };
    // All but the default, which is a map.
    let mut value = rest.encode_to_vec();
    if !default.is_empty() {
        encoding::bytes::encode(DEFAULT_SUBSET, &metadata::encode_struct(metadata::object(default)), &mut value);
    }
    extension("subset", Any { type_url: Subset::type_url(), value })
}

/// `envoy.extensions.load_balancing_policies.subset.v3.Subset.default_subset`.
const DEFAULT_SUBSET: u32 = 2;

fn among(load_balancing: &LoadBalancing) -> LoadBalancingPolicy {
    let locality_lb_config = load_balancing.zone_aware.map(near);
    let (name, settings) = match &load_balancing.policy {
        Policy::RoundRobin(start) => {
            let slow_start_config = start.as_ref().map(slow_start);
            let settings = RoundRobin { slow_start_config, locality_lb_config };
            ("round_robin", any::pack_typed(&settings))
        }
        Policy::LeastRequest(start) => {
            let slow_start_config = start.as_ref().map(slow_start);
            let settings = LeastRequest { slow_start_config, locality_lb_config, ..LeastRequest::default() };
            ("least_request", any::pack_typed(&settings))
        }
        Policy::Random => ("random", any::pack_typed(&Random { locality_lb_config })),
        Policy::RingHash(on) => {
            let settings = RingHash { consistent_hashing_lb_config: Some(hashing(on)), ..RingHash::default() };
            ("ring_hash", any::pack_typed(&settings))
        }
        Policy::Maglev(on) => {
            let settings = Maglev { consistent_hashing_lb_config: Some(hashing(on)), ..Maglev::default() };
            ("maglev", any::pack_typed(&settings))
        }
    };
    extension(name, settings)
}

fn extension(name: &str, settings: Any) -> LoadBalancingPolicy {
    let config =
        TypedExtensionConfig { name: format!("envoy.load_balancing_policies.{name}"), typed_config: Some(settings) };
    LoadBalancingPolicy { policies: vec![EnvoyPolicy { typed_extension_config: Some(config) }] }
}

/// All requests stay in the proxy's own zone while enough endpoints there are healthy, however many others there are elsewhere. Envoy by itself
/// would send there only as many as all proxies together have endpoints in it, and for that it would have to know all proxies.
fn near(min_endpoints: u32) -> LocalityLbConfig {
    let zones = ZoneAwareLbConfig {
        // That there are enough in the own zone is all that counts.
        min_cluster_size: Some(UInt64Value { value: 1 }),
        force_local_zone: Some(ForceLocalZone { min_size: Some(number(min_endpoints)) }),
        ..ZoneAwareLbConfig::default()
    };
    LocalityLbConfig { locality_config_specifier: Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zones)) }
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
        model::service::{Labels, MadeCookie},
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
    fn the_own_zone_is_preferred_where_the_service_says_so() {
        let zones =
            json!({ "zone_aware_lb_config": { "min_cluster_size": "1", "force_local_zone": { "min_size": 3 } } });
        for (policy, name) in [
            (Policy::RoundRobin(None), "round_robin RoundRobin"),
            (Policy::LeastRequest(None), "least_request LeastRequest"),
            (Policy::Random, "random Random"),
        ] {
            let load_balancing = LoadBalancing { policy, zone_aware: Some(3), ..LoadBalancing::default() };
            let cluster = cluster::cluster(&Service { load_balancing, ..service("checkout") });
            let shown =
                json::decode(Type::of_url(type_url::CLUSTER).unwrap(), &cluster::encode_cluster(cluster)).unwrap();
            let policy = &shown["load_balancing_policy"]["policies"][0]["typed_extension_config"];
            assert_eq!(policy, &settings(name, json!({ "locality_lb_config": zones })));
        }
    }

    #[test]
    fn a_subset_is_balanced_as_the_whole_is() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let selectors = [
            (names(&["version"]), SubsetFallback::None),
            (names(&["stage", "version"]), SubsetFallback::Any),
            (names(&["stage"]), SubsetFallback::Default),
        ];
        let default: Labels = (0..20).map(|one| (format!("label-{one}"), one.to_string())).collect();
        let subsets = Subsets { selectors: selectors.into(), default };
        let checkout = Service { subsets, ..service("checkout") };
        let bytes = || cluster::encode_cluster(cluster::cluster(&checkout));
        assert!((0..20).all(|_| bytes() == bytes()));
        let shown = json::decode(Type::of_url(type_url::CLUSTER).unwrap(), &bytes()).unwrap();
        let config = &shown["load_balancing_policy"]["policies"][0]["typed_extension_config"];
        assert_eq!(config["name"], "envoy.load_balancing_policies.subset");
        let config = &config["typed_config"];
        assert_eq!(
            config["subset_selectors"],
            json!([
                { "keys": ["stage"], "fallback_policy": "DEFAULT_SUBSET" },
                { "keys": ["stage", "version"], "fallback_policy": "ANY_ENDPOINT" },
                { "keys": ["version"], "fallback_policy": "NO_FALLBACK" },
            ])
        );
        assert_eq!(
            (&config["fallback_policy"], &config["default_subset"]["label-7"]),
            (&json!("ANY_ENDPOINT"), &json!("7"))
        );
        let within = &config["subset_lb_policy"]["policies"][0]["typed_extension_config"];
        assert_eq!(within, &settings("round_robin RoundRobin", json!({})));
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
