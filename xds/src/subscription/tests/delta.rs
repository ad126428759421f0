use chancery_proto::{envoy::discovery::DeltaDiscoveryRequest, google::rpc::Status};

use super::*;
use crate::subscription::delta::{Delta, DeltaReply};

pub(super) type Request = DeltaDiscoveryRequest;

pub(super) fn subscribe(names: &[&str]) -> Request {
    Request { resource_names_subscribe: strings(names), ..Request::default() }
}

fn unsubscribe(names: &[&str]) -> Request {
    Request { resource_names_unsubscribe: strings(names), ..Request::default() }
}

pub(super) fn ack(sent: &Sent) -> Request {
    Request { response_nonce: sent.nonce.to_string(), ..Request::default() }
}

pub(super) fn nack(sent: &Sent, message: &str) -> Request {
    let error_detail = Some(Status { message: message.into(), ..Status::default() });
    Request { error_detail, ..ack(sent) }
}

/// The first request of a client that has `held`.
fn back_with(names: &[&str], held: &[(&str, &str)]) -> Request {
    let version = |body: &str| crate::Version::of(body.as_bytes()).to_string();
    let initial_resource_versions = held.iter().map(|(name, body)| ((*name).to_owned(), version(body))).collect();
    Request { initial_resource_versions, ..subscribe(names) }
}

/// Names set and names removed by a reply.
fn content(reply: &DeltaReply) -> (Vec<String>, Vec<String>) {
    (strings(reply.upserts.iter().map(Resource::name)), strings(&reply.removed))
}

/// The next reply must be exactly this.
#[track_caller]
pub(super) fn expect(bench: &mut Bench<Delta>, set: &[&str], removed: &[&str]) -> Sent {
    let (sent, reply) = bench.reply().expect("a response");
    assert_eq!(content(&reply), (strings(set), strings(removed)));
    sent
}

/// As [`expect`], and the client acknowledges it.
#[track_caller]
pub(super) fn expect_and_ack(bench: &mut Bench<Delta>, set: &[&str], removed: &[&str]) {
    let sent = expect(bench, set, removed);
    assert_eq!(bench.ask(ack(&sent)), Verdict::Acknowledged(sent));
}

pub(super) fn bench(rules: TypeRules, resources: &[(&str, &str)], request: Request) -> Bench<Delta> {
    let mut bench = Bench::new(rules, resources);
    assert_eq!(bench.ask(request), Verdict::None);
    bench
}

#[test]
fn an_answer_without_error_is_an_acknowledgement() {
    let mut bench = bench(NAMED, &[("a", "1")], subscribe(&["a"]));
    let sent = expect(&mut bench, &["a"], &[]);
    assert_eq!((sent.sequence, sent.complete), (1, true));
    assert_eq!(bench.ask(ack(&sent)), Verdict::Acknowledged(sent));
    assert_silent(&mut bench);
}

#[test]
fn an_answer_with_error_is_a_rejection_and_nothing_is_repeated() {
    let mut bench = bench(NAMED, &[("a", "1")], subscribe(&["a"]));
    let sent = expect(&mut bench, &["a"], &[]);
    assert_eq!(bench.ask(nack(&sent, "bad")), Verdict::Rejected(sent.clone(), "bad".into()));
    assert_silent(&mut bench);
    assert_eq!(bench.ask(nack(&sent, "bad")), Verdict::None, "a response is answered once");
    assert_silent(&mut bench);
    bench.set("a", "2");
    expect_and_ack(&mut bench, &["a"], &[]);
}

#[test]
fn of_a_rejection_no_more_is_kept_than_can_be_read() {
    let mut bench = bench(NAMED, &[("a", "1")], subscribe(&["a"]));
    let sent = expect(&mut bench, &["a"], &[]);
    let Verdict::Rejected(_, words) = bench.ask(nack(&sent, &"bad ".repeat(5000))) else { panic!("it was rejected") };
    assert_eq!(words, "bad ".repeat(1024));
}

#[test]
fn a_name_is_shared_with_the_cache() {
    let mut bench = bench(NAMED, &[("a", "1")], subscribe(&["a"]));
    let sent = expect(&mut bench, &["a"], &[]);
    assert!(std::sync::Arc::ptr_eq(&sent.names[0], &bench.cache.snapshot().table(T).shared("a")));
    let interest = &bench.subscription.progress().interest;
    assert!(std::sync::Arc::ptr_eq(&sent.names[0], interest.names.iter().next().unwrap()));
}

