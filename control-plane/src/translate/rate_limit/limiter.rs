//! The limiter of a fleet as its proxies see it: a cluster, and a filter on every listener that asks it.

use std::time::Duration;

use chancery_proto::{
    any,
    envoy::{
        cluster::{
            CircuitBreakers, Cluster, OutlierDetection,
            circuit_breakers::Thresholds,
            cluster::{ClusterDiscoveryType, CustomClusterType, DiscoveryType, LbPolicy},
        },
        core::{
            ApiVersion, BackoffStrategy, GrpcService, RetryPolicy,
            retry_policy::{RetryHostPredicate, retry_host_predicate},
        },
        endpoint::{ClusterLoadAssignment, LocalityLbEndpoints},
        hcm::{HttpFilter, http_filter},
        previous_hosts::PreviousHostsPredicate,
        rate_limit_filter::{RateLimit, rate_limit::XRateLimitHeadersRfcVersion},
        rate_limit_service::RateLimitServiceConfig,
        tls::{CommonTlsContext, UpstreamTlsContext},
        types::{HttpStatus, StatusCode},
    },
};

use crate::{
    model::{
        Name,
        fleet::{OnFailure, RateLimiter},
        service::{Address, Endpoint, Labels, ServiceProtocol, tls::TlsVersion},
    },
    translate::{
        cluster::{HTTP_OPTIONS, dns, http_options},
        endpoint::lb_endpoint,
        tls::{of_mesh, own_identity, since, socket, uri_like},
        value::{self, duration, number},
    },
};

pub use chancery_proto::chancery::RATE_LIMITER_CLUSTER as CLUSTER;

/// The name of the filter, by which routes refer to it.
pub(super) const FILTER: &str = "envoy.filters.http.ratelimit";

/// Who may answer as a limiter: what the CA has certified as one, whatever the trust domain is called.
const LIMITER_IDENTITY: &str = "spiffe://[^/]+/rate-limiter/[^/]+";

/// A replica that takes longer to connect to is no use to requests that wait milliseconds.
const CONNECT: Duration = Duration::from_secs(1);

/// Envoy's default of 1024 questions in flight is reached by a busy proxy whenever the limiter pauses for some
/// milliseconds, and every question above it is decided by the failure mode.
const QUESTIONS: u32 = 65_536;

/// A replica that failed so often in a row is left alone for as long as `EJECTED`, but never more than half of them.
const FAILURES: u32 = 5;
const EJECTED: Duration = Duration::from_secs(5);
const MOST_EJECTED_PERCENT: u32 = 50;

/// When another replica is asked: when the question has not reached one, as while replicas are started anew one after the other. One
/// that may have been counted is not asked again.
const ASK_ANOTHER_ON: &str = "connect-failure,refused-stream,reset-before-request";
const ASK_ANOTHER_TIMES: u32 = 2;
const ASK_ANOTHER_AFTER: Duration = Duration::from_millis(1);

/// How often to draw again when the one that failed is drawn: it has nothing to do, so it is drawn often.
const DRAWS: i64 = 32;

