//! The endpoints of a service: its `ClusterLoadAssignment`.
//!
//! It is a resource of its own (EDS) and not part of the cluster, because a changed cluster is warmed as a
//! new one with new connections, while changed endpoints are applied in place. A service with an endpoint
//! that the proxy resolves cannot have that: DNS clusters take their endpoints only inline.
//!
//! Endpoints that registered themselves are encoded apart from the rest ([`registered`]) and once for all fleets: bytes of a
//! message that are appended to others of its type add to its lists (Protocol Buffers, "Last One Wins"), so the assignment of a
//! fleet is what the catalog says, then what is registered.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use bytes::Bytes;
use chancery_proto::{
    Message,
    envoy::{
        core::{HealthStatus, Locality},
        endpoint::{
            ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints,
            cluster_load_assignment::Policy, lb_endpoint::HostIdentifier,
        },
    },
};

use prost::encoding;

use super::{
    metadata,
    value::{number, socket_address},
};
use crate::model::{
    endpoint::{Health, RegisteredEndpoint},
    service::{Address, Endpoint, Service, Zone},
};

/// `envoy.config.endpoint.v3.ClusterLoadAssignment.endpoints`.
const ENDPOINTS: u32 = 2;

/// `envoy.config.endpoint.v3.LocalityLbEndpoints.lb_endpoints`.
const LB_ENDPOINTS: u32 = 2;

/// `envoy.config.endpoint.v3.LbEndpoint.metadata`.
const METADATA: u32 = 3;

/// Whether the endpoints of `service` travel as a resource of their own.
pub fn is_discovered(service: &Service) -> bool {
    !service.uses_dns()
}

/// The endpoints of `service`, sorted, one locality for each priority and zone.
///
/// A service without endpoints has a locality without endpoints: its requests are answered with 503,
/// where a missing resource would keep the cluster from getting ready.
///
/// Priorities are numbered anew without gaps, which other clients of xDS than Envoy refuse; only where endpoints register
/// themselves there may be gaps for them to fill.
pub fn load_assignment(service: &Service) -> ClusterLoadAssignment {
    let mut by_place: BTreeMap<(u32, Option<&Zone>), Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in &service.endpoints {
        by_place.entry((endpoint.priority, endpoint.zone.as_ref())).or_default().push(endpoint);
    }
    if by_place.is_empty() {
        by_place.insert((0, None), Vec::new());
    }
    let priorities: BTreeSet<u32> = by_place.keys().map(|(priority, _)| *priority).collect();
    let ranks: BTreeMap<u32, u32> = priorities.into_iter().zip(0..).collect();
    let locality = |((priority, zone), mut endpoints): ((u32, Option<&Zone>), Vec<&Endpoint>)| {
        endpoints.sort();
        let priority = if service.registered { priority } else { ranks[&priority] };
        at_place(priority, zone, endpoints.into_iter().map(lb_endpoint))
    };
    let factor = service.load_balancing.overprovisioning_factor.map(number);
    ClusterLoadAssignment {
        cluster_name: service.name.to_string(),
        endpoints: by_place.into_iter().map(locality).collect(),
        policy: factor.map(|factor| Policy { overprovisioning_factor: Some(factor), ..Policy::default() }),
        ..ClusterLoadAssignment::default()
    }
}

/// `assignment`, encoded; what is said of endpoints in maps is in order.
pub fn encode_assignment(mut assignment: ClusterLoadAssignment) -> Bytes {
    let localities = std::mem::take(&mut assignment.endpoints);
    let mut bytes = assignment.encode_to_vec();
    for mut locality in localities {
        let endpoints = std::mem::take(&mut locality.lb_endpoints);
        let mut of_locality = locality.encode_to_vec();
        for mut endpoint in endpoints {
            let labels = endpoint.metadata.take();
            let mut of_endpoint = endpoint.encode_to_vec();
            metadata::encode(METADATA, labels, &mut of_endpoint);
            encoding::bytes::encode(LB_ENDPOINTS, &of_endpoint, &mut of_locality);
        }
        encoding::bytes::encode(ENDPOINTS, &of_locality, &mut bytes);
    }
    bytes.into()
}

fn at_place(priority: u32, zone: Option<&Zone>, endpoints: impl Iterator<Item = LbEndpoint>) -> LocalityLbEndpoints {
    let locality =
        |Zone { region, zone }: &Zone| Locality { region: region.clone(), zone: zone.clone(), ..Locality::default() };
    LocalityLbEndpoints {
        locality: zone.map(locality),
        priority,
        lb_endpoints: endpoints.collect(),
        ..LocalityLbEndpoints::default()
    }
}

pub(super) fn lb_endpoint(endpoint: &Endpoint) -> LbEndpoint {
    let Endpoint { address, port, priority: _, weight, labels, zone: _ } = endpoint;
    let host = match address {
        Address::Ip(ip) => ip.to_string(),
        Address::Dns(name) => name.clone(),
    };
    LbEndpoint {
        metadata: metadata::of_labels(labels),
        load_balancing_weight: Some(number(*weight)),
        host_identifier: Some(HostIdentifier::Endpoint(EnvoyEndpoint {
            address: Some(socket_address(host, *port)),
            ..EnvoyEndpoint::default()
        })),
        ..LbEndpoint::default()
    }
}

