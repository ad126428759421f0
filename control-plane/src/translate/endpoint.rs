//! The endpoints of a service: its `ClusterLoadAssignment`.
//!
//! It is a resource of its own (EDS) and not part of the cluster, because a changed cluster is warmed as a
//! new one with new connections, while changed endpoints are applied in place. A service with an endpoint
//! that the proxy resolves cannot have that: DNS clusters take their endpoints only inline.
//!
//! Endpoints that registered themselves are encoded apart from the rest ([`registered`]) and once for all fleets: bytes of a
//! message that are appended to others of its type add to its lists (Protocol Buffers, "Last One Wins"), so the assignment of a
//! fleet is what the catalog says, then what is registered.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr};

use bytes::Bytes;
use chancery_proto::{
    Message,
    envoy::{
        core::HealthStatus,
        endpoint::{
            ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints,
            cluster_load_assignment::Policy, lb_endpoint::HostIdentifier,
        },
    },
};

use super::value::{number, socket_address};
use crate::model::{
    endpoint::{Health, RegisteredEndpoint},
    service::{Address, Endpoint, Service},
};

/// Whether the endpoints of `service` travel as a resource of their own.
pub fn is_discovered(service: &Service) -> bool {
    !service.uses_dns()
}

/// The endpoints of `service`, sorted, one locality for each priority.
///
/// A service without endpoints has a locality without endpoints: its requests are answered with 503,
/// where a missing resource would keep the cluster from getting ready.
///
/// Priorities are numbered anew without gaps, which other clients of xDS than Envoy refuse; only where endpoints register
/// themselves there may be gaps for them to fill.
pub fn load_assignment(service: &Service) -> ClusterLoadAssignment {
    let mut by_priority: BTreeMap<u32, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in &service.endpoints {
        by_priority.entry(endpoint.priority).or_default().push(endpoint);
    }
    if by_priority.is_empty() {
        by_priority.insert(0, Vec::new());
    }
    let locality = |(rank, (priority, mut endpoints)): (u32, (u32, Vec<&Endpoint>))| {
        endpoints.sort();
        let priority = if service.registered { priority } else { rank };
        of_priority(priority, endpoints.into_iter().map(lb_endpoint))
    };
    let factor = service.load_balancing.overprovisioning_factor.map(number);
    ClusterLoadAssignment {
        cluster_name: service.name.to_string(),
        endpoints: (0..).zip(by_priority).map(locality).collect(),
        policy: factor.map(|factor| Policy { overprovisioning_factor: Some(factor), ..Policy::default() }),
        ..ClusterLoadAssignment::default()
    }
}

fn of_priority(priority: u32, endpoints: impl Iterator<Item = LbEndpoint>) -> LocalityLbEndpoints {
    LocalityLbEndpoints { priority, lb_endpoints: endpoints.collect(), ..LocalityLbEndpoints::default() }
}

pub(super) fn lb_endpoint(endpoint: &Endpoint) -> LbEndpoint {
    let Endpoint { address, port, priority: _, weight } = endpoint;
    let host = match address {
        Address::Ip(ip) => ip.to_string(),
        Address::Dns(name) => name.clone(),
    };
    LbEndpoint {
        load_balancing_weight: Some(number(*weight)),
        host_identifier: Some(HostIdentifier::Endpoint(EnvoyEndpoint {
            address: Some(socket_address(host, *port)),
            ..EnvoyEndpoint::default()
        })),
        ..LbEndpoint::default()
    }
}

/// What endpoints that registered themselves add to an encoded assignment: nothing without any, otherwise one more locality for
/// each priority, sorted.
///
/// One address and port is one endpoint for Envoy, whoever registered it: of several, the one that is best off counts.
pub fn registered<'a>(endpoints: impl IntoIterator<Item = &'a RegisteredEndpoint>) -> Bytes {
    let mut distinct: BTreeMap<(IpAddr, u16), &RegisteredEndpoint> = BTreeMap::new();
    for endpoint in endpoints {
        let best = distinct.entry((endpoint.address, endpoint.port)).or_insert(endpoint);
        let rank = |one: &RegisteredEndpoint| (one.health, Reverse(one.priority), one.weight);
        if rank(best) < rank(endpoint) {
            *best = endpoint;
        }
    }
    if distinct.is_empty() {
        return Bytes::new();
    }
    let mut by_priority: BTreeMap<u32, Vec<&RegisteredEndpoint>> = BTreeMap::new();
    for endpoint in distinct.into_values() {
        by_priority.entry(endpoint.priority).or_default().push(endpoint);
    }
    let localities = by_priority
        .into_iter()
        .map(|(priority, endpoints)| of_priority(priority, endpoints.into_iter().map(registered_endpoint)));
    let addition = ClusterLoadAssignment { endpoints: localities.collect(), ..ClusterLoadAssignment::default() };
    addition.encode_to_vec().into()
}

