//! `ClusterLoadAssignment`.

use std::collections::BTreeMap;

use chancery_proto::envoy::{
    core::HealthStatus,
    endpoint::{ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier},
};

use super::{Problem, Problems, value};
use crate::config::snapshot::{EndpointSpec, Target};

/// The endpoints of the most urgent priority that has any, without those that are draining. An address that is there twice has
/// both weights.
///
/// # Errors
/// Everything that is wrong.
pub fn endpoints(assignment: &ClusterLoadAssignment) -> Result<Vec<EndpointSpec>, Vec<Problem>> {
    let mut problems = Problems::default();
    let mut by_priority: BTreeMap<u32, BTreeMap<Target, (u32, bool)>> = BTreeMap::new();
    for (l, locality) in assignment.endpoints.iter().enumerate() {
        for (e, endpoint) in locality.lb_endpoints.iter().enumerate() {
            let path = format!("endpoints[{l}].lb_endpoints[{e}]");
            let Some(HostIdentifier::Endpoint(host)) = &endpoint.host_identifier else {
                problems.add(path, "names an endpoint that stands elsewhere");
                continue;
            };
            let address = value::target(&mut problems, &format!("{path}.endpoint.address"), host.address.as_ref());
            let drains = endpoint.health_status() == HealthStatus::Draining;
            let Some(address) = address.filter(|_| !drains) else { continue };
            let weight = endpoint.load_balancing_weight.as_ref().map_or(1, |weight| weight.value.max(1));
            let known = by_priority.entry(locality.priority).or_default().entry(address).or_default();
            *known = (known.0.saturating_add(weight), known.1 | is_healthy(endpoint));
        }
    }
    let first = by_priority.into_values().next().unwrap_or_default();
    problems.none_or(first.into_iter().map(|(at, (weight, healthy))| EndpointSpec { at, weight, healthy }).collect())
}

fn is_healthy(endpoint: &LbEndpoint) -> bool {
    !matches!(endpoint.health_status(), HealthStatus::Unhealthy | HealthStatus::Timeout)
}
