//! The endpoints of a cluster, if they have nothing but what endpoints of a service have.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::super::message::{items, text};

/// The endpoints, and the share of its load that a priority is trusted to take, if the cluster says one.
pub(super) fn endpoints(cluster: &Value) -> Option<(Vec<Value>, Option<Value>)> {
    let dns = match text(cluster, "/type").unwrap_or("STATIC") {
        "STATIC" => false,
        "STRICT_DNS" => true,
        _ => return None,
    };
    let assignment = cluster.get("load_assignment")?;
    only(assignment, &["cluster_name", "endpoints", "policy"])?;
    let factor = match assignment.get("policy") {
        None => None,
        Some(policy) => {
            only(policy, &["overprovisioning_factor"])?;
            policy.get("overprovisioning_factor").cloned()
        }
    };
    let mut endpoints = Vec::new();
    for locality in items(assignment, "/endpoints") {
        only(locality, &["lb_endpoints", "priority", "locality"])?;
        let place = locality.get("locality");
        if let Some(place) = place {
            only(place, &["region", "zone"])?;
            // A region alone is no zone.
            text(place, "/zone").filter(|zone| !zone.is_empty())?;
        }
        for endpoint in items(locality, "/lb_endpoints") {
            only(endpoint, &["endpoint", "load_balancing_weight", "metadata"])?;
            only(&endpoint["endpoint"], &["address"])?;
            let socket = endpoint.pointer("/endpoint/address/socket_address")?;
            only(socket, &["address", "port_value"])?;
            let address = text(socket, "/address")?;
            endpoints.push(json!({
                "address": address,
                "port": socket["port_value"],
                "dns": (dns && address.parse::<IpAddr>().is_err()).then_some(true),
                "priority": locality["priority"],
                "weight": endpoint["load_balancing_weight"],
                "labels": labels(endpoint)?,
                "zone": place.map(|place| &place["zone"]),
                "region": place.map(|place| &place["region"]),
            }));
        }
    }
    Some((endpoints, factor))
}

/// What tells an endpoint apart from others; `None` if more is said of it.
fn labels(endpoint: &Value) -> Option<Value> {
    let Some(metadata) = endpoint.get("metadata") else { return Some(Value::Null) };
    only(metadata, &["filter_metadata"])?;
    only(&metadata["filter_metadata"], &["envoy.lb"])?;
    let labels = &metadata["filter_metadata"]["envoy.lb"];
    labels.as_object()?.values().all(Value::is_string).then(|| labels.clone())
}

/// Whether an object has no other fields than these.
fn only(value: &Value, known: &[&str]) -> Option<()> {
    value.as_object()?.keys().all(|name| known.contains(&name.as_str())).then_some(())
}
