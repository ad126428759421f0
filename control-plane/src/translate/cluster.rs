//! A service as an Envoy `Cluster`.
//!
//! Envoy replaces a cluster whose message changed by a new one, with new connections and new health checks;
//! so what changes often must not be in here. Endpoints are not ([`endpoint`]), unless the
//! proxy resolves one of them: Envoy takes the endpoints of a DNS cluster only inline.
//!
//! What Envoy has no field for is in the metadata (`sidecar`), so that one service means the same at every proxy.
//!
//! Values that the language of the users does not have follow Envoy's advice for edge proxies, or
//! are explained where they stand.

mod health;
mod load_balancing;
mod sidecar;
mod socket;
mod tls;

use std::time::Duration;

use chancery_proto::{
    any,
    envoy::{
        cluster::{
            CircuitBreakers, Cluster, UpstreamConnectionOptions,
            circuit_breakers::{Thresholds, thresholds::RetryBudget as EnvoyRetryBudget},
            cluster::{ClusterDiscoveryType, CommonLbConfig, CustomClusterType, DiscoveryType, EdsClusterConfig},
        },
        core::{
            Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonHttpOptions, KeepaliveSettings,
            TcpKeepalive,
        },
        dns_cluster::DnsCluster,
        dns_lookup::DnsLookupFamily,
        http_options::{
            HttpProtocolOptions,
            http_protocol_options::{
                ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
            },
        },
        types::Percent,
    },
};

pub use self::sidecar::encode_cluster;
use super::{
    endpoint,
    value::{ads, duration, number},
};
use crate::model::service::{Breaker, RetryBudget, Service, ServiceProtocol};

/// Under this key Envoy looks for the HTTP options of a cluster.
pub(super) const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// What Envoy buffers for a connection before it stops reading (Envoy's advice for edges: 32 KiB).
const CONNECTION_BUFFER: u32 = 32 * 1024;

/// An idle connection is closed by us, not by the server in the moment we use it: below the 75 s
/// and 60 s that common servers and load balancers keep one. Envoy's default is an hour.
const IDLE_CONNECTION: Duration = Duration::from_secs(50);

/// A dead HTTP/2 connection carries every request into its timeout; a ping finds it.
const HTTP2_PING_EVERY: Duration = Duration::from_secs(30);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Weight and health changes within this time reach the workers together. Envoy's default of
/// 1 s would let a new weight take effect long after it was acknowledged.
const MERGE_WINDOW: Duration = Duration::from_millis(100);

/// The cluster of `service`.
pub fn cluster(service: &Service) -> Cluster {
    let mut cluster = Cluster {
        name: service.name.to_string(),
        connect_timeout: Some(duration(service.connect_timeout)),
        per_connection_buffer_limit_bytes: Some(number(CONNECTION_BUFFER)),
        load_balancing_policy: load_balancing::policy(service),
        typed_extension_protocol_options: std::iter::once((
            HTTP_OPTIONS.to_owned(),
            any::pack_typed(&http_options(service.protocol)),
        ))
        .collect(),
        circuit_breakers: circuit_breakers(&service.breaker, service.retry_budget.as_ref()),
        outlier_detection: service.outlier_detection.as_ref().map(health::outlier_detection),
        transport_socket: socket::transport_socket(service),
        health_checks: service.health_check.iter().map(|check| health::health_check(check, service)).collect(),
        // Whoever takes an endpoint out of a service wants no more requests there, healthy or not.
        ignore_health_on_host_removal: true,
        common_lb_config: Some(CommonLbConfig {
            healthy_panic_threshold: service
                .load_balancing
                .panic_threshold
                .map(|percent| Percent { value: percent.into() }),
            update_merge_window: Some(duration(MERGE_WINDOW)),
            // An endpoint that was never checked says nothing about how many are unhealthy.
            ignore_new_hosts_until_first_hc: service.health_check.is_some(),
            ..CommonLbConfig::default()
        }),
        metadata: sidecar::of_service(service),
        // Finds endpoints that vanished without closing (also HTTP/1.1 ones, which have no ping).
        upstream_connection_options: Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(TcpKeepalive {
                keepalive_time: Some(number(30)),
                keepalive_interval: Some(number(10)),
                keepalive_probes: Some(number(3)),
            }),
            ..UpstreamConnectionOptions::default()
        }),
        ..Cluster::default()
    };
    if endpoint::is_discovered(service) {
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into()));
        cluster.eds_cluster_config = Some(EdsClusterConfig { eds_config: Some(ads()), service_name: String::new() });
    } else {
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
            name: "envoy.cluster.dns".to_owned(),
            typed_config: Some(any::pack_typed(&dns())),
        }));
        cluster.load_assignment = Some(endpoint::load_assignment(service));
    }
    cluster
}

/// Every address of a name is an endpoint of its own ("strict DNS"), looked up again when its TTL is over.
///
/// `V4_PREFERRED` and not Envoy's default, which prefers IPv6: many networks hand out AAAA records
/// and do not route them. A name that has only IPv6 addresses works all the same.
pub(super) fn dns() -> DnsCluster {
    DnsCluster {
        respect_dns_ttl: true,
        // A TTL of zero would make the proxy ask without pause.
        dns_min_refresh_rate: Some(duration(Duration::from_secs(1))),
        dns_lookup_family: DnsLookupFamily::V4Preferred.into(),
        ..DnsCluster::default()
    }
}

