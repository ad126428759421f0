//! What fleets get: by example, and as a law over random edits.

use proptest::{collection, option, prelude::*, sample};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::*;
use crate::{
    model::{
        Document, Entry, Problems, Resource,
        access_log::{AccessLog, Filter, LogService, Sink},
        authorizer::{Authorizer, AuthorizerProtocol},
        fleet::OnFailure,
        listener::{ListenerProtocol, TlsFiles},
        rate_limit::{KeyPart, Limit, RateLimit},
        route::{Action, Forward, ListenerRef, Rule, Target},
        service::{Address, Endpoint, ServiceProtocol, SessionAffinity},
        tcp::Tcp,
    },
    translate::{
        constraints,
        testing::{fleet, http_listener, ip, name, prefix, rate_limit, respond, route as route_of, rule, service, to},
    },
};

/// Resources by key: what a catalog is made from.
type Resources = BTreeMap<Key, Resource>;

fn put(resources: &mut Resources, resource: Resource) {
    resources.insert(resource.key(), resource);
}

fn entry(resource: &Resource) -> Entry {
    let key = resource.key();
    let document =
        Document { kind: key.kind, name: key.name, team: None, labels: BTreeMap::new(), spec: serde_json::Value::Null };
    Entry {
        document: Arc::new(document),
        resource: resource.clone(),
        revision: 1,
        updated_at: OffsetDateTime::UNIX_EPOCH,
        updated_by: "test".into(),
    }
}

/// The catalog of `after`, made by changing `catalog`, which is that of `before`; and what was changed.
fn edit(catalog: &Catalog, before: &Resources, after: &Resources) -> (Catalog, Vec<Key>) {
    let keys: BTreeSet<&Key> = before.keys().chain(after.keys()).collect();
    let changed: Vec<Key> = keys.into_iter().filter(|key| before.get(key) != after.get(key)).cloned().collect();
    let changes = changed.iter().map(|key| (key.clone(), after.get(key).map(entry))).collect();
    (catalog.apply(changes).expect("a consistent catalog"), changed)
}

/// A shop: fleet `edge` with listener `web`, and two services, of which one is used.
fn shop() -> Resources {
    let mut resources = Resources::new();
    put(&mut resources, Resource::Fleet(Arc::new(fleet("edge"))));
    put(&mut resources, Resource::Listener(Arc::new(http_listener("web", "edge"))));
    put(&mut resources, Resource::Service(Arc::new(service("shop"))));
    put(&mut resources, Resource::Service(Arc::new(service("spare"))));
    let rules = vec![rule(prefix("/"), Action::Forward(to("shop")))];
    put(&mut resources, Resource::Route(Arc::new(route_of("shop", rules))));
    resources
}

fn authorizer(service: Name) -> Authorizer {
    Authorizer {
        service,
        protocol: AuthorizerProtocol::Http { path_prefix: String::new(), to_service: vec![], to_client: None },
        timeout: std::time::Duration::from_secs(1),
        on_failure: OnFailure::Deny,
        status_on_error: 403,
        body: None,
        headers: None,
    }
}

fn patch(name: &str, fleet: &str, spec: Value) -> Resource {
    let mut spec = spec;
    spec["fleet"] = fleet.into();
    let (kind, name) = (Kind::EnvoyPatch, name.parse().expect("a name"));
    let document = Document { kind, name, team: None, labels: BTreeMap::new(), spec };
    let mut problems = Problems::default();
    crate::model::parse(&document, &mut problems).unwrap_or_else(|| panic!("{:?}", problems.into_vec()))
}

fn loaded(resources: &Resources) -> Catalog {
    edit(&Catalog::empty(), &Resources::new(), resources).0
}

/// What an edit of the shop changes for `edge`: what is put, what is removed.
fn effect(change: impl FnOnce(&mut Resources)) -> (Vec<String>, Vec<String>) {
    let before = shop();
    let mut after = before.clone();
    change(&mut after);
    difference(&before, &after)
}

/// What lies between two catalogs for `edge`: what is put, what is removed.
fn difference(before: &Resources, after: &Resources) -> (Vec<String>, Vec<String>) {
    let catalog = loaded(before);
    let (next, changed) = edit(&catalog, before, after);
    let FleetChanges { put, removed, .. } =
        changes(&catalog, &next, &changed).remove(&name("edge")).unwrap_or_default();
    (put.keys().map(described).collect(), removed.iter().map(described).collect())
}