/// What endpoints that registered themselves add to an encoded assignment: nothing without any, otherwise one more locality for
/// each priority and zone, sorted.
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
    let mut by_place: BTreeMap<(u32, Option<&Zone>), Vec<&RegisteredEndpoint>> = BTreeMap::new();
    for endpoint in distinct.into_values() {
        by_place.entry((endpoint.priority, endpoint.zone.as_ref())).or_default().push(endpoint);
    }
    let localities = by_place
        .into_iter()
        .map(|((priority, zone), endpoints)| at_place(priority, zone, endpoints.into_iter().map(registered_endpoint)));
    let addition = ClusterLoadAssignment { endpoints: localities.collect(), ..ClusterLoadAssignment::default() };
    encode_assignment(addition)
}

fn registered_endpoint(endpoint: &RegisteredEndpoint) -> LbEndpoint {
    let RegisteredEndpoint { address, port, priority, weight, labels, zone, health } = endpoint;
    let health = match health {
        Health::Healthy => HealthStatus::Healthy,
        Health::Degraded => HealthStatus::Degraded,
        Health::Draining => HealthStatus::Draining,
        Health::Unhealthy => HealthStatus::Unhealthy,
    };
    let (address, labels, zone) = (Address::Ip(*address), labels.clone(), zone.clone());
    let endpoint = Endpoint { address, port: *port, priority: *priority, weight: *weight, labels, zone };
    LbEndpoint { health_status: health.into(), ..lb_endpoint(&endpoint) }
}

#[cfg(test)]
mod tests {
    use chancery_proto::Message;

    use super::*;
    use crate::{
        model::service::{Labels, LoadBalancing},
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
        let labels = Labels::new();
        let address = address.parse().expect("an address");
        RegisteredEndpoint { address, port: 80, priority: 0, weight: 1, labels, zone: None, health }
    }

    #[test]
    fn labels_are_for_the_balancer_and_in_order() {
        let labels: Labels = (0..20).map(|one| (format!("label-{one}"), one.to_string())).collect();
        let checkout = Service {
            endpoints: vec![Endpoint { labels: labels.clone(), ..ip("10.0.0.1", 80) }],
            ..service("checkout")
        };
        let bytes = || encode_assignment(load_assignment(&checkout));
        assert!((0..20).all(|_| bytes() == bytes()));
        assert_eq!(ClusterLoadAssignment::decode(bytes()).unwrap(), load_assignment(&checkout));
        let added = RegisteredEndpoint { labels, ..at("10.0.0.1", Health::Unhealthy) };
        let added = ClusterLoadAssignment::decode(registered([&added])).unwrap();
        let of = |assignment: &ClusterLoadAssignment| assignment.endpoints[0].lb_endpoints[0].metadata.clone().unwrap();
        assert_eq!(of(&added), of(&load_assignment(&checkout)));
        assert_eq!(of(&added).filter_metadata["envoy.lb"].fields.len(), 20);
    }

    #[test]
    fn endpoints_of_a_zone_are_a_locality() {
        let zone = |zone: &str| Some(Zone { region: "eu-1".into(), zone: zone.into() });
        let endpoints = vec![
            Endpoint { zone: zone("b"), ..ip("10.0.0.1", 80) },
            ip("10.0.0.2", 80),
            Endpoint { zone: zone("a"), ..ip("10.0.0.3", 80) },
            Endpoint { zone: zone("a"), priority: 4, ..ip("10.0.0.4", 80) },
            Endpoint { zone: zone("b"), ..ip("10.0.0.5", 80) },
        ];
        let places = |assignment: ClusterLoadAssignment| {
            let of = |one: LocalityLbEndpoints| {
                let zone = one.locality.map(|Locality { region, zone, .. }| format!("{region}/{zone}"));
                (one.priority, zone.unwrap_or_default(), one.lb_endpoints.len())
            };
            assignment.endpoints.into_iter().map(of).collect::<Vec<_>>()
        };
        let place = |priority: u32, zone: &str, endpoints: usize| (priority, zone.to_owned(), endpoints);
        let checkout = Service { endpoints, ..service("checkout") };
        assert_eq!(
            places(load_assignment(&checkout)),
            [place(0, "", 1), place(0, "eu-1/a", 1), place(0, "eu-1/b", 2), place(1, "eu-1/a", 1)]
        );
        let ones = ["10.0.0.7", "10.0.0.6"].map(|ip| RegisteredEndpoint { zone: zone("a"), ..at(ip, Health::Healthy) });
        let added = registered(ones.iter().chain([&at("10.0.0.8", Health::Healthy)]));
        assert_eq!(places(ClusterLoadAssignment::decode(added).unwrap()), [place(0, "", 1), place(0, "eu-1/a", 2)]);
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
