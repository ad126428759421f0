//! The laws of a catalog, against a plain map of resources and brute force.

use std::{collections::BTreeMap, time::Duration};

use proptest::{collection::vec, option, prelude::*, sample::subsequence};

use super::*;
use crate::model::{
    fleet::{OnFailure, RateLimiter},
    listener::{ListenerProtocol, RouteDelivery, Timeouts},
    rate_limit::{Algorithm, Enforcement, Hits, Limit, Mode, WhenRedisIsDown},
    route::{Action, Forward, ListenerRef, Match, Mirror, PathMatch, Respond, Rule, Target},
    service::{
        Address, Breaker, LoadBalancing, ServiceProtocol, ServiceTls,
        tls::{Authorities, ClientCertificate, Peer, ProxyId, TlsVersion, Verification},
    },
};

/// All resources, without a catalog.
type Plain = BTreeMap<Key, Resource>;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(in crate::model) fn entry(resource: Resource) -> Entry {
    let key = resource.key();
    let (kind, name) = (key.kind, key.name);
    let document = Document { kind, name, team: None, labels: BTreeMap::new(), spec: serde_json::Value::Null };
    Entry {
        document: Arc::new(document),
        resource,
        revision: 1,
        updated_at: OffsetDateTime::UNIX_EPOCH,
        updated_by: "someone".to_owned(),
    }
}

/// What belongs to a team.
pub(in crate::model) fn entry_of(team: &str, resource: Resource) -> Entry {
    let entry = entry(resource);
    let document = Document { team: Some(name(team)), ..entry.document.as_ref().clone() };
    Entry { document: Arc::new(document), ..entry }
}

pub(in crate::model) fn fleet(text: &str) -> Resource {
    Resource::Fleet(Arc::new(plain_fleet(text)))
}

fn plain_fleet(text: &str) -> Fleet {
    Fleet {
        name: name(text),
        default_timeout: Duration::from_secs(15),
        trusted_hops: 0,
        rate_limiter: None,
        rollout: None,
    }
}

pub(in crate::model) fn fleet_with_limiter(text: &str) -> Resource {
    let limiter = RateLimiter {
        addresses: vec![(Address::Dns("limiter".to_owned()), 8081)],
        timeout: Duration::from_millis(20),
        on_failure: OnFailure::Allow,
        insecure: false,
    };
    Resource::Fleet(Arc::new(Fleet { rate_limiter: Some(limiter), ..plain_fleet(text) }))
}

/// A patch with the rest of its spec as JSON.
pub(in crate::model) fn patch(text: &str, fleet: &str, spec: &str) -> Resource {
    let mut spec: serde_json::Value = serde_json::from_str(spec).unwrap();
    spec["fleet"] = fleet.into();
    let (kind, name) = (Kind::EnvoyPatch, name(text));
    let document = Document { kind, name, team: None, labels: BTreeMap::new(), spec };
    let mut problems = Problems::default();
    crate::model::parse(&document, &mut problems).unwrap_or_else(|| panic!("{:?}", problems.into_vec()))
}

pub(in crate::model) fn rate_limit(text: &str) -> Resource {
    Resource::RateLimit(Arc::new(plain_rate_limit(text)))
}

pub(in crate::model) fn quota(text: &str) -> Resource {
    Resource::RateLimit(Arc::new(RateLimit { enforcement: Enforcement::Quota, ..plain_rate_limit(text) }))
}

fn plain_rate_limit(text: &str) -> RateLimit {
    let (requests, per) = (1, Duration::from_secs(1));
    RateLimit {
        name: name(text),
        key: Vec::new(),
        limit: Limit { requests, per, burst: None, algorithm: Algorithm::TokenBucket },
        when_redis_is_down: WhenRedisIsDown::Local,
        mode: Mode::default(),
        hits: Hits::default(),
        denied_body: String::new(),
        enforcement: Enforcement::Service,
    }
}

pub(in crate::model) fn listener(text: &str, fleet: &str, address: &str, port: u16) -> Resource {
    Resource::Listener(Arc::new(Listener {
        name: name(text),
        fleet: name(fleet),
        address: address.parse().unwrap(),
        port,
        protocol: ListenerProtocol::Http,
        http3: false,
        proxy_protocol: false,
        route_delivery: RouteDelivery::PerHost,
        timeouts: Timeouts::default(),
        compression: None,
        clients: None,
        access: None,
        authorizer: None,
        access_logs: Vec::new(),
        tracing: None,
    }))
}