fn described(id: &ResourceId) -> String {
    format!("{} {}", type_url::short_name(id.type_url()), id.name())
}

#[test]
fn a_fleet_gets_its_listeners_routes_and_the_services_they_use() {
    let mut everything = full(&loaded(&shop()));
    assert_eq!(
        everything.remove(&name("edge")).unwrap().put.keys().map(described).collect::<Vec<_>>(),
        ["cluster shop", "endpoint shop", "listener web", "route web", "virtualHost web/shop.example.com"]
    );
    assert!(everything.is_empty(), "there is one fleet");
}

#[test]
fn whoever_a_listener_asks_comes_and_goes_with_the_question() {
    let mut asking = shop();
    let listener = Listener { authorizer: Some(authorizer(name("spare"))), ..http_listener("web", "edge") };
    put(&mut asking, Resource::Listener(Arc::new(listener)));
    let spare = || vec!["cluster spare".to_owned(), "endpoint spare".to_owned()];
    let web = "listener web".to_owned();
    assert_eq!(difference(&shop(), &asking), ([spare(), vec![web.clone()]].concat(), vec![]));
    assert_eq!(difference(&asking, &shop()), (vec![web], spare()));
    let mut grown = asking.clone();
    let endpoints = vec![ip("10.0.0.1", 80), ip("10.0.0.2", 80)];
    put(&mut grown, Resource::Service(Arc::new(Service { endpoints, ..service("spare") })));
    assert_eq!(difference(&asking, &grown), (vec!["endpoint spare".to_owned()], vec![]));
}

#[test]
fn a_listener_that_wants_its_routes_whole_gets_them_beside_those_by_host() {
    let mut whole = shop();
    let listener = Listener { route_delivery: RouteDelivery::Whole, ..http_listener("web", "edge") };
    put(&mut whole, Resource::Listener(Arc::new(listener)));
    let frame = || "route chancery.whole.web".to_owned();
    assert_eq!(difference(&shop(), &whole), (vec!["listener web".into(), frame()], vec![]));
    assert_eq!(difference(&whole, &shop()), (vec!["listener web".into()], vec![frame()]));
    let full = full(&loaded(&whole)).remove(&name("edge")).unwrap();
    assert!(constraints::refused(&loaded(&whole), &[(name("edge"), full)].into()).is_empty());
}

#[test]
fn a_patch_changes_its_target_alone_and_takes_its_change_along() {
    let target = json!({ "target": { "kind": "VirtualHost", "name": "web/shop.example.com" },
        "path": "routes[0]", "merge": { "response_headers_to_add": [{ "header": { "key": "x-patched", "value": "1" } }] } });
    let added = json!({ "resource": { "@type": type_url::SECRET, "name": "a.b", "generic_secret": { "secret": { "inline_string": "x" } } } });
    let mut patched = shop();
    put(&mut patched, patch("merged", "edge", target));
    put(&mut patched, patch("added", "edge", added));
    assert_eq!(
        difference(&shop(), &patched),
        (vec!["virtualHost web/shop.example.com".into(), "secret a.b".into()], vec![])
    );
    assert_eq!(
        difference(&patched, &shop()),
        (vec!["virtualHost web/shop.example.com".to_owned()], vec!["secret a.b".to_owned()])
    );
    let whole = full(&loaded(&patched)).remove(&name("edge")).unwrap();
    let id = ResourceId::VirtualHost(name("web"), HostPattern::Exact("shop.example.com".into()));
    let host = chancery_proto::envoy::route::VirtualHost::decode(whole.put[&id].clone()).unwrap();
    let header = host.routes[0].response_headers_to_add[0].header.clone().unwrap();
    assert_eq!((header.key.as_str(), whole.misfits), ("x-patched", vec![]));
}

#[test]
fn a_patch_takes_over_the_name_of_what_goes() {
    let (mut translated, mut added) = (shop(), shop());
    let listener = Listener { port: 10001, ..http_listener("l", "edge") };
    put(&mut translated, Resource::Listener(Arc::new(listener)));
    let routes = json!({ "resource": { "@type": type_url::ROUTE, "name": "l" } });
    put(&mut added, patch("added", "edge", routes));
    let one = |kind: &str| format!("{kind} l");
    let (put, removed) = difference(&translated, &added);
    assert_eq!((put, removed), (vec![one("route")], vec![one("listener"), one("route")]));
    let (put, removed) = difference(&added, &translated);
    assert_eq!((put, removed), (vec![one("listener"), one("route")], vec![one("route")]));
}