#[test]
fn endpoints_that_went_before_they_were_asked_for_are_sent_until_their_cluster_has_gone() {
    let mut bench = Bench::new(RESENT, &[("a", "1")]);
    bench.remove("a");
    bench.ask(subscribe(&["a"]));
    let (sent, reply) = bench.reply_through(Gate::Additions).unwrap();
    assert_eq!(content(&reply), (strings(["a"]), vec![]));
    bench.ask(ack(&sent));
    expect_and_ack(&mut bench, &[], &["a"]);

    // And those that go while they are on their way.
    bench.set("b", "1");
    bench.ask(subscribe(&["b"]));
    bench.remove("b");
    let (sent, reply) = bench.reply_through(Gate::Additions).unwrap();
    assert_eq!(content(&reply), (strings(["b"]), vec![]));
    bench.ask(ack(&sent));
    expect_and_ack(&mut bench, &[], &["b"]);
}

#[test]
fn with_a_stale_nonce_only_the_subscription_counts() {
    let mut bench = bench(NAMED, &[("a", "1"), ("b", "1")], subscribe(&["a"]));
    let first = expect(&mut bench, &["a"], &[]);
    bench.ask(ack(&first));
    bench.set("a", "2");
    let second = expect(&mut bench, &["a"], &[]);
    let stale = Request { resource_names_subscribe: strings(["b"]), ..nack(&first, "late") };
    assert_eq!(bench.ask(stale), Verdict::None);
    assert_eq!(bench.ask(ack(&second)), Verdict::Acknowledged(second));
    expect_and_ack(&mut bench, &["b"], &[]);
}

#[test]
fn a_subscription_may_ride_on_an_acknowledgement() {
    let mut bench = bench(NAMED, &[("a", "1"), ("b", "1")], subscribe(&["a"]));
    let sent = expect(&mut bench, &["a"], &[]);
    let both = Request { resource_names_subscribe: strings(["b"]), ..ack(&sent) };
    assert_eq!(bench.ask(both), Verdict::Acknowledged(sent));
    expect_and_ack(&mut bench, &["b"], &[]);
}

#[test]
fn a_name_that_is_subscribed_again_is_sent_again() {
    let mut bench = bench(NAMED, &[("a", "1")], subscribe(&["a"]));
    expect_and_ack(&mut bench, &["a"], &[]);
    bench.ask(subscribe(&["a"]));
    expect_and_ack(&mut bench, &["a"], &[]);
    bench.ask(unsubscribe(&["a"]));
    assert_silent(&mut bench);
    bench.ask(subscribe(&["a"]));
    expect_and_ack(&mut bench, &["a"], &[]);
}

#[test]
fn a_name_without_resource_is_answered_at_once_and_remembered() {
    let mut bench = bench(NAMED, &[], subscribe(&["a"]));
    let (sent, reply) = bench.reply_through(Gate::Additions).expect("not a removal: it does not wait as one");
    assert_eq!(content(&reply), (vec![], strings(["a"])));
    bench.ask(ack(&sent));
    assert_silent(&mut bench);
    bench.set("a", "1");
    expect_and_ack(&mut bench, &["a"], &[]);
    bench.remove("a");
    expect_and_ack(&mut bench, &[], &["a"]);
}

#[test]
fn no_names_in_the_first_request_mean_all_where_the_type_says_so() {
    let mut all = bench(FULL, &[("a", "1"), ("b", "1")], Request::default());
    expect_and_ack(&mut all, &["a", "b"], &[]);
    all.set("c", "1");
    expect_and_ack(&mut all, &["c"], &[]);

    let mut none = bench(NAMED, &[("a", "1")], Request::default());
    assert_silent(&mut none);
}

#[test]
fn a_star_means_all_of_any_type() {
    let mut bench = bench(NAMED, &[("a", "1"), ("b", "1")], subscribe(&["*"]));
    expect_and_ack(&mut bench, &["a", "b"], &[]);
    bench.remove("a");
    bench.set("c", "1");
    expect_and_ack(&mut bench, &["c"], &["a"]);
}

#[test]
fn a_wildcard_over_nothing_is_answered() {
    let mut bench = bench(FULL, &[], Request::default());
    expect_and_ack(&mut bench, &[], &[]);
    assert_silent(&mut bench);
}

#[test]
fn the_legacy_wildcard_stays_when_names_join_it() {
    let mut bench = bench(FULL, &[("a", "1"), ("b", "1")], Request::default());
    expect_and_ack(&mut bench, &["a", "b"], &[]);
    bench.ask(subscribe(&["*", "a"]));
    expect_and_ack(&mut bench, &["a"], &[]);
    bench.set("c", "1");
    expect_and_ack(&mut bench, &["c"], &[]);
}