pub(in crate::model) fn service(text: &str) -> Resource {
    Resource::Service(Arc::new(Service {
        name: name(text),
        endpoints: Vec::new(),
        registered: false,
        protocol: ServiceProtocol::Http1,
        tls: None,
        proxy_protocol: None,
        connect_timeout: Duration::from_secs(5),
        load_balancing: LoadBalancing::default(),
        subsets: Default::default(),
        session_affinity: None,
        health_check: None,
        breaker: Breaker::default(),
        retry_budget: None,
        hedging: None,
        adaptive_concurrency: None,
        outlier_detection: None,
    }))
}

/// A service whose endpoints are proxies of this fleet.
pub(in crate::model) fn service_behind(text: &str, fleet: &str) -> Resource {
    let Resource::Service(plain) = service(text) else { unreachable!("a service") };
    let peers = vec![Peer::Proxy { fleet: name(fleet), id: ProxyId::Any }];
    let verification = Verification::Required { authorities: Authorities::Mesh, peers };
    let (client_certificate, min_version) = (Some(ClientCertificate::Mesh), TlsVersion::V1_2);
    let tls = ServiceTls { sni: None, verification, client_certificate, min_version };
    Resource::Service(Arc::new(Service { tls: Some(tls), ..(*plain).clone() }))
}

/// Rules by the path they match and the service they send to, `service+limit+limit` with limits, `service>copies` with a service
/// that gets copies; an empty service answers itself.
pub(in crate::model) fn route(text: &str, places: &[&str], hosts: &[&str], rules: &[(&str, &str)]) -> Resource {
    let place = |text: &&str| {
        let (fleet, listener) = text.split_once('/').unwrap();
        ListenerRef { fleet: name(fleet), listener: name(listener) }
    };
    let host = |text: &&str| match text.strip_prefix("*.") {
        _ if *text == "*" => HostPattern::Any,
        Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
        None => HostPattern::Exact((*text).to_owned()),
    };
    let rule = |(path, service): &(&str, &str)| Rule {
        matches: Match {
            path: PathMatch::Prefix((*path).to_owned()),
            methods: Vec::new(),
            headers: Vec::new(),
            query: Vec::new(),
            cookies: Vec::new(),
            grpc: false,
        },
        action: if service.is_empty() {
            Action::Respond(Respond { status: 200, body: String::new() })
        } else {
            let (service, limits) = service.split_once('+').unwrap_or((service, ""));
            let (service, mirror) = service.split_once('>').unwrap_or((service, ""));
            let to = vec![Target { service: name(service), subset: Default::default(), weight: 1 }];
            let mirror = (!mirror.is_empty()).then(|| Mirror { service: name(mirror), percent: 5 });
            let rate_limits = limits.split_terminator('+').map(name).collect();
            Action::Forward(Forward { mirror, rate_limits, ..Forward::to(to) })
        },
        authorization: None,
        request_headers: Default::default(),
        response_headers: Default::default(),
    };
    Resource::Route(Arc::new(Route {
        name: name(text),
        listeners: places.iter().map(place).collect(),
        hosts: hosts.iter().map(host).collect(),
        jwt_providers: Vec::new(),
        rules: rules.iter().map(rule).collect(),
        tcp: None,
    }))
}

const FLEETS: [&str; 2] = ["f0", "f1"];
const LISTENERS: [&str; 3] = ["l0", "l1", "l2"];
const SERVICES: [&str; 3] = ["s0", "s1", "s2"];
const LIMITS: [&str; 2] = ["q0", "q1"];
const ROUTES: [&str; 4] = ["r0", "r1", "r2", "r3"];
const HOSTS: [&str; 3] = ["*", "*.example.com", "a.example.com"];
const PATHS: [&str; 3] = ["/", "/a", "/b"];

/// Mostly where `consistent` has it, sometimes elsewhere.
fn places() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![
        4 => subsequence(vec!["f0/l0", "f0/l1", "f1/l2"], 1..=2),
        1 => subsequence(vec!["f1/l0", "f0/l1", "f0/l2"], 1..=2),
    ]
}