#[test]
fn a_patch_that_does_not_fit_is_told_and_its_target_stays() {
    let nowhere = json!({ "target": { "kind": "Listener", "name": "web" }, "path": "filter_chains[7]", "merge": { "name": "x" } });
    let mut patched = shop();
    put(&mut patched, patch("lost", "edge", nowhere));
    let whole = full(&loaded(&patched)).remove(&name("edge")).unwrap();
    let misfit = &whole.misfits[0];
    assert_eq!(misfit.patch, name("lost"));
    assert_eq!(misfit.violation.to_string(), "filter_chains[7]: does not exist: the list has 1 entries");
    assert_eq!(whole.put, full(&loaded(&shop())).remove(&name("edge")).unwrap().put);
    // An edit that leaves the bytes as they were says so too.
    let before = loaded(&shop());
    let (after, changed) = edit(&before, &shop(), &patched);
    let told = changes(&before, &after, &changed).remove(&name("edge")).unwrap();
    assert_eq!((told.misfits.len(), told.put.len()), (1, 0));
}

#[test]
fn patches_of_one_target_are_merged_by_name() {
    let patched = |order: &[&str]| {
        let mut resources = shop();
        for name in order {
            let merge = json!({ "target": { "kind": "Cluster", "name": "shop" }, "merge": { "alt_stat_name": name, "metadata": { "filter_metadata": { (*name): {} } } } });
            put(&mut resources, patch(name, "edge", merge));
        }
        full(&loaded(&resources)).remove(&name("edge")).unwrap().put
    };
    assert_eq!(patched(&["a", "b", "c"]), patched(&["c", "a", "b"]));
    let bytes = patched(&["a", "b", "c"])[&ResourceId::Cluster(name("shop"))].clone();
    assert_eq!(chancery_proto::envoy::cluster::Cluster::decode(bytes).unwrap().alt_stat_name, "c");
}

#[test]
fn new_endpoints_change_the_endpoints_alone() {
    let (put, removed) = effect(|resources| {
        let moved = Service { endpoints: vec![ip("10.9.9.9", 80)], ..service("shop") };
        self::put(resources, Resource::Service(Arc::new(moved)));
    });
    assert_eq!((put, removed), (vec!["endpoint shop".to_owned()], vec![]));
}

#[test]
fn another_target_brings_its_service_and_drops_the_old_one() {
    let (put, removed) = effect(|resources| {
        let rules = vec![rule(prefix("/"), Action::Forward(to("spare")))];
        self::put(resources, Resource::Route(Arc::new(route_of("shop", rules))));
    });
    assert_eq!(put, ["cluster spare", "endpoint spare", "virtualHost web/shop.example.com"]);
    assert_eq!(removed, ["cluster shop", "endpoint shop"]);
}

#[test]
fn a_service_that_nobody_uses_changes_nothing() {
    let (put, removed) = effect(|resources| {
        let slow = Service { endpoints: vec![ip("10.9.9.9", 80)], ..service("spare") };
        self::put(resources, Resource::Service(Arc::new(slow)));
    });
    assert_eq!((put, removed), (vec![], vec![]));
}

/// As the shop, with a limiter and a limit on its one rule.
fn limited_shop(limit: RateLimit) -> Resources {
    let mut resources = shop();
    let limiter = RateLimiter {
        addresses: vec![(Address::Dns("limiter".into()), 8081)],
        timeout: std::time::Duration::from_millis(20),
        on_failure: OnFailure::Allow,
        insecure: false,
    };
    put(&mut resources, Resource::Fleet(Arc::new(Fleet { rate_limiter: Some(limiter), ..fleet("edge") })));
    let forward = Forward { rate_limits: vec![limit.name.clone()], ..to("shop") };
    put(&mut resources, Resource::RateLimit(Arc::new(limit)));
    let rules = vec![rule(prefix("/"), Action::Forward(forward))];
    put(&mut resources, Resource::Route(Arc::new(route_of("shop", rules))));
    resources
}