fn registered_endpoint(endpoint: &RegisteredEndpoint) -> LbEndpoint {
    let RegisteredEndpoint { address, port, priority, weight, health } = endpoint;
    let health = match health {
        Health::Healthy => HealthStatus::Healthy,
        Health::Degraded => HealthStatus::Degraded,
        Health::Draining => HealthStatus::Draining,
        Health::Unhealthy => HealthStatus::Unhealthy,
    };
    let endpoint = Endpoint { address: Address::Ip(*address), port: *port, priority: *priority, weight: *weight };
    LbEndpoint { health_status: health.into(), ..lb_endpoint(&endpoint) }
}

#[cfg(test)]
mod tests {
    use chancery_proto::Message;

    use super::*;
    use crate::{
        model::service::LoadBalancing,
        translate::testing::{ip, service, snapshot},
    };

    #[test]
    fn endpoint_order_does_not_change_the_bytes() {
        let forth = Service { endpoints: vec![ip("10.0.0.1", 80), ip("10.0.0.2", 80)], ..service("checkout") };
        let back = Service { endpoints: vec![ip("10.0.0.2", 80), ip("10.0.0.1", 80)], ..service("checkout") };
        assert_eq!(load_assignment(&forth).encode_to_vec(), load_assignment(&back).encode_to_vec());
    }

    #[test]
    fn endpoints_carry_their_weights() {
        let endpoints = vec![Endpoint { weight: 3, ..ip("10.0.0.2", 8080) }, ip("::1", 80)];
        insta::assert_snapshot!(snapshot(&load_assignment(&Service { endpoints, ..service("checkout") })));
    }

    #[test]
    fn priorities_have_no_gaps_unless_somebody_may_fill_them() {
        let endpoints = vec![
            Endpoint { priority: 7, ..ip("10.0.0.3", 80) },
            Endpoint { priority: 2, ..ip("10.0.0.2", 80) },
            ip("10.0.0.1", 80),
        ];
        let balanced = LoadBalancing { overprovisioning_factor: Some(200), ..LoadBalancing::default() };
        let mut checkout = Service { endpoints, load_balancing: balanced, ..service("checkout") };
        let priorities = |service: &Service| {
            let localities = load_assignment(service).endpoints;
            localities.iter().map(|one| (one.priority, one.lb_endpoints.len())).collect::<Vec<_>>()
        };
        assert_eq!(priorities(&checkout), [(0, 1), (1, 1), (2, 1)]);
        assert_eq!(load_assignment(&checkout).policy.unwrap().overprovisioning_factor, Some(number(200)));
        checkout.registered = true;
        assert_eq!(priorities(&checkout), [(0, 1), (2, 1), (7, 1)]);
        let ones = [
            RegisteredEndpoint { priority: 3, ..at("10.0.0.4", Health::Healthy) },
            RegisteredEndpoint { priority: 1, ..at("10.0.0.5", Health::Healthy) },
            RegisteredEndpoint { priority: 1, ..at("10.0.0.4", Health::Healthy) },
        ];
        let added = ClusterLoadAssignment::decode(registered(&ones)).expect("an assignment");
        let added: Vec<_> = added.endpoints.iter().map(|one| (one.priority, one.lb_endpoints.len())).collect();
        assert_eq!(added, [(1, 2)], "the more urgent of two that are one");
    }

    fn at(address: &str, health: Health) -> RegisteredEndpoint {
        RegisteredEndpoint { address: address.parse().expect("an address"), port: 80, priority: 0, weight: 1, health }
    }

    #[test]
    fn what_is_registered_is_added_to_what_the_catalog_says() {
        let ones = [at("10.0.0.3", Health::Draining), at("10.0.0.2", Health::Healthy)];
        let base = load_assignment(&service("checkout")).encode_to_vec();
        let whole = [base.as_slice(), &registered(&ones)].concat();
        let whole = ClusterLoadAssignment::decode(whole.as_slice()).expect("an assignment");
        assert_eq!(whole.cluster_name, "checkout");
        assert_eq!(whole.endpoints[0], load_assignment(&service("checkout")).endpoints[0]);
        let healths: Vec<_> = whole.endpoints[1].lb_endpoints.iter().map(LbEndpoint::health_status).collect();
        assert_eq!(healths, [HealthStatus::Healthy, HealthStatus::Draining]);
        assert_eq!(registered(&ones), registered(ones.iter().rev()), "order does not change the bytes");
        assert_eq!(registered([]), Bytes::new());
    }

    #[test]
    fn an_address_registered_twice_is_one_endpoint_and_the_best_counts() {
        let twice = registered(&[at("10.0.0.2", Health::Healthy), at("10.0.0.2", Health::Unhealthy)]);
        assert_eq!(twice, registered(&[at("10.0.0.2", Health::Healthy)]));
    }

    #[test]
    fn a_service_without_endpoints_still_has_an_assignment() {
        let assignment = load_assignment(&Service { endpoints: vec![], ..service("checkout") });
        assert_eq!(assignment.cluster_name, "checkout");
        assert!(assignment.endpoints[0].lb_endpoints.is_empty());
    }
}