fn resource() -> impl Strategy<Value = Resource> {
    let addresses = prop::sample::select(vec!["0.0.0.0", "10.0.0.1", "10.0.0.2", "::", "::1"]);
    let rules = (
        subsequence(PATHS.to_vec(), 1..=2),
        vec(prop::sample::select(vec!["s0", "s1", "s2", "", "s0+q0", "s1+q1", "s0>s2"]), 2),
    );
    prop_oneof![
        1 => prop::sample::select(FLEETS.to_vec()).prop_map(fleet),
        1 => prop::sample::select(FLEETS.to_vec()).prop_map(fleet_with_limiter),
        1 => prop::sample::select(LIMITS.to_vec()).prop_map(rate_limit),
        2 => (prop::sample::select(LISTENERS.to_vec()), prop::sample::select(FLEETS.to_vec()), addresses, 80u16..83)
            .prop_map(|(name, fleet, address, port)| listener(name, fleet, address, port)),
        1 => prop::sample::select(SERVICES.to_vec()).prop_map(service),
        1 => (prop::sample::select(SERVICES.to_vec()), prop::sample::select(FLEETS.to_vec()))
            .prop_map(|(name, fleet)| service_behind(name, fleet)),
        4 => (prop::sample::select(ROUTES.to_vec()), places(), subsequence(HOSTS.to_vec(), 1..=2), rules).prop_map(
            |(name, places, hosts, (paths, services))| {
                let rules: Vec<_> = paths.into_iter().zip(services).collect();
                route(name, &places, &hosts, &rules)
            }
        ),
    ]
}

/// Changes as one commit has them, each key once.
fn batch() -> impl Strategy<Value = Vec<(Key, Option<Resource>)>> {
    vec((resource(), option::weighted(0.7, Just(()))), 1..5).prop_map(|changes| {
        let changes = changes.into_iter().map(|(resource, put)| (resource.key(), put.map(|()| resource)));
        changes.collect::<BTreeMap<_, _>>().into_iter().collect()
    })
}

fn consistent() -> Plain {
    let mut all = vec![listener("l0", "f0", "0.0.0.0", 80), listener("l1", "f0", "0.0.0.0", 81)];
    all.push(listener("l2", "f1", "0.0.0.0", 80));
    all.extend([fleet_with_limiter("f0"), fleet("f1")]);
    all.extend(SERVICES.map(service));
    all.extend(LIMITS.map(rate_limit));
    all.push(route("r0", &["f0/l0"], &["*"], &[("/", "s0"), ("/a", "s1+q0")]));
    all.into_iter().map(|resource| (resource.key(), resource)).collect()
}

fn load(plain: &Plain) -> Result<Catalog, Vec<Problem>> {
    Catalog::load(plain.values().cloned().map(entry))
}

fn routes(plain: &Plain) -> impl Iterator<Item = &Arc<Route>> {
    plain.values().filter_map(|resource| match resource {
        Resource::Route(route) => Some(route),
        _ => None,
    })
}

fn listeners(plain: &Plain) -> impl Iterator<Item = &Arc<Listener>> {
    plain.values().filter_map(|resource| match resource {
        Resource::Listener(listener) => Some(listener),
        _ => None,
    })
}

/// Every reference that leads nowhere: from, to.
fn dangling(plain: &Plain) -> Vec<(Key, Key)> {
    let mut references = Vec::new();
    for listener in listeners(plain) {
        references.push((Kind::Listener, &listener.name, Kind::Fleet, &listener.fleet));
    }
    for resource in plain.values() {
        if let Resource::Service(service) = resource
            && let Some(fleet) = service.behind()
        {
            references.push((Kind::Service, &service.name, Kind::Fleet, fleet));
        }
    }
    for route in routes(plain) {
        for place in &route.listeners {
            references.push((Kind::Route, &route.name, Kind::Listener, &place.listener));
        }
        for service in route.services() {
            references.push((Kind::Route, &route.name, Kind::Service, service));
        }
        for limit in route.rate_limits() {
            references.push((Kind::Route, &route.name, Kind::RateLimit, limit));
        }
    }
    let keys = references
        .into_iter()
        .map(|(kind, name, target, to)| (Key::new(kind, name.clone()), Key::new(target, to.clone())));
    keys.filter(|(_, to)| !plain.contains_key(to)).collect()
}