#[test]
fn the_first_limit_of_a_fleet_touches_no_listener() {
    let mut before = limited_shop(rate_limit("all"));
    before.remove(&Key::new(Kind::RateLimit, name("all")));
    let rules = vec![rule(prefix("/"), Action::Forward(to("shop")))];
    put(&mut before, Resource::Route(Arc::new(route_of("shop", rules))));
    let (put, removed) = difference(&before, &limited_shop(rate_limit("all")));
    assert_eq!((put, removed), (vec!["virtualHost web/shop.example.com".to_owned()], vec![]));
}

#[test]
fn how_much_is_admitted_is_no_business_of_the_proxies() {
    let limit = rate_limit("all");
    let more = RateLimit { limit: Limit { requests: 99, ..limit.limit }, ..rate_limit("all") };
    assert_eq!(difference(&limited_shop(rate_limit("all")), &limited_shop(more)), (vec![], vec![]));
    let by_address = RateLimit { key: vec![KeyPart::RemoteAddress], ..rate_limit("all") };
    let (put, removed) = difference(&limited_shop(rate_limit("all")), &limited_shop(by_address));
    assert_eq!((put, removed), (vec!["virtualHost web/shop.example.com".to_owned()], vec![]));
}

#[test]
fn the_limiter_of_a_fleet_comes_before_what_asks_it() {
    let (put, removed) = difference(&shop(), &limited_shop(rate_limit("all")));
    assert_eq!(put, ["cluster chancery.rate-limiter", "listener web", "virtualHost web/shop.example.com"]);
    assert_eq!(removed, Vec::<String>::new());
    assert_eq!(difference(&limited_shop(rate_limit("all")), &shop()).1, ["cluster chancery.rate-limiter"]);
}

#[test]
fn the_last_route_takes_hosts_and_services_with_it() {
    let (put, removed) = effect(|resources| {
        resources.remove(&Key::new(Kind::Route, name("shop")));
    });
    assert!(put.is_empty(), "{put:?}");
    assert_eq!(removed, ["cluster shop", "endpoint shop", "virtualHost web/shop.example.com"]);
}

#[test]
fn a_name_to_resolve_moves_endpoints_into_the_cluster() {
    let (put, removed) = effect(|resources| {
        let resolved = Endpoint { address: Address::Dns("shop.internal".into()), ..ip("::1", 80) };
        let shop = Service { endpoints: vec![resolved], ..service("shop") };
        self::put(resources, Resource::Service(Arc::new(shop)));
    });
    assert_eq!((put, removed), (vec!["cluster shop".to_owned()], vec!["endpoint shop".to_owned()]));
}

#[test]
fn how_a_service_keeps_sessions_stands_in_the_rules_that_send_there() {
    let (put, removed) = effect(|resources| {
        let affinity = SessionAffinity::Cookie { name: "sid".into(), ttl: None, path: "/".into() };
        let shop = Service { session_affinity: Some(affinity), ..service("shop") };
        self::put(resources, Resource::Service(Arc::new(shop)));
    });
    assert_eq!((put, removed), (vec!["virtualHost web/shop.example.com".to_owned()], Vec::new()));
}

/// One edit of a random catalog; what does not exist is left out of it.
#[derive(Clone, Debug)]
enum Edit {
    Fleet { number: usize, timeout: u64, hops: u32 },
    Listener { number: usize, fleet: usize, port: u16, carries: bool, asks: Option<usize>, logs_to: Option<usize> },
    Service { number: usize, weight: u32, resolved: bool, sticky: bool },
    Route { number: usize, listeners: Vec<usize>, hosts: Vec<HostPattern>, rules: Vec<Vec<usize>> },
    Patch { number: usize, fleet: usize, on: usize, what: usize },
    Delete { kind: Kind, number: usize },
}

const FLEETS: usize = 2;
const LISTENERS: usize = 3;
const SERVICES: usize = 4;
const ROUTES: usize = 4;

