//! The endpoints of a service: its `ClusterLoadAssignment`.
//!
//! It is a resource of its own (EDS) and not part of the cluster, because a changed cluster is warmed as a
//! new one with new connections, while changed endpoints are applied in place. A service with an endpoint
//! that the proxy resolves cannot have that: DNS clusters take their endpoints only inline.

use chancery_proto::envoy::endpoint::{
    ClusterLoadAssignment, Endpoint as EnvoyEndpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};

use super::value::{number, socket_address};
use crate::model::service::{Address, Endpoint, Service};

/// Whether the endpoints of `service` travel as a resource of their own.
pub fn is_discovered(service: &Service) -> bool {
    !service.uses_dns()
}

/// The endpoints of `service`, sorted, all in one locality.
///
/// A service without endpoints has a locality without endpoints: its requests are answered with 503,
/// where a missing resource would keep the cluster from getting ready.
pub fn load_assignment(service: &Service) -> ClusterLoadAssignment {
    let mut endpoints: Vec<&Endpoint> = service.endpoints.iter().collect();
    endpoints.sort();
    ClusterLoadAssignment {
        cluster_name: service.name.to_string(),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: endpoints.into_iter().map(lb_endpoint).collect(),
            ..LocalityLbEndpoints::default()
        }],
        ..ClusterLoadAssignment::default()
    }
}

pub(super) fn lb_endpoint(endpoint: &Endpoint) -> LbEndpoint {
    let Endpoint { address, port, weight } = endpoint;
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

#[cfg(test)]
mod tests {
    use chancery_proto::Message;

    use super::*;
    use crate::translate::testing::{ip, service, snapshot};

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
    fn a_service_without_endpoints_still_has_an_assignment() {
        let assignment = load_assignment(&Service { endpoints: vec![], ..service("checkout") });
        assert_eq!(assignment.cluster_name, "checkout");
        assert!(assignment.endpoints[0].lb_endpoints.is_empty());
    }
}