#[test]
fn what_was_in_flight_when_the_wildcard_came_and_is_gone_is_removed() {
    let mut bench = bench(NAMED, &[("a", "1")], subscribe(&["a"]));
    let sent = expect(&mut bench, &["a"], &[]);
    // The client reads the response after these, and takes what is in it for part of the wildcard.
    bench.ask(unsubscribe(&["a"]));
    bench.remove("a");
    bench.absorb().unwrap();
    bench.ask(subscribe(&["*"]));
    bench.ask(ack(&sent));
    expect_and_ack(&mut bench, &[], &["a"]);
}

#[test]
fn without_the_wildcard_the_names_stay() {
    let mut bench = bench(FULL, &[("a", "1"), ("b", "1")], subscribe(&["*", "a"]));
    expect_and_ack(&mut bench, &["a", "b"], &[]);
    bench.set("b", "2");
    bench.ask(unsubscribe(&["*"]));
    assert_silent(&mut bench);
    bench.set("a", "2");
    bench.remove("b");
    expect_and_ack(&mut bench, &["a"], &[]);
}

#[test]
fn a_wildcard_taken_back_before_its_answer_is_not_answered() {
    let mut bench = bench(NAMED, &[], subscribe(&["*"]));
    bench.ask(unsubscribe(&["*"]));
    assert_silent(&mut bench);
}

#[test]
fn unsubscribing_a_name_under_a_wildcard_is_answered() {
    let mut bench = bench(FULL, &[("a", "1")], subscribe(&["*", "a", "gone"]));
    expect_and_ack(&mut bench, &["a"], &["gone"]);
    bench.ask(unsubscribe(&["a"]));
    expect_and_ack(&mut bench, &["a"], &[]);
    bench.ask(unsubscribe(&["gone"]));
    expect_and_ack(&mut bench, &[], &["gone"]);
}

#[test]
fn unsubscribing_what_was_never_asked_for_is_ignored() {
    let mut wildcard = bench(FULL, &[("a", "1")], subscribe(&["*"]));
    expect_and_ack(&mut wildcard, &["a"], &[]);
    wildcard.ask(unsubscribe(&["a", "b"]));
    assert_silent(&mut wildcard);

    let mut named = bench(NAMED, &[("a", "1")], subscribe(&["a"]));
    expect_and_ack(&mut named, &["a"], &[]);
    named.ask(unsubscribe(&["b", "*"]));
    assert_silent(&mut named);
    named.set("a", "2");
    expect_and_ack(&mut named, &["a"], &[]);
}

#[test]
fn an_unsubscribed_name_is_not_sent() {
    let mut bench = bench(NAMED, &[("a", "1")], subscribe(&["a", "b"]));
    bench.ask(unsubscribe(&["a"]));
    expect_and_ack(&mut bench, &[], &["b"]);
    bench.set("a", "2");
    bench.remove("a");
    assert_silent(&mut bench);
}

#[test]
fn what_a_client_has_is_not_sent_again() {
    let mut bench = Bench::new(FULL, &[("a", "1"), ("b", "2")]);
    bench.ask(back_with(&[], &[("a", "1"), ("b", "1"), ("gone", "1")]));
    expect_and_ack(&mut bench, &["b"], &["gone"]);

    bench.reconnect(FULL);
    bench.ask(back_with(&["*"], &[("a", "1"), ("b", "2")]));
    assert_silent(&mut bench);
    assert_eq!(bench.settled_through(), 2, "it has everything");
}

#[test]
fn what_a_client_has_and_lost_meanwhile_is_a_removal_that_may_be_held_back() {
    let mut bench = Bench::new(FULL, &[("a", "1")]);
    bench.ask(back_with(&[], &[("gone", "1")]));
    let (sent, reply) = bench.reply_through(Gate::Additions).unwrap();
    assert_eq!((content(&reply), sent.complete), ((strings(["a"]), vec![]), false));
    bench.ask(ack(&sent));
    assert_eq!(bench.settled_through(), 0, "something is held back");
    assert!(bench.reply_through(Gate::Additions).is_none());
    expect_and_ack(&mut bench, &[], &["gone"]);
    assert_eq!(bench.settled_through(), 1);
}

#[test]
fn versions_of_what_is_not_asked_for_are_ignored() {
    let mut bench = Bench::new(NAMED, &[("a", "1"), ("b", "1")]);
    bench.ask(back_with(&["a"], &[("b", "0"), ("gone", "1")]));
    expect_and_ack(&mut bench, &["a"], &[]);
    let late = Request { initial_resource_versions: [("a".into(), "0".into())].into(), ..Request::default() };
    bench.ask(late);
    assert_silent(&mut bench);
}

#[test]
fn endpoints_are_sent_to_a_client_that_has_them() {
    let mut bench = Bench::new(RESENT, &[("a", "1")]);
    bench.ask(back_with(&["a"], &[("a", "1")]));
    expect_and_ack(&mut bench, &["a"], &[]);
}

