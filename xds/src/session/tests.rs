//! What holds for all types of a stream together.

mod hosts;
mod laws;
mod proxy;
mod rejections;
mod steady;

use chancery_proto::envoy::discovery::{DeltaDiscoveryRequest, DiscoveryRequest};

use super::*;
use crate::{
    Cache, Resource, Update,
    subscription::{
        delta::{Delta, DeltaReply},
        sotw::Sotw,
    },
};

const PATIENCE: Duration = Duration::from_secs(5);

fn session<S: Subscription>(now: Instant) -> Session<S> {
    Session::new(SessionRules { patience: PATIENCE, max_types: 8, max_names: 100, aggregated: true }, now)
}

/// Asks as an incremental client, for everything.
fn ask(session: &mut Session<Delta>, cache: &Cache, type_url: &str) -> Result<Verdict, TooMany> {
    let request = DeltaDiscoveryRequest { resource_names_subscribe: vec!["*".into()], ..Default::default() };
    session.on_request(&type_url.into(), request, &cache.snapshot())
}

fn names<R>(turn: &Turn<R>) -> Vec<&str> {
    turn.replies.iter().map(|(type_url, ..)| type_url::short_name(type_url)).collect()
}

fn apply(cache: &Cache, sequence: u64, set: &[&str], removed: &[&str]) {
    let mut update = Update::default();
    for type_url in set {
        update.upsert(*type_url, Resource::new(type_url, "x", sequence.to_string().as_bytes()));
    }
    for type_url in removed {
        update.remove(*type_url, "x");
    }
    cache.apply(sequence, update);
}

fn answer(session: &mut Session<Delta>, cache: &Cache, reply: &(TypeUrl, Sent, impl Sized)) {
    let request = DeltaDiscoveryRequest { response_nonce: reply.1.nonce.to_string(), ..Default::default() };
    session.on_request(&reply.0, request, &cache.snapshot()).unwrap();
}

#[test]
fn more_types_than_may_be_are_refused() {
    let cache = Cache::new();
    let mut session = session::<Delta>(Instant::now());
    for i in 0..8 {
        ask(&mut session, &cache, &format!("type.example/{i}")).unwrap();
    }
    assert_eq!(ask(&mut session, &cache, "type.example/8"), Err(TooMany::Types));
    assert!(ask(&mut session, &cache, "type.example/0").is_ok());
}

#[test]
fn more_names_than_may_be_are_refused() {
    let cache = Cache::new();
    let mut session = session::<Delta>(Instant::now());
    let mut change = |type_url: &str, asked: std::ops::Range<usize>, done_with: std::ops::Range<usize>| {
        let names = |range: std::ops::Range<usize>| range.map(|name| name.to_string()).collect();
        let (resource_names_subscribe, resource_names_unsubscribe) = (names(asked), names(done_with));
        let request =
            DeltaDiscoveryRequest { resource_names_subscribe, resource_names_unsubscribe, ..Default::default() };
        session.on_request(&type_url.into(), request, &cache.snapshot()).map(|_| ())
    };
    assert_eq!(change(type_url::ENDPOINT, 0..60, 0..0), Ok(()));
    assert_eq!(change(type_url::ENDPOINT, 0..60, 0..0), Ok(()), "the same again");
    assert_eq!(change(type_url::ROUTE, 0..40, 0..0), Ok(()));
    assert_eq!(change(type_url::ENDPOINT, 60..70, 0..10), Ok(()), "one for the other");
    assert_eq!(change(type_url::SECRET, 0..1, 0..0), Err(TooMany::Names));
}

#[test]
fn a_client_that_asks_for_no_clusters_is_not_held_up() {
    let cache = Cache::new();
    apply(&cache, 1, &[type_url::LISTENER, type_url::ROUTE], &[]);
    let now = Instant::now();
    let mut session = session::<Delta>(now);
    ask(&mut session, &cache, type_url::LISTENER).unwrap();
    ask(&mut session, &cache, type_url::ROUTE).unwrap();
    assert_eq!(names(&session.turn(&cache.snapshot(), now).unwrap()), ["listener", "route"]);
}

