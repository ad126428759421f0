use chancery_proto::{envoy::discovery::DiscoveryRequest, google::rpc::Status};

use super::*;
use crate::subscription::sotw::{Sotw, SotwReply};

pub(super) type Request = DiscoveryRequest;

fn request(names: &[&str]) -> Request {
    Request { resource_names: strings(names), ..Request::default() }
}

pub(super) fn ack(sent: &Sent, names: &[&str]) -> Request {
    Request { version_info: sent.version.to_string(), response_nonce: sent.nonce.to_string(), ..request(names) }
}

fn nack(sent: &Sent, names: &[&str], message: &str) -> Request {
    let error_detail = Some(Status { message: message.into(), ..Status::default() });
    Request { error_detail, ..ack(sent, names) }
}

fn content(reply: &SotwReply) -> Vec<String> {
    strings(reply.resources.iter().map(Resource::name))
}

#[track_caller]
fn expect(bench: &mut Bench<Sotw>, resources: &[&str]) -> Sent {
    let (sent, reply) = bench.reply().expect("a response");
    assert_eq!(content(&reply), strings(resources));
    sent
}

#[track_caller]
fn expect_and_ack(bench: &mut Bench<Sotw>, resources: &[&str], names: &[&str]) -> Sent {
    let sent = expect(bench, resources);
    assert_eq!(bench.ask(ack(&sent, names)), Verdict::Acknowledged(sent.clone()));
    sent
}

fn bench(rules: TypeRules, resources: &[(&str, &str)], names: &[&str]) -> Bench<Sotw> {
    let mut bench = Bench::new(rules, resources);
    assert_eq!(bench.ask(request(names)), Verdict::None);
    bench
}

#[test]
fn a_rejection_is_known_by_its_error_alone() {
    let mut bench = bench(NAMED, &[("a", "1")], &["a"]);
    let first = expect_and_ack(&mut bench, &["a"], &["a"]);
    bench.set("a", "2");
    let second = expect(&mut bench, &["a"]);
    // A client that rejects repeats the version it has; one that accepts may, against the rules, as well.
    let old_version = Request { version_info: first.version.to_string(), ..ack(&second, &["a"]) };
    assert_eq!(bench.ask(old_version), Verdict::Acknowledged(second));
    bench.set("a", "3");
    let third = expect(&mut bench, &["a"]);
    let new_version = nack(&third, &["a"], "bad");
    assert_eq!(bench.ask(new_version), Verdict::Rejected(third, "bad".into()));
    assert_silent(&mut bench);
    bench.set("a", "4");
    expect_and_ack(&mut bench, &["a"], &["a"]);
}

#[test]
fn a_request_with_a_stale_nonce_is_dropped() {
    let mut bench = bench(NAMED, &[("a", "1"), ("b", "1")], &["a"]);
    let first = expect_and_ack(&mut bench, &["a"], &["a"]);
    bench.set("a", "2");
    let second = expect(&mut bench, &["a"]);
    assert_eq!(bench.ask(nack(&first, &["a", "b"], "late")), Verdict::None);
    assert_eq!(bench.ask(request(&["a", "b"])), Verdict::None);
    assert_silent(&mut bench);
    assert_eq!(bench.ask(ack(&second, &["a", "b"])), Verdict::Acknowledged(second));
    expect_and_ack(&mut bench, &["b"], &["a", "b"]);
}

#[test]
fn a_list_in_a_stale_request_does_not_count() {
    let mut bench = bench(NAMED, &[("a", "1"), ("b", "1")], &["a", "b"]);
    let first = expect_and_ack(&mut bench, &["a", "b"], &["a", "b"]);
    bench.set("a", "2");
    let second = expect(&mut bench, &["a"]);
    bench.ask(ack(&first, &["a"]));
    bench.ask(ack(&second, &["a", "b"]));
    assert_silent(&mut bench);
}

#[test]
fn requests_before_the_first_response_all_count() {
    let mut bench = bench(NAMED, &[("a", "1"), ("b", "1")], &["a"]);
    bench.ask(request(&["a", "b"]));
    expect_and_ack(&mut bench, &["a", "b"], &["a", "b"]);
}

#[test]
fn a_newly_requested_name_is_sent_at_an_unchanged_version() {
    let mut bench = bench(NAMED, &[("a", "1"), ("b", "1")], &["a"]);
    let sent = expect_and_ack(&mut bench, &["a"], &["a"]);
    bench.ask(ack(&sent, &["a", "b"]));
    let sent = expect_and_ack(&mut bench, &["b"], &["a", "b"]);
    bench.ask(ack(&sent, &["b"]));
    assert_silent(&mut bench);
    bench.ask(ack(&sent, &["a", "b"]));
    expect_and_ack(&mut bench, &["a"], &["a", "b"]);
}

