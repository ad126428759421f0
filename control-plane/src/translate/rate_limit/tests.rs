//! Limits as Envoy and the limiter get them: by example, and as a law over edits.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::{collection, prelude::*, sample};
use time::OffsetDateTime;

use super::{descriptors::descriptors, *};
use crate::{
    model::{
        Catalog, Document, Entry, Key, Name, Resource,
        fleet::{Fleet, OnFailure, RateLimiter},
        rate_limit::{Absent, Algorithm, Enforcement, Hits, KeyPart, Limit, Mode, RateLimit, WhenRedisIsDown},
        route::{Action, Forward, ListenerRef, Route},
        service::Address,
    },
    translate::testing::{self, http_listener, name, prefix, rate_limit, route, rule, service, snapshot, to},
};

fn limiter(addresses: &[(Address, u16)]) -> RateLimiter {
    RateLimiter {
        addresses: addresses.to_vec(),
        timeout: Duration::from_millis(20),
        on_failure: OnFailure::Deny,
        insecure: false,
    }
}

fn here() -> (Address, u16) {
    (Address::Ip([10, 0, 0, 1].into()), 8081)
}

fn named() -> (Address, u16) {
    (Address::Dns("limiter.internal".into()), 8081)
}

#[test]
fn every_part_of_a_key_has_its_entry() {
    let both = |absent| {
        [KeyPart::Header { name: "x-api-key".into(), absent }, KeyPart::Query { name: "account".into(), absent }]
    };
    let mut key = both(Absent::Together).to_vec();
    key.extend([
        KeyPart::RemoteAddress,
        KeyPart::Network { ipv4: 24, ipv6: 64 },
        KeyPart::Path,
        KeyPart::Method,
        KeyPart::Constant { key: "tier".into(), value: "gold".into() },
    ]);
    let limit = RateLimit { key, ..rate_limit("everything") };
    insta::assert_snapshot!(snapshot(&descriptors([&limit])));
    let optional = RateLimit { key: both(Absent::Skip).to_vec(), ..rate_limit("optional") };
    insta::assert_snapshot!(snapshot(&descriptors([&optional])));
}

#[test]
fn debt_is_looked_at_before_and_charged_after() {
    let mode = Mode { debt: true, ..Mode::default() };
    let limit = RateLimit { mode, hits: Hits::ResponseHeader("x-tokens".into()), ..rate_limit("tokens") };
    insta::assert_snapshot!(snapshot(&descriptors([&limit])));
}

#[test]
fn one_hit_goes_without_saying() {
    let weighing = |number| descriptors([&RateLimit { hits: Hits::Number(number), ..rate_limit("l") }]);
    assert_eq!(weighing(1).rate_limits[0].hits_addend, None);
    let said = weighing(5).rate_limits[0].hits_addend.clone().and_then(|hits| hits.number);
    assert_eq!(said.map(|number| number.value), Some(5));
}

#[test]
fn a_limiter_proves_to_be_one() {
    insta::assert_snapshot!(snapshot(&cluster(&limiter(&[here()]))));
    insta::assert_snapshot!(snapshot(&limiter::tls_context()));
    let plain = cluster(&RateLimiter { insecure: true, ..limiter(&[here()]) });
    assert_eq!(plain.transport_socket, None);
}

#[test]
fn a_named_limiter_is_resolved_and_order_does_not_matter() {
    let forth = cluster(&limiter(&[here(), named()]));
    assert_eq!(forth, cluster(&limiter(&[named(), here()])));
    insta::assert_snapshot!(snapshot(&forth));
}

#[test]
fn the_filter_asks_in_the_name_of_the_fleet() {
    insta::assert_snapshot!(snapshot(&limiter::settings(&name("edge"), &limiter(&[here()]))));
}