fn any_edit() -> impl Strategy<Value = Edit> {
    let hosts = vec![
        HostPattern::Any,
        HostPattern::Suffix("example.com".into()),
        HostPattern::Exact("a.example.com".into()),
        HostPattern::Exact("b.example.com".into()),
    ];
    prop_oneof![
        1 => (0..FLEETS, 1..3_u64, 0..2_u32)
            .prop_map(|(number, timeout, hops)| Edit::Fleet { number, timeout, hops }),
        2 => (0..LISTENERS, 0..FLEETS, 1..3_u16, any::<bool>(), option::of(0..SERVICES), option::of(0..SERVICES))
            .prop_map(|(number, fleet, port, carries, asks, logs_to)| {
                Edit::Listener { number, fleet, port, carries, asks, logs_to }
            }),
        3 => (0..SERVICES, 1..4_u32, any::<bool>(), any::<bool>())
            .prop_map(|(number, weight, resolved, sticky)| Edit::Service { number, weight, resolved, sticky }),
        6 => (
            0..ROUTES,
            sample::subsequence((0..LISTENERS).collect::<Vec<_>>(), 1..=2),
            sample::subsequence(hosts, 1..=3),
            collection::vec(sample::subsequence((0..SERVICES).collect::<Vec<_>>(), 0..=2), 1..3),
        )
            .prop_map(|(number, listeners, hosts, rules)| Edit::Route { number, listeners, hosts, rules }),
        3 => (0..4_usize, 0..FLEETS, 0..LISTENERS, 0..6_usize)
            .prop_map(|(number, fleet, on, what)| Edit::Patch { number, fleet, on, what }),
        2 => (sample::select(Kind::ALL.to_vec()), 0..4_usize)
            .prop_map(|(kind, number)| Edit::Delete { kind, number }),
    ]
}

fn numbered(kind: Kind, number: usize) -> Name {
    name(&format!("{}-{number}", kind.as_str().to_lowercase()))
}

fn make(edit: Edit, resources: &mut Resources) {
    match edit {
        Edit::Fleet { number, timeout, hops } => {
            let fleet = Fleet {
                name: numbered(Kind::Fleet, number),
                default_timeout: std::time::Duration::from_secs(timeout),
                trusted_hops: hops,
                rate_limiter: None,
                rollout: None,
            };
            put(resources, Resource::Fleet(Arc::new(fleet)));
        }
        Edit::Listener { number, fleet, port, carries, asks, logs_to } => {
            let (fleet, own) = (numbered(Kind::Fleet, fleet), numbered(Kind::Listener, number));
            let port = port * 100 + u16::try_from(number).expect("a small number");
            let route_delivery = if port % 200 < 100 { RouteDelivery::Whole } else { RouteDelivery::PerHost };
            let files = TlsFiles { certificate_file: "/a.crt".into(), private_key_file: "/a.key".into() };
            let (protocol, http3) = match (carries, port % 3) {
                (true, _) => (ListenerProtocol::TlsPassthrough, false),
                (false, 0) => (ListenerProtocol::Http, false),
                (false, other) => (ListenerProtocol::Https(files), other == 1),
            };
            let authorizer = asks.filter(|_| !carries).map(|service| authorizer(numbered(Kind::Service, service)));
            let logs_to = logs_to.filter(|_| !carries);
            let access_logs = logs_to.map(|service| log_to(&numbered(Kind::Service, service))).into_iter().collect();
            let other = http_listener(own.as_str(), fleet.as_str());
            let listener = Listener { port, route_delivery, protocol, http3, authorizer, access_logs, ..other };
            put(resources, Resource::Listener(Arc::new(listener)));
        }
        Edit::Service { number, weight, resolved, sticky } => {
            let address = Address::Dns("example.com".into());
            let endpoint = if resolved {
                Endpoint { address, weight, ..ip("::1", 80) }
            } else {
                Endpoint { weight, ..ip("::1", 80) }
            };
            let session_affinity = sticky.then(|| SessionAffinity::Header("x-session".into()));
            let plain = service(numbered(Kind::Service, number).as_str());
            let protocol = ServiceProtocol::Http2;
            let service = Service { endpoints: vec![endpoint], session_affinity, protocol, ..plain };
            put(resources, Resource::Service(Arc::new(service)));
        }
        Edit::Route { number, listeners, hosts, rules } => {
            let name = numbered(Kind::Route, number);
            let listeners = listeners.into_iter().map(|listener| ListenerRef {
                // `mend` knows the fleet.
                fleet: numbered(Kind::Fleet, 0),
                listener: numbered(Kind::Listener, listener),
            });
            // The route's number in the path keeps routes from claiming the same.
            let rules = rules.into_iter().enumerate().map(|(index, services)| {
                let to = services.into_iter().map(|service| Target {
                    service: numbered(Kind::Service, service),
                    subset: Default::default(),
                    weight: 1,
                });
                let action = Action::Forward(Forward { to: to.collect(), ..self::to("none") });
                rule(prefix(&format!("/{number}/{index}")), action)
            });
            let route = Route {
                name,
                listeners: listeners.collect(),
                hosts,
                jwt_providers: Vec::new(),
                rules: rules.collect(),
                tcp: None,
            };
            put(resources, Resource::Route(Arc::new(route)));
        }
        Edit::Patch { number, fleet, on, what } => {
            let fleet = numbered(Kind::Fleet, fleet);
            let (listener, service) = (numbered(Kind::Listener, on), numbered(Kind::Service, on));
            // The number is part of what is added, or two patches would add the same.
            let added = |type_url: &str, more: Value| {
                let mut resource = more;
                resource["@type"] = type_url.into();
                resource["name"] = format!("added-{number}").into();
                json!({ "resource": resource })
            };
            let merge = |kind: &str, name: String, patch: Value| json!({ "target": { "kind": kind, "name": name }, "merge": patch });
            let spec = match what {
                0 => added(type_url::CLUSTER, json!({ "alt_stat_name": on.to_string() })),
                1 => added(type_url::ROUTE, json!({})),
                2 => merge("Cluster", service.to_string(), json!({ "alt_stat_name": number.to_string() })),
                3 => merge(
                    "Endpoints",
                    service.to_string(),
                    json!({ "policy": { "overprovisioning_factor": 100 + number } }),
                ),
                4 => merge("Listener", listener.to_string(), json!({ "stat_prefix": number.to_string() })),
                _ => merge(
                    "VirtualHost",
                    format!("{listener}/a.example.com"),
                    json!({ "include_request_attempt_count": true }),
                ),
            };
            put(resources, patch(&format!("envoypatch-{number}"), fleet.as_str(), spec));
        }
        Edit::Delete { kind, number } => {
            resources.remove(&Key::new(kind, numbered(kind, number)));
        }
    }
}

