//! What a service's spec means.

mod health;
mod load_balancing;
mod policy;
pub(super) mod subset;
pub(super) mod tls;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{host, text};
use crate::model::{
    Name,
    endpoint::RegisteredEndpoint,
    problem::{Problems, Quoted},
    service::{Address, Breaker, Endpoint, ProxyProtocol, Service, ServiceProtocol, Zone},
    wire::{EndpointSpec, ProxyProtocolSpec, ServiceProtocolSpec, ServiceSpec},
};

const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest name of a zone, in characters.
const MAX_ZONE: usize = 128;

const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(600);

pub(super) fn service(name: Name, spec: &ServiceSpec, problems: &mut Problems) -> Option<Service> {
    let ServiceSpec {
        endpoints,
        registered,
        protocol,
        tls,
        proxy_protocol,
        connect_timeout,
        load_balancing,
        subsets,
        default_subset,
        session_affinity: affinity,
        health_check: check,
        breaker,
        retry_budget: budget,
        hedging,
        adaptive_concurrency: adaptive,
        outlier_detection: outliers,
    } = spec;
    let registered = registered.unwrap_or(false);
    let endpoints = {
        let mut problems = problems.at("endpoints");
        if endpoints.is_none() && !registered {
            problems.report("is missing; only a service with registered: true does without");
        }
        let parsed = problems.each(endpoints.as_deref().unwrap_or_default(), endpoint);
        let known = parsed.as_deref().unwrap_or_default();
        distinct(known, &mut problems);
        if registered {
            resolved_by_nobody(known, &mut problems);
        }
        parsed
    };
    // What is wrong with endpoints is said already.
    let named = |all: &Vec<Endpoint>| {
        !registered && !all.is_empty() && all.iter().all(|one| matches!(one.address, Address::Dns(_)))
    };
    let named = endpoints.as_ref().is_none_or(named);
    let tls = tls.as_ref().map(|tls| self::tls::tls(tls, named, &mut problems.at("tls")));
    let connect_timeout = match connect_timeout {
        None => Some(DEFAULT_CONNECT_TIMEOUT),
        Some(timeout) => problems.at("connectTimeout").ok(text::duration(timeout, MAX_CONNECT_TIMEOUT)),
    };
    let load_balancing =
        self::load_balancing::load_balancing(load_balancing.as_ref(), &mut problems.at("loadBalancing"));
    let subsets = self::subset::subsets(subsets.as_deref().unwrap_or_default(), default_subset.as_ref(), problems);
    let affinity =
        affinity.as_ref().map(|spec| self::load_balancing::session_affinity(spec, &mut problems.at("sessionAffinity")));
    let protocol = match protocol {
        None | Some(ServiceProtocolSpec::Http1) => ServiceProtocol::Http1,
        Some(ServiceProtocolSpec::Http2) => ServiceProtocol::Http2,
    };
    let check = check.as_ref().map(|check| health::health_check(check, protocol, &mut problems.at("healthCheck")));
    let breaker = breaker.as_ref().map_or(Some(Breaker::default()), |breaker| {
        policy::breaker(breaker, budget.is_some(), &mut problems.at("breaker"))
    });
    let budget = budget.as_ref().map(|budget| policy::retry_budget(budget, &mut problems.at("retryBudget")));
    let hedging = hedging.as_ref().map(|hedging| policy::hedging(hedging, &mut problems.at("hedging")));
    let adaptive = adaptive
        .as_ref()
        .map(|adaptive| policy::adaptive_concurrency(adaptive, &mut problems.at("adaptiveConcurrency")));
    let outliers = outliers.as_ref().map(|spec| policy::outlier_detection(spec, &mut problems.at("outlierDetection")));
    Some(Service {
        name,
        endpoints: endpoints?,
        registered,
        protocol,
        tls: all(tls)?,
        proxy_protocol: proxy_protocol.map(|version| match version {
            ProxyProtocolSpec::V1 => ProxyProtocol::V1,
            ProxyProtocolSpec::V2 => ProxyProtocol::V2,
        }),
        connect_timeout: connect_timeout?,
        load_balancing: load_balancing?,
        subsets,
        session_affinity: all(affinity)?,
        health_check: all(check)?,
        breaker: breaker?,
        retry_budget: all(budget)?,
        hedging: all(hedging)?,
        adaptive_concurrency: adaptive,
        outlier_detection: all(outliers)?,
    })
}

/// `None` if something is given but bad.
pub(super) fn all<T>(given: Option<Option<T>>) -> Option<Option<T>> {
    match given {
        None => Some(None),
        Some(parsed) => parsed.map(Some),
    }
}

fn endpoint(spec: &EndpointSpec, problems: &mut Problems) -> Option<Endpoint> {
    let EndpointSpec { address, port, dns, priority, weight, labels, zone, region } = spec;
    let address = problems.at("address").ok(match dns {
        Some(true) => match address.parse::<IpAddr>() {
            Ok(_) => Err(format!("{} is an IP address; leave out dns: true", Quoted(address))),
            Err(_) => host::dns_name(address).map(Address::Dns),
        },
        None | Some(false) => ip_address(address).map(Address::Ip),
    });
    let (priority, weight) = (priority.unwrap_or(0), weight.unwrap_or(1));
    let zone = self::zone(zone.as_deref(), region.as_deref(), problems);
    let labels = labels.as_ref().map(|spec| subset::labels(spec, &mut problems.at("labels"))).unwrap_or_default();
    Some(Endpoint { address: address?, port: *port, priority, weight, labels, zone })
}

/// In which zone an endpoint is, if that is said.
pub(super) fn zone(zone: Option<&str>, region: Option<&str>, problems: &mut Problems) -> Option<Zone> {
    let mut read = |field: &str, text: Option<&str>| {
        let text = text?;
        if text.is_empty() || text.chars().count() > MAX_ZONE || text.contains(char::is_control) {
            problems.at(field).report(format!("must have 1 to {MAX_ZONE} printable characters"));
        }
        Some(text.to_owned())
    };
    match (read("zone", zone), read("region", region)) {
        (Some(zone), region) => Some(Zone { region: region.unwrap_or_default(), zone }),
        (None, Some(_)) => {
            problems.at("region").report("goes with zone only");
            None
        }
        (None, None) => None,
    }
}

pub(super) fn ip_address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text
        .parse()
        .map_err(|_| format!("{} is not an IP address; set dns: true to have the proxy resolve it", Quoted(text)))?;
    if !RegisteredEndpoint::is_one_machine(address) {
        return Err(format!("{address} is not the address of one machine"));
    }
    Ok(address)
}

fn distinct(endpoints: &[Endpoint], problems: &mut Problems) {
    let mut first = BTreeMap::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let earlier = *first.entry((&endpoint.address, endpoint.port)).or_insert(index);
        if earlier != index {
            problems.index(index).report(format!("is the same endpoint as [{earlier}]"));
        }
    }
}

/// Envoy takes what it is to resolve only as part of the cluster, and what registers itself only apart from it.
fn resolved_by_nobody(endpoints: &[Endpoint], problems: &mut Problems) {
    for (index, endpoint) in endpoints.iter().enumerate() {
        if matches!(endpoint.address, Address::Dns(_)) {
            problems.index(index).report("is resolved by the proxy, which does not go together with registered: true");
        }
    }
}