#[test]
fn routes_of_a_reconnected_client_wait_until_it_asks_for_clusters() {
    // One that was warming when its stream broke asks for clusters last.
    let cache = Cache::new();
    apply(&cache, 1, &[type_url::CLUSTER, type_url::LISTENER, type_url::ROUTE], &[]);
    let now = Instant::now();
    let mut session = session::<Delta>(now);
    let held = DeltaDiscoveryRequest {
        initial_resource_versions: [("x".to_owned(), "old".to_owned())].into(),
        ..Default::default()
    };
    session.on_request(&type_url::LISTENER.into(), held, &cache.snapshot()).unwrap();
    ask(&mut session, &cache, type_url::ROUTE).unwrap();
    assert_eq!(names(&session.turn(&cache.snapshot(), now).unwrap()), [""; 0]);
    ask(&mut session, &cache, type_url::CLUSTER).unwrap();
    let turn = session.turn(&cache.snapshot(), now).unwrap();
    assert_eq!(names(&turn), ["cluster"]);
    answer(&mut session, &cache, &turn.replies[0]);
    assert_eq!(names(&session.turn(&cache.snapshot(), now).unwrap()), ["listener", "route"]);
}

#[test]
fn routes_wait_for_clusters_no_longer_than_the_patience_lasts() {
    let cache = Cache::new();
    apply(&cache, 1, &[type_url::CLUSTER, type_url::ROUTE], &[]);
    let now = Instant::now();
    let mut session = session::<Delta>(now);
    ask(&mut session, &cache, type_url::CLUSTER).unwrap();
    ask(&mut session, &cache, type_url::ROUTE).unwrap();
    let turn = session.turn(&cache.snapshot(), now).unwrap();
    assert_eq!((names(&turn), turn.look_again), (vec!["cluster"], Some(now + PATIENCE)));
    let early = session.turn(&cache.snapshot(), now + PATIENCE - Duration::from_millis(1)).unwrap();
    assert_eq!(names(&early), [""; 0]);
    let late = session.turn(&cache.snapshot(), now + PATIENCE).unwrap();
    assert_eq!(names(&late), ["route"]);
    answer(&mut session, &cache, &late.replies[0]);
    assert_eq!(
        session.turn(&cache.snapshot(), now + PATIENCE).unwrap().settled,
        Some(0),
        "the cluster was not answered"
    );
    answer(&mut session, &cache, &turn.replies[0]);
    assert_eq!(session.turn(&cache.snapshot(), now + PATIENCE).unwrap().settled, Some(1));
}

#[test]
fn routes_are_not_starved_by_a_steady_stream_of_endpoints() {
    let cache = Cache::new();
    apply(&cache, 1, &[type_url::ENDPOINT, type_url::ROUTE], &[]);
    let now = Instant::now();
    let mut session = session::<Delta>(now);
    ask(&mut session, &cache, type_url::ENDPOINT).unwrap();
    ask(&mut session, &cache, type_url::ROUTE).unwrap();
    let mut turn = session.turn(&cache.snapshot(), now).unwrap();
    assert_eq!(names(&turn), ["endpoint"]);
    let mut sent = Vec::new();
    for sequence in 2..5 {
        // There is a newer change before every answer.
        apply(&cache, sequence, &[type_url::ENDPOINT], &[]);
        answer(&mut session, &cache, &turn.replies[0]);
        turn = session.turn(&cache.snapshot(), now).unwrap();
        sent.extend(names(&turn).into_iter().map(str::to_owned));
    }
    assert_eq!(sent.iter().filter(|name| *name == "route").count(), 1, "{sent:?}");
}

#[test]
fn removals_of_clusters_wait_for_routes_and_a_reconnected_client_to_have_asked_for_them() {
    let cache = Cache::new();
    apply(&cache, 1, &[type_url::CLUSTER], &[]);
    apply(&cache, 2, &[], &[type_url::CLUSTER]);
    let now = Instant::now();
    let mut session = session::<Delta>(now);
    let held = DeltaDiscoveryRequest {
        initial_resource_versions: [("x".to_owned(), "1".to_owned())].into(),
        ..Default::default()
    };
    session.on_request(&type_url::CLUSTER.into(), held, &cache.snapshot()).unwrap();
    let turn = session.turn(&cache.snapshot(), now).unwrap();
    assert_eq!((names(&turn), turn.look_again), (vec![], Some(now + PATIENCE)));
    ask(&mut session, &cache, type_url::LISTENER).unwrap();
    let turn = session.turn(&cache.snapshot(), now).unwrap();
    assert_eq!(names(&turn), ["listener"], "a wildcard over nothing is answered");
    answer(&mut session, &cache, &turn.replies[0]);
    assert_eq!(names(&session.turn(&cache.snapshot(), now).unwrap()), [""; 0], "routes may yet be asked for");

    let asked = DeltaDiscoveryRequest { resource_names_subscribe: vec!["r".into()], ..Default::default() };
    session.on_request(&type_url::ROUTE.into(), asked, &cache.snapshot()).unwrap();
    let turn = session.turn(&cache.snapshot(), now).unwrap();
    assert_eq!(names(&turn), ["route"]);
    answer(&mut session, &cache, &turn.replies[0]);
    let turn = session.turn(&cache.snapshot(), now).unwrap();
    assert_eq!(names(&turn), ["cluster"]);
    assert_eq!(turn.replies[0].2.removed, [Name::from("x")]);
}