/// The cluster of `limiter`.
pub fn cluster(limiter: &RateLimiter) -> Cluster {
    let RateLimiter { addresses, timeout: _, on_failure: _, insecure } = limiter;
    let mut endpoints: Vec<Endpoint> = addresses
        .iter()
        .map(|(address, port)| Endpoint {
            address: address.clone(),
            port: *port,
            priority: 0,
            weight: 1,
            labels: Labels::new(),
            zone: None,
        })
        .collect();
    endpoints.sort();
    let resolved = endpoints.iter().any(|endpoint| matches!(endpoint.address, Address::Dns(_)));
    Cluster {
        name: CLUSTER.to_owned(),
        connect_timeout: Some(duration(CONNECT)),
        lb_policy: LbPolicy::LeastRequest.into(),
        cluster_discovery_type: Some(if resolved {
            ClusterDiscoveryType::ClusterType(CustomClusterType {
                name: "envoy.cluster.dns".to_owned(),
                typed_config: Some(any::pack_typed(&dns())),
            })
        } else {
            ClusterDiscoveryType::Type(DiscoveryType::Static.into())
        }),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: CLUSTER.to_owned(),
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: endpoints.iter().map(lb_endpoint).collect(),
                ..LocalityLbEndpoints::default()
            }],
            ..ClusterLoadAssignment::default()
        }),
        typed_extension_protocol_options: std::iter::once((
            HTTP_OPTIONS.to_owned(),
            any::pack_typed(&http_options(ServiceProtocol::Http2)),
        ))
        .collect(),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![Thresholds {
                max_requests: Some(number(QUESTIONS)),
                max_pending_requests: Some(number(QUESTIONS)),
                ..Thresholds::default()
            }],
            ..CircuitBreakers::default()
        }),
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: Some(number(FAILURES)),
            base_ejection_time: Some(duration(EJECTED)),
            max_ejection_time: Some(duration(EJECTED)),
            max_ejection_percent: Some(number(MOST_EJECTED_PERCENT)),
            ..OutlierDetection::default()
        }),
        transport_socket: (!insecure).then(|| socket(any::pack_typed(&tls_context()))),
        ignore_health_on_host_removal: true,
        ..Cluster::default()
    }
}

/// Both sides show certificates: the proxy its own, from the bootstrap, the limiter one that makes it a limiter.
pub(super) fn tls_context() -> UpstreamTlsContext {
    UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(since(TlsVersion::V1_2)),
            alpn_protocols: vec!["h2".to_owned()],
            tls_certificate_sds_secret_configs: vec![own_identity()],
            validation_context_type: Some(of_mesh(vec![uri_like(LIMITER_IDENTITY.to_owned())])),
            ..CommonTlsContext::default()
        }),
        ..UpstreamTlsContext::default()
    }
}

/// The filter on the listeners of `fleet`, whose limiter is `limiter`. It asks nothing about a route without limits.
pub(super) fn filter(fleet: &Name, limiter: &RateLimiter) -> HttpFilter {
    HttpFilter {
        name: FILTER.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any::pack_typed(&settings(fleet, limiter)))),
        ..HttpFilter::default()
    }
}

pub(super) fn settings(fleet: &Name, limiter: &RateLimiter) -> RateLimit {
    let RateLimiter { addresses: _, timeout, on_failure, insecure: _ } = limiter;
    RateLimit {
        domain: fleet.to_string(),
        timeout: Some(duration(*timeout)),
        failure_mode_deny: *on_failure == OnFailure::Deny,
        // Envoy's default of 500 says that the request was at fault, or the service.
        status_on_error: Some(HttpStatus { code: StatusCode::ServiceUnavailable.into() }),
        rate_limited_as_resource_exhausted: true,
        enable_x_ratelimit_headers: XRateLimitHeadersRfcVersion::DraftVersion03.into(),
        enable_retry_after_header: true,
        rate_limit_service: Some(RateLimitServiceConfig {
            grpc_service: Some(GrpcService { retry_policy: Some(ask_another(*timeout)), ..grpc_service() }),
            transport_api_version: ApiVersion::V3.into(),
        }),
        ..RateLimit::default()
    }
}

/// A question may be answered `within` this time, whichever replica is asked.
fn ask_another(within: Duration) -> RetryPolicy {
    let previous = RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any::pack_typed(
            &PreviousHostsPredicate::default(),
        ))),
    };
    RetryPolicy {
        retry_back_off: Some(BackoffStrategy {
            base_interval: Some(duration(ASK_ANOTHER_AFTER)),
            // Envoy takes this for the time of one try as well.
            max_interval: Some(duration(within)),
        }),
        num_retries: Some(number(ASK_ANOTHER_TIMES)),
        retry_on: ASK_ANOTHER_ON.to_owned(),
        retry_host_predicate: vec![previous],
        host_selection_retry_max_attempts: DRAWS,
        ..RetryPolicy::default()
    }
}

/// The limiter, as filters name it.
pub(super) fn grpc_service() -> GrpcService {
    value::grpc_service(CLUSTER)
}