/// What is spoken to the endpoints, whatever is agreed on in a handshake.
pub(super) fn http_options(protocol: ServiceProtocol) -> HttpProtocolOptions {
    let protocol = match protocol {
        ServiceProtocol::Http1 => ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()),
        ServiceProtocol::Http2 => ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions {
            initial_stream_window_size: Some(number(64 * 1024)),
            initial_connection_window_size: Some(number(1024 * 1024)),
            connection_keepalive: Some(KeepaliveSettings {
                interval: Some(duration(HTTP2_PING_EVERY)),
                timeout: Some(duration(HTTP2_PING_TIMEOUT)),
                ..KeepaliveSettings::default()
            }),
            ..Http2ProtocolOptions::default()
        }),
    };
    HttpProtocolOptions {
        common_http_protocol_options: Some(CommonHttpOptions {
            idle_timeout: Some(duration(IDLE_CONNECTION)),
            ..CommonHttpOptions::default()
        }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(protocol),
        })),
        ..HttpProtocolOptions::default()
    }
}

fn circuit_breakers(breaker: &Breaker, budget: Option<&RetryBudget>) -> Option<CircuitBreakers> {
    // The rest is of single endpoints, of which Envoy has no breakers.
    let Breaker { max_connections, max_requests, max_pending, max_retries, .. } = breaker;
    let thresholds = Thresholds {
        max_connections: max_connections.map(number),
        max_requests: max_requests.map(number),
        max_pending_requests: max_pending.map(number),
        max_retries: max_retries.map(number),
        retry_budget: budget.map(retry_budget),
        ..Thresholds::default()
    };
    (thresholds != Thresholds::default())
        .then(|| CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() })
}

/// There even if it is empty: Envoy then has a budget, with its defaults.
fn retry_budget(budget: &RetryBudget) -> EnvoyRetryBudget {
    // Envoy's own least number is of retries at a time, which no number per second is.
    let RetryBudget { percent, ttl, min_per_second: _ } = budget;
    EnvoyRetryBudget {
        budget_percent: percent.map(|percent| Percent { value: percent.into() }),
        budget_interval: ttl.map(duration),
        ..EnvoyRetryBudget::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::service::{Address, Endpoint, HealthCheck, LoadBalancing, OutlierDetection, Policy, Probe},
        translate::testing::{ip, service, snapshot, with_every_policy},
    };

    #[test]
    fn a_plain_service_is_discovered_over_ads() {
        insta::assert_snapshot!(snapshot(&cluster(&service("checkout"))));
    }

    #[test]
    fn http2_is_spoken_without_negotiation_and_pinged() {
        insta::assert_snapshot!(snapshot(&http_options(ServiceProtocol::Http2)));
    }

    #[test]
    fn every_setting_has_its_place() {
        let checkout = Service {
            protocol: ServiceProtocol::Http2,
            load_balancing: LoadBalancing { policy: Policy::LeastRequest(None), ..LoadBalancing::default() },
            connect_timeout: Duration::from_millis(250),
            health_check: Some(HealthCheck {
                probe: Probe::Http {
                    path: "/healthz".into(),
                    host: Some("internal.example.com".into()),
                    statuses: vec![200, 204],
                },
                interval: Duration::from_secs(5),
                timeout: Duration::from_secs(1),
                unhealthy_after: 3,
                healthy_after: 2,
            }),
            breaker: Breaker {
                max_connections: Some(10),
                max_requests: Some(1000),
                max_pending: Some(200),
                max_retries: Some(20),
                ..Breaker::default()
            },
            outlier_detection: Some(OutlierDetection {
                consecutive_5xx: Some(5),
                consecutive_gateway_failures: Some(4),
                interval: Some(Duration::from_secs(2)),
                eject_for: Some(Duration::from_secs(30)),
                max_ejected_percent: Some(40),
                failure_percent: Some(50),
                min_endpoints: Some(2),
                min_requests: Some(20),
            }),
            ..service("checkout")
        };
        insta::assert_snapshot!(snapshot(&cluster(&checkout)));
    }

    #[test]
    fn a_retry_budget_is_a_threshold_even_if_it_is_empty() {
        let thresholds = |service: &Service| cluster(service).circuit_breakers.map(|breakers| breakers.thresholds);
        let budget = |service: &Service| thresholds(service).unwrap()[0].retry_budget.unwrap();
        let full = with_every_policy("checkout");
        assert_eq!(budget(&full).budget_percent, Some(Percent { value: 30.0 }));
        assert_eq!(budget(&full).budget_interval, Some(duration(Duration::from_secs(5))));
        let empty = Service { retry_budget: Some(RetryBudget::default()), ..service("checkout") };
        assert_eq!(budget(&empty), EnvoyRetryBudget::default());
        assert_eq!(thresholds(&service("checkout")), None);
        let single = Breaker { consecutive_failures: Some(3), ..Breaker::default() };
        assert_eq!(thresholds(&Service { breaker: single, ..service("checkout") }), None);
    }

    #[test]
    fn a_name_to_resolve_makes_the_endpoints_inline() {
        let resolved = Endpoint { address: Address::Dns("checkout.internal".into()), ..ip("::1", 8080) };
        let checkout = Service { endpoints: vec![resolved, ip("10.0.0.1", 80)], ..service("checkout") };
        insta::assert_snapshot!(snapshot(&cluster(&checkout)));
        insta::assert_snapshot!(snapshot(&dns()));
    }

    #[test]
    fn endpoints_do_not_change_a_discovered_cluster() {
        let more = Service { endpoints: vec![ip("10.0.0.1", 80), ip("10.0.0.2", 80)], ..service("checkout") };
        assert_eq!(cluster(&service("checkout")), cluster(&more));
    }
}