#[test]
fn a_name_without_resource_is_remembered() {
    let mut bench = bench(NAMED, &[], &["a"]);
    assert_silent(&mut bench);
    bench.set("a", "1");
    expect_and_ack(&mut bench, &["a"], &["a"]);
    bench.remove("a");
    assert_silent(&mut bench);
    assert_eq!(bench.settled_through(), 2, "there is no way to say that it was removed");
    bench.set("a", "1");
    expect_and_ack(&mut bench, &["a"], &["a"]);
}

#[test]
fn a_removal_that_cannot_be_said_settles_when_it_could_have_been() {
    let mut bench = bench(NAMED, &[("a", "1")], &["a"]);
    expect_and_ack(&mut bench, &["a"], &["a"]);
    bench.remove("a");
    assert!(bench.reply_through(Gate::Additions).is_none());
    assert_eq!(bench.settled_through(), 1, "what it refers to has to stay");
    assert_silent(&mut bench);
    assert_eq!(bench.settled_through(), 2);
}

#[test]
fn endpoints_that_are_gone_are_still_sent_to_a_cluster_that_waits_for_them() {
    let mut bench = bench(RESENT, &[("a", "1")], &["b"]);
    assert_silent(&mut bench);
    bench.remove("a");
    bench.ask(request(&["a", "b"]));
    expect_and_ack(&mut bench, &["a"], &["a", "b"]);
}

#[test]
fn where_absence_deletes_a_name_without_resource_is_answered() {
    let mut first = bench(FULL, &[], &["a"]);
    expect_and_ack(&mut first, &[], &["a"]);

    let mut later = bench(FULL, &[("a", "1")], &["a"]);
    let sent = expect_and_ack(&mut later, &["a"], &["a"]);
    later.ask(ack(&sent, &["a", "b"]));
    expect_and_ack(&mut later, &["a"], &["a", "b"]);
}

#[test]
fn no_names_or_a_star_mean_all() {
    for names in [[].as_slice(), &["*"]] {
        let mut bench = bench(FULL, &[("a", "1"), ("b", "1")], names);
        expect_and_ack(&mut bench, &["a", "b"], names);
        bench.set("c", "1");
        expect_and_ack(&mut bench, &["a", "b", "c"], names);
        bench.remove("a");
        expect_and_ack(&mut bench, &["b", "c"], names);
    }
    let mut nothing = bench(NAMED, &[("a", "1")], &[]);
    assert_silent(&mut nothing);
}

#[test]
fn no_names_after_names_mean_none() {
    let mut bench = bench(FULL, &[("a", "1"), ("b", "1")], &["a"]);
    let sent = expect_and_ack(&mut bench, &["a"], &["a"]);
    bench.ask(ack(&sent, &[]));
    assert_silent(&mut bench);
    bench.set("a", "2");
    assert_silent(&mut bench);
    bench.ask(ack(&sent, &["*"]));
    expect_and_ack(&mut bench, &["a", "b"], &["*"]);
}

#[test]
fn names_end_the_legacy_wildcard() {
    let mut bench = bench(FULL, &[("a", "1"), ("b", "1")], &[]);
    let sent = expect_and_ack(&mut bench, &["a", "b"], &[]);
    bench.ask(ack(&sent, &["a"]));
    expect_and_ack(&mut bench, &["a"], &["a"]);
    bench.set("b", "2");
    assert_silent(&mut bench);
}

#[test]
fn a_name_given_twice_is_sent_once() {
    let mut bench = bench(NAMED, &[("a", "1")], &["a", "a"]);
    expect_and_ack(&mut bench, &["a"], &["a", "a"]);
    assert_silent(&mut bench);
}

#[test]
fn other_types_are_sent_in_part() {
    let mut bench = bench(NAMED, &[("a", "1"), ("b", "1")], &["a", "b"]);
    let names = &["a", "b"];
    let sent = expect_and_ack(&mut bench, names, names);
    assert_eq!(sent.set.len(), 2);
    bench.set("b", "2");
    expect_and_ack(&mut bench, &["b"], names);
}

#[test]
fn a_full_response_says_which_of_it_is_new() {
    let mut bench = bench(FULL, &[("a", "1"), ("b", "1")], &[]);
    expect_and_ack(&mut bench, &["a", "b"], &[]);
    bench.set("b", "2");
    let sent = expect_and_ack(&mut bench, &["a", "b"], &[]);
    assert_eq!(strings(&*sent.names), ["a", "b"]);
    assert_eq!(strings(&*sent.set), ["b"]);
}

