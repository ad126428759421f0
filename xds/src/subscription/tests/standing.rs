//! What is known of a client's resources without a map of them. Shown on both variants where they differ.

use super::{
    delta::{Request, ack, bench, expect, expect_and_ack, nack, subscribe},
    *,
};
use crate::subscription::{State, delta::Delta};

/// `name state`, with a `+` where the client has one of that name.
fn shown<S: Subscription>(bench: &Bench<S>) -> Vec<String> {
    let tables = bench.cache.snapshot();
    let standings = bench.subscription.progress().standings(tables.table(T)).into_iter();
    standings.map(|s| format!("{} {:?}{}", s.name, s.state, if s.held { "+" } else { "" })).collect()
}

fn piecewise() -> TypeRules {
    TypeRules { piecewise: true, ..FULL }
}

#[test]
fn a_resource_is_unsent_then_unanswered_then_had() {
    let mut bench = Bench::<Delta>::new(NAMED, &[("a", "1"), ("other", "1")]);
    assert_eq!(shown(&bench), [""; 0]);
    bench.ask(subscribe(&["a", "nowhere"]));
    assert_eq!(shown(&bench), ["a Unsent", "nowhere Absent"]);
    let sent = expect(&mut bench, &["a"], &["nowhere"]);
    assert_eq!(shown(&bench), ["a Unanswered", "nowhere Absent"]);
    bench.ask(ack(&sent));
    assert_eq!(shown(&bench), ["a Current+", "nowhere Absent"]);
    bench.set("a", "2");
    assert_eq!(shown(&bench), ["a Unsent+", "nowhere Absent"], "also if the stream has not looked yet");
    bench.absorb().unwrap();
    assert_eq!(shown(&bench), ["a Unsent+", "nowhere Absent"]);
    let sent = expect(&mut bench, &["a"], &[]);
    assert_eq!(shown(&bench), ["a Unanswered+", "nowhere Absent"]);
    bench.ask(ack(&sent));
    assert_eq!(shown(&bench), ["a Current+", "nowhere Absent"]);
}

#[test]
fn what_is_rejected_stays_so_until_there_is_another() {
    let mut bench = bench(piecewise(), &[("a", "1"), ("b", "1")], Request::default());
    let sent = expect(&mut bench, &["a", "b"], &[]);
    bench.ask(nack(&sent, "cluster(s) b: bad"));
    assert_eq!(shown(&bench), ["a Current+", "b Rejected"]);
    bench.set("a", "2");
    let sent = expect(&mut bench, &["a"], &[]);
    bench.ask(nack(&sent, "cluster(s) a: bad"));
    assert_eq!(shown(&bench), ["a Rejected+", "b Rejected"]);
    bench.set("b", "2");
    bench.absorb().unwrap();
    assert_eq!(shown(&bench), ["a Rejected+", "b Unsent"]);
    expect_and_ack(&mut bench, &["b"], &[]);
    assert_eq!(shown(&bench), ["a Rejected+", "b Current+"]);
}

#[test]
fn what_was_removed_is_there_until_the_client_has_taken_that() {
    let mut bench = bench(FULL, &[("a", "1"), ("b", "1")], Request::default());
    expect_and_ack(&mut bench, &["a", "b"], &[]);
    bench.remove("b");
    bench.absorb().unwrap();
    assert_eq!(shown(&bench), ["a Current+", "b Removing"]);
    let sent = expect(&mut bench, &[], &["b"]);
    assert_eq!(shown(&bench), ["a Current+", "b Removing"]);
    bench.ask(ack(&sent));
    assert_eq!(shown(&bench), ["a Current+"]);
}

#[test]
fn what_cannot_be_used_yet_is_no_difference() {
    let mut bench = bench(NAMED, &[("a", "1")], subscribe(&["a"]));
    bench.subscription.progress_mut().park(|_| false);
    assert_eq!(shown(&bench), [""; 0]);
    bench.subscription.progress_mut().park(|_| true);
    bench.subscription.progress_mut().keep_back(|_| true);
    let kept: Vec<_> = bench.subscription.progress().standings(bench.cache.snapshot().table(T));
    assert_eq!(kept[0].state, State::KeptBack);
}

#[test]
fn who_is_sent_everything_is_not_waited_for_with_all_of_it() {
    use super::sotw;
    use crate::subscription::sotw::Sotw;
    let mut bench = Bench::<Sotw>::new(FULL, &[("a", "1"), ("b", "1")]);
    bench.ask(sotw::Request::default());
    let (sent, _) = bench.reply().unwrap();
    bench.ask(sotw::ack(&sent, &[]));
    bench.set("b", "2");
    bench.reply().unwrap();
    assert_eq!(shown(&bench), ["a Current+", "b Unanswered+"]);
}