#[test]
fn a_quota_is_counted_by_what_the_route_says() {
    let key = vec![
        KeyPart::Header { name: "x-api-key".into(), absent: Absent::Together },
        KeyPart::Query { name: "account".into(), absent: Absent::Skip },
        KeyPart::RemoteAddress,
        KeyPart::Path,
        KeyPart::Method,
        KeyPart::Constant { key: "tier".into(), value: "gold".into() },
    ];
    insta::assert_snapshot!(snapshot(&quota::naming(&RateLimit { key, ..rate_limit("l") })));
    insta::assert_snapshot!(snapshot(&quota::settings(&name("edge"), &limiter(&[here()]))));
    insta::assert_snapshot!(snapshot(&quota::bucket(OnFailure::Deny)));
}

#[test]
fn filters_that_only_quotas_need_are_off_until_a_route_needs_them() {
    let filters: Vec<_> = filters(&name("edge"), &limiter(&[here()])).collect();
    let disabled: Vec<_> = filters.iter().map(|filter| (&*filter.name, filter.disabled)).collect();
    let [naming, enforcing, asking] =
        ["chancery.quota-descriptor", "envoy.filters.http.rate_limit_quota", "envoy.filters.http.ratelimit"];
    assert_eq!(disabled, [(naming, true), (enforcing, true), (asking, false)]);

    let (service, quota) = (rate_limit("s"), RateLimit { enforcement: Enforcement::Quota, ..rate_limit("q") });
    let told = |limits: &[&RateLimit]| per_route(limits).into_keys().collect::<Vec<_>>();
    assert_eq!(told(&[]), Vec::<String>::new());
    assert_eq!(told(&[&service]), [asking]);
    assert_eq!(told(&[&quota]), [naming, enforcing]);
    assert_eq!(told(&[&quota, &service]), [naming, enforcing, asking]);
}

#[test]
fn replicas_come_and_go_without_touching_listeners() {
    let with =
        |addresses: &[(Address, u16)]| Fleet { rate_limiter: Some(limiter(addresses)), ..testing::fleet("edge") };
    let listener = |fleet: &Fleet| crate::translate::listener::listener(&http_listener("web", "edge"), fleet);
    assert_eq!(listener(&with(&[here()])), listener(&with(&[here(), named()])));
}

type Resources = BTreeMap<Key, Resource>;

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

fn load(resources: &Resources) -> Catalog {
    Catalog::load(resources.values().map(entry)).expect("a consistent catalog")
}

fn put(resources: &mut Resources, resource: Resource) {
    resources.insert(resource.key(), resource);
}

const FLEETS: [&str; 2] = ["edge", "lab"];

/// Two fleets with a limiter and a listener each, three limits, and nothing that is limited.
fn unlimited() -> Resources {
    let mut resources = Resources::new();
    for fleet in FLEETS {
        let fleet = Fleet { rate_limiter: Some(limiter(&[here()])), ..testing::fleet(fleet) };
        put(
            &mut resources,
            Resource::Listener(Arc::new(http_listener(&format!("{}-web", fleet.name), fleet.name.as_str()))),
        );
        put(&mut resources, Resource::Fleet(Arc::new(fleet)));
    }
    put(&mut resources, Resource::Service(Arc::new(service("shop"))));
    for limit in ["l0", "l1", "l2"] {
        put(&mut resources, Resource::RateLimit(Arc::new(rate_limit(limit))));
    }
    resources
}

fn limited(number: usize, fleets: &[&str], limits: &[&str]) -> Resource {
    let forward = Forward { rate_limits: limits.iter().map(|limit| name(limit)).collect(), ..to("shop") };
    let listeners =
        fleets.iter().map(|fleet| ListenerRef { fleet: name(fleet), listener: name(&format!("{fleet}-web")) });
    let rules = vec![rule(prefix(&format!("/{number}")), Action::Forward(forward))];
    Resource::Route(Arc::new(Route { listeners: listeners.collect(), ..route(&format!("r{number}"), rules) }))
}