/// A log that goes to this service.
fn log_to(service: &Name) -> AccessLog {
    let to = Sink::Service(LogService {
        service: service.clone(),
        log_name: "log".into(),
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        flush_interval: std::time::Duration::from_secs(1),
        buffer: 1,
    });
    AccessLog { to, filter: Filter::default() }
}

/// Makes `resources` consistent: takes out what leads nowhere.
fn mend(resources: &mut Resources) {
    let before = resources.clone();
    let exists = |kind, name: &Name| before.contains_key(&Key::new(kind, name.clone()));
    resources.retain(|_, resource| match resource {
        Resource::Listener(listener) => {
            let gone = listener
                .access_logs
                .iter()
                .any(|log| matches!(&log.to, Sink::Service(of) if !exists(Kind::Service, &of.service)));
            if gone {
                Arc::make_mut(listener).access_logs.clear();
            }
            exists(Kind::Fleet, &listener.fleet)
        }
        _ => true,
    });
    for resource in resources.values_mut() {
        if let Resource::Listener(listener) = resource
            && listener.authorizer.as_ref().is_some_and(|one| !exists(Kind::Service, &one.service))
        {
            Arc::make_mut(listener).authorizer = None;
        }
    }
    let fleet_of: BTreeMap<Name, Name> = resources
        .values()
        .filter_map(|resource| match resource {
            Resource::Listener(listener) => Some((listener.name.clone(), listener.fleet.clone())),
            _ => None,
        })
        .collect();
    resources.retain(|_, resource| {
        let Resource::EnvoyPatch(patch) = resource else { return true };
        exists(Kind::Fleet, &patch.fleet)
            && patch.needs().is_none_or(|key| match key.kind {
                Kind::Listener => fleet_of.get(&key.name) == Some(&patch.fleet),
                kind => exists(kind, &key.name),
            })
    });
    let patched = resources.values().filter_map(|resource| match resource {
        Resource::EnvoyPatch(patch) => Some(patch.resource().clone()),
        _ => None,
    });
    let patched: BTreeSet<_> = patched.collect();
    for resource in resources.values_mut() {
        if let Resource::Listener(listener) = resource {
            let own = crate::model::envoy_patch::EnvoyResource::Listener(listener.name.to_string());
            Arc::make_mut(listener).http3 &= !patched.contains(&own);
        }
    }
    let carriers = resources.values().filter_map(|resource| match resource {
        Resource::Listener(listener) if !listener.protocol.is_http() => Some(listener.name.clone()),
        _ => None,
    });
    let (carriers, mut claimed) = (carriers.collect(), BTreeSet::new());
    resources.retain(|_, resource| {
        let Resource::Route(route) = resource else { return true };
        let mut mended = Route::clone(route);
        mended.listeners.retain_mut(|place| match fleet_of.get(&place.listener) {
            Some(fleet) => {
                place.fleet = fleet.clone();
                true
            }
            None => false,
        });
        for Rule { action, .. } in &mut mended.rules {
            if let Action::Forward(forward) = action {
                forward.to.retain(|target| exists(Kind::Service, &target.service));
                if forward.to.is_empty() {
                    *action = respond(404);
                }
            }
        }
        sort(&mut mended, &carriers, &mut claimed, |service| exists(Kind::Service, service));
        let somewhere = !mended.listeners.is_empty() && !mended.hosts.is_empty();
        *resource = Resource::Route(Arc::new(mended));
        somewhere
    });
}

