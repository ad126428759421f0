//! Who of a service is well: by what it is asked, and by what it answers others.

use chancery_proto::envoy::{
    cluster::OutlierDetection as EnvoyOutlierDetection,
    core::{
        HealthCheck as EnvoyHealthCheck,
        health_check::{GrpcHealthCheck, HealthChecker, HttpHealthCheck, TcpHealthCheck},
    },
    types::{CodecClientType, Int64Range},
};

use crate::{
    model::service::{HealthCheck, OutlierDetection, Probe, Service, ServiceProtocol},
    translate::value::{duration, flag, number},
};

pub(super) fn outlier_detection(detection: &OutlierDetection) -> EnvoyOutlierDetection {
    let OutlierDetection {
        consecutive_5xx,
        consecutive_gateway_failures,
        interval,
        eject_for,
        max_ejected_percent,
        failure_percent,
        min_endpoints,
        min_requests,
    } = detection;
    EnvoyOutlierDetection {
        consecutive_5xx: consecutive_5xx.map(number),
        consecutive_gateway_failure: consecutive_gateway_failures.map(number),
        // Envoy counts gateway failures but ejects for none of them unless it is told to.
        enforcing_consecutive_gateway_failure: consecutive_gateway_failures.map(|_| number(100)),
        interval: interval.map(duration),
        base_ejection_time: eject_for.map(duration),
        max_ejection_percent: max_ejected_percent.map(number),
        // Otherwise Envoy's default of 10 % ejects nobody from a service with fewer than ten endpoints.
        always_eject_one_host: Some(flag(*max_ejected_percent != Some(0))),
        failure_percentage_threshold: failure_percent.map(number),
        // Nor does a share of failures eject unless it is told so.
        enforcing_failure_percentage: failure_percent.map(|_| number(100)),
        success_rate_minimum_hosts: min_endpoints.map(number),
        failure_percentage_minimum_hosts: min_endpoints.map(number),
        success_rate_request_volume: min_requests.map(number),
        failure_percentage_request_volume: min_requests.map(number),
        ..EnvoyOutlierDetection::default()
    }
}

pub(super) fn health_check(check: &HealthCheck, service: &Service) -> EnvoyHealthCheck {
    let HealthCheck { probe, interval, timeout, unhealthy_after, healthy_after } = check;
    EnvoyHealthCheck {
        interval: Some(duration(*interval)),
        timeout: Some(duration(*timeout)),
        unhealthy_threshold: Some(number(*unhealthy_after)),
        healthy_threshold: Some(number(*healthy_after)),
        // Envoy checks a service without traffic once a minute; the first request should find it known.
        no_traffic_interval: Some(duration(*interval)),
        // So that the proxies of a fleet do not all ask at once.
        interval_jitter_percent: 10,
        health_checker: Some(health_checker(probe, service)),
        ..EnvoyHealthCheck::default()
    }
}

fn health_checker(probe: &Probe, service: &Service) -> HealthChecker {
    match probe {
        Probe::Http { path, host, statuses } => HealthChecker::HttpHealthCheck(HttpHealthCheck {
            path: path.clone(),
            host: host.clone().unwrap_or_else(|| service.name.to_string()),
            expected_statuses: statuses.iter().copied().map(only).collect(),
            codec_client_type: match service.protocol {
                ServiceProtocol::Http1 => CodecClientType::Http1,
                ServiceProtocol::Http2 => CodecClientType::Http2,
            }
            .into(),
            ..HttpHealthCheck::default()
        }),
        Probe::Grpc { service: asked } => HealthChecker::GrpcHealthCheck(GrpcHealthCheck {
            service_name: asked.clone().unwrap_or_default(),
            authority: service.name.to_string(),
            ..GrpcHealthCheck::default()
        }),
        // With nothing to send and nothing to receive, a connection is enough.
        Probe::Tcp => HealthChecker::TcpHealthCheck(TcpHealthCheck::default()),
    }
}

/// The end of a range is not part of it.
fn only(status: u16) -> Int64Range {
    Int64Range { start: status.into(), end: i64::from(status) + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::testing::service;

    #[test]
    fn a_share_of_zero_ejects_nobody() {
        let never = outlier_detection(&OutlierDetection { max_ejected_percent: Some(0), ..Default::default() });
        assert_eq!(never.always_eject_one_host, Some(flag(false)));
    }

    #[test]
    fn a_share_of_failures_ejects_only_if_it_is_said() {
        let said = outlier_detection(&OutlierDetection { failure_percent: Some(50), ..Default::default() });
        assert_eq!(said.failure_percentage_threshold, Some(number(50)));
        assert_eq!(said.enforcing_failure_percentage, Some(number(100)));
        assert_eq!(outlier_detection(&OutlierDetection::default()).enforcing_failure_percentage, None);
    }

    #[test]
    fn each_probe_is_a_checker_of_its_own() {
        let checker = |probe| health_checker(&probe, &service("checkout"));
        let HealthChecker::GrpcHealthCheck(grpc) = checker(Probe::Grpc { service: Some("shop.v1.Checkout".into()) })
        else {
            panic!("another checker")
        };
        assert_eq!((grpc.service_name.as_str(), grpc.authority.as_str()), ("shop.v1.Checkout", "checkout"));
        assert_eq!(checker(Probe::Tcp), HealthChecker::TcpHealthCheck(TcpHealthCheck::default()));
        let probe = Probe::Http { path: "/".into(), host: None, statuses: vec![200, 599] };
        let HealthChecker::HttpHealthCheck(http) = checker(probe) else { panic!("another checker") };
        let ranges: Vec<_> = http.expected_statuses.iter().map(|range| (range.start, range.end)).collect();
        assert_eq!(ranges, [(200, 201), (599, 600)]);
    }
}
