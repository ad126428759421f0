//! What a service's spec says of health checks.

use std::time::Duration;

use crate::model::{
    parse::{host, path, text},
    problem::Problems,
    service::{HealthCheck, Probe, ServiceProtocol},
    wire::{DurationText, GrpcHealthCheckSpec, HealthCheckSpec, StatusNumber},
};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
const DEFAULT_UNHEALTHY_AFTER: u32 = 3;
const DEFAULT_HEALTHY_AFTER: u32 = 2;

pub(super) fn health_check(
    spec: &HealthCheckSpec,
    protocol: ServiceProtocol,
    problems: &mut Problems,
) -> Option<HealthCheck> {
    let HealthCheckSpec { path, host, statuses, grpc, tcp, interval, timeout, unhealthy_after, healthy_after } = spec;
    for (field, given) in [("host", host.is_some()), ("statuses", statuses.is_some())] {
        if given && path.is_none() {
            problems.at(field).report("goes with path only");
        }
    }
    let mut probes: Vec<Option<Probe>> = Vec::new();
    if let Some(path) = path {
        probes.push(http(path, host.as_deref(), statuses.as_deref().unwrap_or_default(), problems));
    }
    if let Some(spec) = grpc {
        probes.push(self::grpc(spec, protocol, &mut problems.at("grpc")));
    }
    if let Some(flag) = tcp {
        probes.push(text::only_true(*flag, &mut problems.at("tcp")).map(|()| Probe::Tcp));
    }
    let probe = problems.only_one(probes, "path, grpc and tcp");
    let interval = or_default(interval.as_ref(), DEFAULT_INTERVAL, &mut problems.at("interval"));
    let timeout = or_default(timeout.as_ref(), DEFAULT_TIMEOUT, &mut problems.at("timeout"));
    Some(HealthCheck {
        probe: probe?,
        interval: interval?,
        timeout: timeout?,
        unhealthy_after: unhealthy_after.unwrap_or(DEFAULT_UNHEALTHY_AFTER),
        healthy_after: healthy_after.unwrap_or(DEFAULT_HEALTHY_AFTER),
    })
}

fn http(path: &str, host: Option<&str>, statuses: &[StatusNumber], problems: &mut Problems) -> Option<Probe> {
    let path = problems.at("path").ok(path::with_query(path));
    let host = super::all(host.map(|host| problems.at("host").ok(host::exact(host))));
    problems.at("statuses").each_once(statuses);
    let mut statuses: Vec<u16> = statuses.iter().map(|StatusNumber(status)| *status).collect();
    statuses.sort_unstable();
    Some(Probe::Http { path: path?, host: host?, statuses })
}

fn grpc(spec: &GrpcHealthCheckSpec, protocol: ServiceProtocol, problems: &mut Problems) -> Option<Probe> {
    let GrpcHealthCheckSpec { service } = spec;
    if protocol != ServiceProtocol::Http2 {
        problems.report("needs protocol: http2, over which gRPC is spoken");
    }
    let service = super::all(service.as_ref().map(|service| problems.at("service").ok(text::grpc_service(service))));
    Some(Probe::Grpc { service: service? })
}

fn or_default(given: Option<&DurationText>, default: Duration, problems: &mut Problems) -> Option<Duration> {
    match given {
        None => Some(default),
        Some(given) => problems.ok(text::duration(given, text::HOUR)),
    }
}
