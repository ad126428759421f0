//! How a cluster chooses an endpoint. What the older fields say is first put into the words of the newer ones, which ours are written in.

use serde_json::{Value, json};

use super::{
    super::message::{duration, items, text},
    whole,
};
use crate::import::draft;

/// Where the settings of the policy stand that is used.
const SETTINGS: &str = "/load_balancing_policy/policies/0/typed_extension_config/typed_config";

/// Where, in those of subsets, the settings of the policy within each.
const WITHIN: &str = "/subset_lb_policy/policies/0/typed_extension_config/typed_config";

const POLICIES: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies";

/// The policies that are chosen by an enumeration, with their settings: as messages.
const OLDER: [(&str, &str, &str, &str); 3] = [
    ("ROUND_ROBIN", "round_robin_lb_config", "round_robin", "RoundRobin"),
    ("LEAST_REQUEST", "least_request_lb_config", "least_request", "LeastRequest"),
    ("RANDOM", "", "random", "Random"),
];

/// `cluster` with the policy as a message.
pub(super) fn in_our_words(cluster: &Value) -> Value {
    let mut source = cluster.clone();
    let Some(fields) = source.as_object_mut() else { return source };
    let named = text(cluster, "/lb_policy").unwrap_or("ROUND_ROBIN");
    let Some((_, settings, name, message)) = OLDER.iter().find(|(of, ..)| *of == named) else { return source };
    if fields.contains_key("load_balancing_policy") {
        return source;
    }
    let settings = fields.remove(*settings);
    let is_default = named == "ROUND_ROBIN" && settings.is_none();
    let subsets = fields.remove("lb_subset_config");
    fields.remove("lb_policy");
    if is_default && subsets.is_none() {
        return source;
    }
    let mut config = settings.unwrap_or_else(|| json!({}));
    config["@type"] = format!("{POLICIES}.{name}.v3.{message}").into();
    let mut policy = extension(name, &config);
    if let Some(mut subsets) = subsets {
        subsets["@type"] = format!("{POLICIES}.subset.v3.Subset").into();
        subsets["subset_lb_policy"] = policy;
        policy = extension("subset", &subsets);
    }
    fields.insert("load_balancing_policy".to_owned(), policy);
    source
}

fn extension(name: &str, config: &Value) -> Value {
    let name = format!("envoy.load_balancing_policies.{name}");
    json!({ "policies": [{ "typed_extension_config": { "name": name, "typed_config": config } }] })
}

/// The last part of the type of a message.
fn message(settings: &Value) -> &str {
    text(settings, "/@type").and_then(|url| url.rsplit('.').next()).unwrap_or_default()
}

/// `loadBalancing` of the service; `factor` is what the endpoints say of their priorities.
pub(super) fn load_balancing(source: &Value, factor: Option<&Value>) -> Option<Value> {
    let settings = source.pointer(SETTINGS);
    let settings = settings.map(|settings| settings.pointer(WITHIN).unwrap_or(settings));
    let policy = settings.map(message).and_then(|name| match name {
        "RoundRobin" => Some("round-robin"),
        "LeastRequest" => Some("least-request"),
        "Random" => Some("random"),
        "RingHash" => Some("ring-hash"),
        "Maglev" => Some("maglev"),
        _ => None,
    });
    let of = |pointer: &str| settings.and_then(|settings| settings.pointer(pointer));
    let keys = of("/consistent_hashing_lb_config").map(|config| items(config, "/hash_policy")).unwrap_or_default();
    let keys: Vec<Value> = keys.iter().map(hash_key).collect();
    let start = of("/slow_start_config").map(|start| {
        json!({
            "window": duration(start, "/slow_start_window"),
            "minWeightPercent": whole(start.pointer("/min_weight_percent/value")),
        })
    });
    let zones = of("/locality_lb_config/zone_aware_lb_config/force_local_zone")
        .map(|zones| json!({ "minEndpoints": zones["min_size"] }));
    // A number that is not written is 0.
    let panic = source.pointer("/common_lb_config/healthy_panic_threshold");
    let panic = panic.and_then(|percent| whole(Some(percent.get("value").unwrap_or(&Value::from(0)))));
    let more = draft::given(json!({
        "hash": (!keys.is_empty()).then_some(keys),
        "hashBalanceFactor": of("/consistent_hashing_lb_config/hash_balance_factor"),
        "slowStart": start,
        "zoneAware": zones,
        "panicThreshold": panic,
        "overprovisioningFactor": factor,
    }));
    let Some(mut more) = more else { return policy.map(Value::from) };
    if let Some(policy) = policy {
        more["policy"] = policy.into();
    }
    Some(more)
}

fn hash_key(key: &Value) -> Value {
    let cookie = key
        .get("cookie")
        .map(|cookie| json!({ "name": cookie["name"], "ttl": duration(cookie, "/ttl"), "path": cookie["path"] }));
    json!({
        "header": key.pointer("/header/header_name"),
        "query": key.pointer("/query_parameter/name"),
        "cookie": cookie,
        "remoteAddress": key.pointer("/connection_properties/source_ip"),
        "terminal": key["terminal"],
    })
}

/// `subsets` and `defaultSubset` of the service.
pub(super) fn subsets(source: &Value) -> Option<(Vec<Value>, Option<Value>)> {
    let settings = source.pointer(SETTINGS).filter(|settings| message(settings) == "Subset")?;
    let subset = |selector: &Value| {
        let fallback = match text(selector, "/fallback_policy") {
            Some("ANY_ENDPOINT") => Some("any"),
            Some("DEFAULT_SUBSET") => Some("default"),
            _ => None,
        };
        json!({ "by": selector["keys"], "fallback": fallback })
    };
    let default = settings.get("default_subset").filter(|labels| labels.as_object().is_some_and(|map| !map.is_empty()));
    Some((items(settings, "/subset_selectors").iter().map(subset).collect(), default.cloned()))
}