#[test]
fn endpoints_that_are_about_to_go_are_still_sent_to_a_cluster_that_waits_for_them() {
    let mut bench = bench(RESENT, &[("a", "1")], subscribe(&["a"]));
    let sent = expect(&mut bench, &["a"], &[]);
    bench.subscription.progress_mut().touch(&"a".into());
    bench.remove("a");
    bench.ask(ack(&sent));
    let (sent, reply) = bench.reply_through(Gate::Additions).unwrap();
    assert_eq!(content(&reply), (strings(["a"]), vec![]));
    bench.ask(ack(&sent));
    expect_and_ack(&mut bench, &[], &["a"]);

    // And so are those that went while the client was away.
    bench.reconnect(RESENT);
    bench.ask(back_with(&["a"], &[("a", "1")]));
    let (_, reply) = bench.reply_through(Gate::Additions).unwrap();
    assert_eq!(content(&reply), (strings(["a"]), vec![]));
}

#[test]
fn what_was_made_and_unmade_before_it_was_sent_is_not_spoken_of() {
    let mut bench = bench(FULL, &[("a", "1")], Request::default());
    let sent = expect(&mut bench, &["a"], &[]);
    bench.set("b", "1");
    assert_silent(&mut bench);
    bench.remove("b");
    bench.ask(ack(&sent));
    assert_silent(&mut bench);
    assert_eq!(bench.settled_through(), bench.sequence);
}

#[test]
fn a_hundred_changes_before_the_answer_are_one_response() {
    let mut bench = bench(FULL, &[("a", "0")], Request::default());
    let sent = expect(&mut bench, &["a"], &[]);
    for change in 1..=100 {
        bench.set("a", &change.to_string());
        bench.set(&format!("b{}", change % 2), &change.to_string());
        assert_silent(&mut bench);
    }
    bench.ask(ack(&sent));
    let (_, reply) = bench.reply().unwrap();
    assert_eq!(content(&reply).0, ["a", "b0", "b1"]);
    assert_eq!(reply.upserts[0].version(), crate::Version::of(b"100"));
}

#[test]
fn without_a_change_there_is_no_response() {
    let mut bench = bench(FULL, &[("a", "1")], Request::default());
    expect_and_ack(&mut bench, &["a"], &[]);
    bench.set("a", "1");
    bench.remove("b");
    assert_silent(&mut bench);
    let mut named = super::Bench::<Delta>::new(NAMED, &[("a", "1")]);
    named.ask(subscribe(&["a"]));
    expect_and_ack(&mut named, &["a"], &[]);
    named.set("other", "1");
    assert_silent(&mut named);
}

#[test]
fn removals_wait_for_the_gate_and_a_name_that_comes_back_is_not_removed() {
    let mut bench = bench(FULL, &[("a", "1"), ("b", "1")], Request::default());
    expect_and_ack(&mut bench, &["a", "b"], &[]);
    bench.remove("a");
    bench.remove("b");
    assert!(bench.reply_through(Gate::Shut).is_none());
    assert!(bench.reply_through(Gate::Additions).is_none());
    bench.set("a", "2");
    expect_and_ack(&mut bench, &["a"], &["b"]);
}

#[test]
fn removals_go_one_by_one_as_far_as_the_gate_is_open() {
    let mut bench = bench(FULL, &[("a", "1"), ("b", "1")], Request::default());
    expect_and_ack(&mut bench, &["a", "b"], &[]);
    bench.remove("a");
    bench.absorb().unwrap();
    let first = bench.sequence;
    bench.remove("b");
    let (sent, reply) = bench.reply_through(Gate::Through(first)).unwrap();
    assert_eq!((content(&reply), sent.complete), ((vec![], strings(["a"])), false));
    bench.ask(ack(&sent));
    assert_eq!(bench.settled_through(), first);
    expect_and_ack(&mut bench, &[], &["b"]);
}

#[test]
fn no_name_stands_twice_in_a_response() {
    // Envoy rejects one that has a name twice.
    let mut bench = bench(FULL, &[("a", "1")], subscribe(&["*", "a"]));
    expect_and_ack(&mut bench, &["a"], &[]);
    bench.remove("a");
    assert!(bench.reply_through(Gate::Additions).is_none());
    bench.ask(unsubscribe(&["a"]));
    assert!(bench.reply_through(Gate::Additions).is_none(), "the removal is still held back");
    expect_and_ack(&mut bench, &[], &["a"]);
    assert_silent(&mut bench);

    bench.set("a", "2");
    expect_and_ack(&mut bench, &["a"], &[]);
    bench.remove("a");
    bench.absorb().unwrap();
    bench.subscription.progress_mut().touch(&"a".into());
    expect_and_ack(&mut bench, &[], &["a"]);
    assert_silent(&mut bench);
}