#[test]
fn a_domain_holds_the_limits_that_its_fleet_uses() {
    let mut resources = unlimited();
    assert_eq!(all(&load(&resources)), BTreeMap::new());
    let full = RateLimit {
        key: vec![KeyPart::RemoteAddress, KeyPart::Path],
        limit: Limit {
            requests: 100,
            per: Duration::from_millis(1500),
            burst: Some(200),
            algorithm: Algorithm::FixedWindow,
        },
        when_redis_is_down: WhenRedisIsDown::Deny,
        mode: Mode { shadow: true, strict: true, debt: true },
        denied_body: "no".into(),
        enforcement: Enforcement::Quota,
        ..rate_limit("l1")
    };
    put(&mut resources, Resource::RateLimit(Arc::new(full)));
    put(&mut resources, limited(0, &["edge"], &["l1", "l0"]));
    put(&mut resources, limited(1, &["edge", "lab"], &["l0"]));
    let catalog = load(&resources);
    let names = |fleet: &str| {
        let domain = domain(&catalog, &name(fleet)).expect("a domain");
        domain.rules.into_iter().map(|rule| rule.name).collect::<Vec<_>>()
    };
    assert_eq!((names("edge"), names("lab")), (vec!["l0".to_owned(), "l1".to_owned()], vec!["l0".to_owned()]));
    insta::assert_debug_snapshot!(domain(&catalog, &name("edge")));
}

/// An edit: a limit's amount, what a route is limited by, a fleet's trusted hops, or the end of a route.
#[derive(Clone, Debug)]
enum Edit {
    Limit { number: usize, requests: u32 },
    Route { number: usize, fleets: Vec<&'static str>, limits: Vec<&'static str> },
    Fleet { fleet: &'static str, hops: u32 },
    Delete { number: usize },
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let limits = sample::subsequence(vec!["l0", "l1", "l2"], 0..=3);
    prop_oneof![
        2 => (0..3_usize, 1..4_u32).prop_map(|(number, requests)| Edit::Limit { number, requests }),
        3 => (0..3_usize, sample::subsequence(FLEETS.to_vec(), 1..=2), limits)
            .prop_map(|(number, fleets, limits)| Edit::Route { number, fleets, limits }),
        1 => (sample::select(FLEETS.to_vec()), 0..2_u32).prop_map(|(fleet, hops)| Edit::Fleet { fleet, hops }),
        1 => (0..3_usize).prop_map(|number| Edit::Delete { number }),
    ]
}

fn make(edit: Edit, resources: &mut Resources) {
    match edit {
        Edit::Limit { number, requests } => {
            let limit = rate_limit(&format!("l{number}"));
            let limit = RateLimit { limit: Limit { requests, ..limit.limit }, ..limit };
            put(resources, Resource::RateLimit(Arc::new(limit)));
        }
        Edit::Route { number, fleets, limits } => put(resources, limited(number, &fleets, &limits)),
        Edit::Fleet { fleet, hops } => {
            let rate_limiter = Some(limiter(&[here()]));
            let fleet = Fleet { trusted_hops: hops, rate_limiter, ..testing::fleet(fleet) };
            put(resources, Resource::Fleet(Arc::new(fleet)));
        }
        Edit::Delete { number } => {
            resources.remove(&Key::new(crate::model::Kind::Route, name(&format!("r{number}"))));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn change_after_change_gives_the_domains_of_the_whole(
        steps in collection::vec(collection::vec(any_edit(), 1..4), 1..12),
    ) {
        let mut resources = unlimited();
        let mut catalog = load(&resources);
        let mut held: BTreeMap<Name, bytes::Bytes> = BTreeMap::new();
        for edits in steps {
            let before = resources.clone();
            for edit in edits {
                make(edit, &mut resources);
            }
            let keys = before.keys().chain(resources.keys()).cloned().collect::<std::collections::BTreeSet<_>>();
            let changed: Vec<Key> = keys.into_iter().filter(|key| before.get(key) != resources.get(key)).collect();
            let next = load(&resources);
            for (fleet, domain) in changes(&catalog, &next, &changed) {
                let old = match domain.clone() {
                    Some(bytes) => held.insert(fleet, bytes),
                    None => held.remove(&fleet),
                };
                prop_assert_ne!(old, domain, "told what it knew");
            }
            prop_assert_eq!(&held, &all(&next));
            catalog = next;
        }
    }
}