#[test]
fn what_may_not_be_removed_yet_stays_in_the_set() {
    let mut bench = bench(FULL, &[("a", "1"), ("b", "1")], &[]);
    expect_and_ack(&mut bench, &["a", "b"], &[]);
    bench.remove("a");
    assert!(bench.reply_through(Gate::Additions).is_none(), "nothing but a removal, which has to wait");
    bench.set("c", "1");
    let (sent, reply) = bench.reply_through(Gate::Additions).unwrap();
    assert_eq!((content(&reply), sent.complete), (strings(["b", "c", "a"]), false));
    bench.ask(ack(&sent, &[]));
    expect_and_ack(&mut bench, &["b", "c"], &[]);
    assert_silent(&mut bench);
}

#[test]
fn what_comes_back_before_its_removal_was_sent_is_there_once() {
    let mut bench = bench(FULL, &[("a", "1")], &[]);
    expect_and_ack(&mut bench, &["a"], &[]);
    bench.remove("a");
    assert!(bench.reply_through(Gate::Additions).is_none());
    bench.set("a", "2");
    expect_and_ack(&mut bench, &["a"], &[]);
}

#[test]
fn a_second_response_waits_for_the_answer_to_the_first_however_long() {
    let mut bench = bench(FULL, &[("a", "0")], &[]);
    let sent = expect(&mut bench, &["a"]);
    bench.subscription.progress_mut().give_up_waiting();
    for change in 1..=100 {
        bench.set("a", &change.to_string());
        assert_silent(&mut bench);
    }
    assert_eq!(bench.ask(ack(&sent, &[])), Verdict::Acknowledged(sent));
    let (_, reply) = bench.reply().unwrap();
    assert_eq!(reply.resources[0].version(), crate::Version::of(b"100"));
}

#[test]
fn a_client_that_comes_back_with_the_current_version_is_sent_nothing() {
    for names in [[].as_slice(), &["*"]] {
        let mut bench = bench(FULL, &[("a", "1"), ("b", "1")], names);
        let sent = expect_and_ack(&mut bench, &["a", "b"], names);
        bench.reconnect(FULL);
        bench.ask(Request { response_nonce: String::new(), ..ack(&sent, names) });
        assert_silent(&mut bench);
        assert_eq!(bench.settled_through(), 2);
        bench.set("a", "2");
        assert!(bench.reply().is_some());
    }
}

#[test]
fn a_client_that_comes_back_for_parts_is_sent_everything() {
    for names in [["a"].as_slice(), &["a", "b"]] {
        let mut named = bench(NAMED, &[("a", "1"), ("b", "1")], &["a"]);
        let sent = expect_and_ack(&mut named, &["a"], &["a"]);
        named.reconnect(NAMED);
        named.ask(ack(&sent, names));
        expect_and_ack(&mut named, names, names);
    }

    let mut endpoints = bench(RESENT, &[("a", "1")], &["a"]);
    let sent = expect_and_ack(&mut endpoints, &["a"], &["a"]);
    endpoints.reconnect(RESENT);
    endpoints.ask(ack(&sent, &["a"]));
    expect_and_ack(&mut endpoints, &["a"], &["a"]);
}

#[test]
fn the_version_says_what_a_client_has_even_if_it_was_sent_in_parts() {
    let mut parts = bench(NAMED, &[("a", "1"), ("b", "1")], &["a", "b"]);
    let names = &["a", "b"];
    expect_and_ack(&mut parts, names, names);
    parts.set("a", "2");
    let last = expect_and_ack(&mut parts, &["a"], names);
    let mut whole = bench(NAMED, &[("b", "1"), ("a", "2")], names);
    assert_eq!(expect(&mut whole, names).version, last.version, "whichever server, in whichever order");
}

#[test]
fn what_was_removed_while_a_client_was_away_is_held_back_for_it() {
    let mut bench = bench(FULL, &[("long-gone", "1"), ("a", "1"), ("b", "1")], &[]);
    bench.remove("long-gone");
    let sent = expect_and_ack(&mut bench, &["a", "b"], &[]);
    bench.reconnect(FULL);
    bench.remove("a");
    bench.ask(ack(&sent, &[]));
    let (first, reply) = bench.reply_through(Gate::Additions).unwrap();
    assert_eq!(content(&reply), ["b", "a"], "what it never had is not brought back");
    bench.ask(ack(&first, &[]));
    expect_and_ack(&mut bench, &["b"], &[]);
}

#[test]
fn a_version_nobody_knows_is_answered_with_everything() {
    let mut bench = Bench::<Sotw>::new(FULL, &[("a", "1")]);
    bench.remove("a");
    bench.ask(Request { version_info: "from another server".into(), ..Request::default() });
    assert!(bench.reply_through(Gate::Additions).is_some_and(|(_, reply)| reply.resources.is_empty()));
}