#[test]
fn removals_wait_no_longer_than_the_patience_lasts_whatever_is_added_meanwhile() {
    let cache = Cache::new();
    apply(&cache, 1, &[type_url::CLUSTER, type_url::ROUTE], &[]);
    let now = Instant::now();
    let mut session = session::<Delta>(now);
    ask(&mut session, &cache, type_url::CLUSTER).unwrap();
    ask(&mut session, &cache, type_url::ROUTE).unwrap();
    ask(&mut session, &cache, type_url::LISTENER).unwrap();
    for _ in 0..2 {
        for reply in session.turn(&cache.snapshot(), now).unwrap().replies {
            answer(&mut session, &cache, &reply);
        }
    }
    // The client never answers for the routes that lead away from the cluster.
    apply(&cache, 2, &[type_url::ROUTE], &[type_url::CLUSTER]);
    assert_eq!(names(&session.turn(&cache.snapshot(), now).unwrap()), ["route"]);
    assert_eq!(names(&session.turn(&cache.snapshot(), now).unwrap()), [""; 0]);
    let mut removed = 0;
    for second in 1..=6 {
        let mut update = Update::default();
        update.upsert(type_url::CLUSTER, Resource::new(type_url::CLUSTER, "other", format!("{second}").as_bytes()));
        cache.apply(2 + second, update);
        let now = now + Duration::from_secs(second);
        let turn = session.turn(&cache.snapshot(), now).unwrap();
        removed += turn.replies[0].2.removed.len();
        assert!(removed == 0 || second >= 5, "not before its time");
        answer(&mut session, &cache, &turn.replies[0]);
    }
    assert_eq!(removed, 1);
}

#[test]
fn nothing_is_looked_at_again_in_the_past() {
    // A client that never answers, in the variant that sends nothing more until it does.
    let cache = Cache::new();
    apply(&cache, 1, &[type_url::CLUSTER], &[]);
    let mut now = Instant::now();
    let mut session = session::<Sotw>(now);
    session.on_request(&type_url::CLUSTER.into(), DiscoveryRequest::default(), &cache.snapshot()).unwrap();
    for sequence in 2..20 {
        let turn = session.turn(&cache.snapshot(), now).unwrap();
        assert!(turn.look_again.is_none_or(|at| at > now));
        apply(&cache, sequence, &[type_url::CLUSTER], &[]);
        now += Duration::from_secs(2);
    }
}

#[test]
fn endpoints_follow_a_cluster_that_changed_and_no_other() {
    let cache = Cache::new();
    let set = |sequence, name: &str, body: &str| {
        let mut update = Update::default();
        update.upsert(type_url::CLUSTER, Resource::new(type_url::CLUSTER, name, body.as_bytes()));
        update.upsert(type_url::ENDPOINT, Resource::new(type_url::ENDPOINT, name, b"same"));
        cache.apply(sequence, update);
    };
    set(1, "a", "1");
    set(2, "b", "1");
    let now = Instant::now();
    let mut session = session::<Sotw>(now);
    let clusters = TypeUrl::from(type_url::CLUSTER);
    let endpoints = TypeUrl::from(type_url::ENDPOINT);
    let names = vec!["a".to_owned(), "b".to_owned()];
    session.on_request(&clusters, DiscoveryRequest::default(), &cache.snapshot()).unwrap();
    let asked = DiscoveryRequest { resource_names: names.clone(), ..Default::default() };
    session.on_request(&endpoints, asked, &cache.snapshot()).unwrap();
    let turn = session.turn(&cache.snapshot(), now).unwrap();
    for (type_url, sent, _) in &turn.replies {
        let resource_names = if *type_url == endpoints { names.clone() } else { Vec::new() };
        let ack = DiscoveryRequest { response_nonce: sent.nonce.to_string(), resource_names, ..Default::default() };
        session.on_request(type_url, ack, &cache.snapshot()).unwrap();
    }
    set(3, "b", "2");
    let turn = session.turn(&cache.snapshot(), now).unwrap();
    let sent: Vec<_> = turn.replies.iter().map(|(t, _, r)| (t, r.resources.len())).collect();
    assert_eq!(sent, [(&clusters, 2), (&endpoints, 1)], "before the cluster is acknowledged");
    assert_eq!(&**turn.replies[1].2.resources[0].name(), "b");
}