/// Makes a route one of requests or of connections, as its first listener has it; of a host on a listener that carries connections, only
/// the first that comes. One that has nobody to carry connections to claims no host any more.
fn sort(
    route: &mut Route,
    carriers: &BTreeSet<Name>,
    claimed: &mut BTreeSet<(Name, HostPattern)>,
    exists: impl Fn(&Name) -> bool,
) {
    let carries = route.listeners.first().is_some_and(|place| carriers.contains(&place.listener));
    route.listeners.retain(|place| carriers.contains(&place.listener) == carries);
    if !carries {
        if route.tcp.take().is_some() {
            route.rules = vec![rule(prefix(&format!("/{}", route.name)), respond(404))];
        }
        return;
    }
    let services = route.services().into_iter().filter(|service| exists(service)).cloned();
    let to: Vec<Target> = services.map(|service| Target { service, subset: Default::default(), weight: 1 }).collect();
    if to.is_empty() {
        route.hosts.clear();
    }
    let places: Vec<Name> = route.listeners.iter().map(|place| place.listener.clone()).collect();
    route.hosts.retain(|host| {
        let claims = || places.iter().map(|place| (place.clone(), host.clone()));
        let free = claims().all(|claim| !claimed.contains(&claim));
        if free {
            claimed.extend(claims());
        }
        free
    });
    route.rules.clear();
    route.tcp = Some(Tcp { to, access: None, idle_timeout: None, connect_attempts: 1 });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn change_after_change_gives_what_translating_anew_gives(
        first in collection::vec(any_edit(), 10..30),
        steps in collection::vec(collection::vec(any_edit(), 1..4), 1..12),
    ) {
        let mut resources = Resources::new();
        let mut catalog = Catalog::empty();
        let mut held: BTreeMap<Name, BTreeMap<ResourceId, Bytes>> = BTreeMap::new();
        for edits in std::iter::once(first).chain(steps) {
            let mut after = resources.clone();
            for edit in edits {
                make(edit, &mut after);
            }
            mend(&mut after);
            let (next, changed) = edit(&catalog, &resources, &after);
            let made = changes(&catalog, &next, &changed);
            prop_assert_eq!(constraints::refused(&next, &made), []);
            for (name, FleetChanges { fleet, put, removed, misfits }) in made {
                let nothing = fleet == FleetChange::Kept && put.is_empty() && removed.is_empty();
                prop_assert!(!nothing, "an empty change");
                prop_assert_eq!(misfits, []);
                prop_assert_eq!(fleet == FleetChange::Created, !held.contains_key(&name));
                let resources = held.entry(name.clone()).or_default();
                for (id, bytes) in put {
                    let old = resources.insert(id.clone(), bytes.clone());
                    let may_be_the_same = matches!(id, ResourceId::VirtualHost(..));
                    prop_assert!(may_be_the_same || old != Some(bytes), "{:?} is put as it was", id);
                }
                for id in removed {
                    prop_assert!(resources.remove(&id).is_some(), "{:?} was not there", id);
                }
                if fleet == FleetChange::Deleted {
                    prop_assert_eq!(held.remove(&name), Some(BTreeMap::new()));
                }
            }
            let anew: BTreeMap<_, _> = full(&next).into_iter().map(|(name, fleet)| (name, fleet.put)).collect();
            prop_assert_eq!(&held, &anew);
            (catalog, resources) = (next, after);
        }
    }
}