/// Every pair of resources that claim the same, every route that takes a listener for another fleet's, and every route
/// with limits on a fleet without a limiter.
fn clashes(plain: &Plain) -> Vec<(Key, Key)> {
    let mut clashes = Vec::new();
    for (a, b) in listeners(plain).flat_map(|a| listeners(plain).map(move |b| (a, b))) {
        let same_family = a.address.is_ipv4() == b.address.is_ipv4();
        let overlap =
            a.address == b.address || same_family && (a.address.is_unspecified() || b.address.is_unspecified());
        if a.name < b.name && a.fleet == b.fleet && a.port == b.port && overlap {
            clashes.push((Key::new(Kind::Listener, a.name.clone()), Key::new(Kind::Listener, b.name.clone())));
        }
    }
    for (a, b) in routes(plain).flat_map(|a| routes(plain).map(move |b| (a, b))) {
        let place = a.listeners.iter().any(|a| b.listeners.iter().any(|b| a.listener == b.listener));
        let host = a.hosts.iter().any(|host| b.hosts.contains(host));
        let rule = a.rules.iter().any(|a| b.rules.iter().any(|b| a.matches == b.matches));
        if a.name < b.name && place && host && rule {
            clashes.push((Key::new(Kind::Route, a.name.clone()), Key::new(Kind::Route, b.name.clone())));
        }
    }
    for (route, listener) in routes(plain).flat_map(|route| listeners(plain).map(move |listener| (route, listener))) {
        if route.listeners.iter().any(|place| place.listener == listener.name && place.fleet != listener.fleet) {
            clashes.push((Key::new(Kind::Route, route.name.clone()), Key::new(Kind::Listener, listener.name.clone())));
        }
    }
    for route in routes(plain).filter(|route| !route.rate_limits().is_empty()) {
        for place in &route.listeners {
            let fleet = Key::new(Kind::Fleet, place.fleet.clone());
            let without = |fleet: &Resource| matches!(fleet, Resource::Fleet(fleet) if fleet.rate_limiter.is_none());
            if plain.get(&fleet).is_some_and(without) {
                clashes.push((Key::new(Kind::Route, route.name.clone()), fleet));
            }
        }
    }
    clashes
}

/// Whether one of the problems is about one of the two and names the other.
fn says(problems: &[Problem], (a, b): &(Key, Key)) -> bool {
    let (a, b) = (a.to_string(), b.to_string());
    let about = |problem: &Problem, one: &str, other: &str| problem.resource == one && problem.reason.contains(other);
    problems.iter().any(|problem| about(problem, &a, &b) || about(problem, &b, &a))
}

/// Every query answers as brute force does.
fn assert_relations(catalog: &Catalog, plain: &Plain) {
    fn sorted<T: Ord + Clone>(items: impl Iterator<Item = T>) -> Vec<T> {
        items.collect::<BTreeSet<_>>().into_iter().collect()
    }
    for kind in Kind::ALL {
        let names: Vec<_> = plain.keys().filter(|key| key.kind == kind).map(|key| &key.name).collect();
        assert_eq!(catalog.len(kind), names.len());
        assert_eq!(catalog.entries(kind).map(|entry| entry.resource.name()).collect::<Vec<_>>(), names);
        for (index, name) in names.iter().enumerate() {
            let after: Vec<_> = catalog.entries_after(kind, name).map(|entry| entry.resource.name()).collect();
            assert_eq!(after, names[index + 1..]);
            assert_eq!(catalog.entry(&Key::new(kind, (*name).clone())).unwrap().resource.name(), *name);
        }
    }
    for fleet in FLEETS.map(name) {
        let of_fleet = listeners(plain).filter(|listener| listener.fleet == fleet).map(|listener| &listener.name);
        assert_eq!(catalog.listeners_of(&fleet).collect::<Vec<_>>(), sorted(of_fleet));
        let on_fleet = routes(plain).filter(|route| route.listeners.iter().any(|place| place.fleet == fleet));
        let calls = listeners(plain).filter(|listener| listener.fleet == fleet).flat_map(|listener| listener.calls());
        let services = sorted(on_fleet.flat_map(|route| route.services()).chain(calls.map(|call| call.service)));
        assert_eq!(catalog.services_of(&fleet).collect::<Vec<_>>(), services);
        let on_fleet = routes(plain).filter(|route| route.listeners.iter().any(|place| place.fleet == fleet));
        let limits = sorted(on_fleet.flat_map(|route| route.rate_limits()));
        assert_eq!(catalog.limits_of(&fleet).collect::<Vec<_>>(), limits);
        for limit in LIMITS.map(name) {
            assert_eq!(catalog.fleet_is_limited_by(&fleet, &limit), limits.contains(&&limit));
        }
        for service in SERVICES.map(name) {
            assert_eq!(catalog.fleet_uses(&fleet, &service), services.contains(&&service));
        }
    }
    for listener in LISTENERS.map(name) {
        let on = |route: &&Arc<Route>| route.listeners.iter().any(|place| place.listener == listener);
        let names = sorted(routes(plain).filter(on).map(|route| &route.name));
        assert_eq!(catalog.routes_on(&listener).collect::<Vec<_>>(), names);
        let hosts = sorted(routes(plain).filter(on).flat_map(|route| &route.hosts));
        assert_eq!(catalog.hosts_on(&listener).collect::<Vec<_>>(), hosts);
        for host in hosts {
            let claiming = routes(plain).filter(on).filter(|route| route.hosts.contains(host));
            let names = sorted(claiming.map(|route| &route.name));
            assert_eq!(catalog.routes_claiming(&listener, host).collect::<Vec<_>>(), names);
        }
    }
    for service in SERVICES.map(name) {
        let to = routes(plain).filter(|route| route.services().contains(&service)).map(|route| &route.name);
        assert_eq!(catalog.routes_to(&service).collect::<Vec<_>>(), sorted(to));
    }
    for limit in LIMITS.map(name) {
        let limited = routes(plain).filter(|route| route.rate_limits().contains(&limit)).map(|route| &route.name);
        assert_eq!(catalog.routes_limited_by(&limit).collect::<Vec<_>>(), sorted(limited));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn changes_in_a_row_lead_where_loading_leads(batches in vec(batch(), 1..12)) {
        let mut plain = consistent();
        let mut catalog = load(&plain).unwrap();
        for batch in batches {
            let mut wanted = plain.clone();
            for (key, resource) in &batch {
                match resource {
                    Some(resource) => wanted.insert(key.clone(), resource.clone()),
                    None => wanted.remove(key),
                };
            }
            let faults: Vec<_> = dangling(&wanted).into_iter().chain(clashes(&wanted)).collect();
            let changes = batch.into_iter().map(|(key, resource)| (key, resource.map(entry))).collect();
            match catalog.apply(changes) {
                Ok(next) => {
                    prop_assert!(faults.is_empty(), "accepted in spite of {faults:?}");
                    catalog = next;
                    plain = wanted;
                }
                Err(problems) => {
                    prop_assert!(!faults.is_empty(), "refused without a fault: {problems:?}");
                    for fault in &faults {
                        prop_assert!(says(&problems, fault), "{fault:?} is not among {problems:#?}");
                    }
                }
            }
            prop_assert_eq!(&catalog, &load(&plain).unwrap());
        }
        assert_relations(&catalog, &plain);
    }

    #[test]
    fn loading_finds_every_fault(resources in vec(resource(), 0..12)) {
        let plain: Plain = resources.into_iter().map(|resource| (resource.key(), resource)).collect();
        let faults: Vec<_> = dangling(&plain).into_iter().chain(clashes(&plain)).collect();
        match load(&plain) {
            Ok(catalog) => {
                prop_assert!(faults.is_empty(), "accepted in spite of {faults:?}");
                assert_relations(&catalog, &plain);
            }
            Err(problems) => {
                prop_assert!(!faults.is_empty(), "refused without a fault: {problems:?}");
                for fault in &faults {
                    prop_assert!(says(&problems, fault), "{fault:?} is not among {problems:#?}");
                }
            }
        }
    }
}

#[test]
fn a_catalog_keeps_what_it_was() {
    let before = load(&consistent()).unwrap();
    let copy = before.clone();
    let key = Key::new(Kind::Route, name("r0"));
    let after = before.apply(vec![(key.clone(), None)]).unwrap();
    assert_eq!(before, copy);
    assert!(before.route(&key.name).is_some() && after.route(&key.name).is_none());
    assert!(before.fleet_uses(&name("f0"), &name("s0")) && !after.fleet_uses(&name("f0"), &name("s0")));
}

#[test]
fn the_empty_catalog_is_empty() {
    let catalog = Catalog::empty();
    assert!(catalog.is_empty());
    assert_eq!(catalog.fleets().count(), 0);
    assert_eq!(catalog.apply(vec![(Key::new(Kind::Route, name("r0")), None)]), Ok(Catalog::empty()));
}
