//! How far a client has come, and what it means that it does not answer. Shown on the incremental variant.

use super::{
    delta::{Request, ack, bench, expect, nack},
    *,
};

#[test]
fn an_answer_that_comes_after_the_patience_has_ended_still_counts() {
    let mut bench = bench(FULL, &[("a", "1")], Request::default());
    let first = expect(&mut bench, &["a"], &[]);
    bench.subscription.progress_mut().give_up_waiting();
    assert!(!bench.subscription.progress().is_settled(), "silence is not consent");
    assert_eq!(bench.subscription.progress().additions_through(), 1, "but nobody is held back for it");
    bench.set("a", "2");
    let second = expect(&mut bench, &["a"], &[]);
    assert_eq!(bench.ask(nack(&first, "bad")), Verdict::Rejected(first, "bad".into()));
    assert_eq!(bench.settled_through(), 1);
    assert_eq!(bench.ask(ack(&second)), Verdict::Acknowledged(second));
    assert_eq!(bench.settled_through(), 2);
}

#[test]
fn a_client_that_never_answers_costs_no_more_with_time() {
    let mut bench = bench(FULL, &[], Request::default());
    for change in 0..1000 {
        bench.set("a", &change.to_string());
        bench.reply();
        bench.subscription.progress_mut().give_up_waiting();
        bench.later(Duration::from_secs(1));
    }
    assert!(!bench.subscription.progress().is_settled());
    let (last, _) = {
        bench.set("a", "last");
        bench.reply().unwrap()
    };
    assert_eq!(bench.ask(ack(&last)), Verdict::Acknowledged(last));
    assert!(bench.subscription.progress().is_settled());
}

#[test]
fn the_mark_of_what_is_settled_moves_under_steady_changes() {
    let mut bench = bench(FULL, &[("a", "0")], Request::default());
    let mut sent = expect(&mut bench, &["a"], &[]);
    for change in 1..10 {
        bench.set("a", &change.to_string());
        let before = sent.sequence;
        bench.ask(ack(&sent));
        sent = expect(&mut bench, &["a"], &[]);
        assert_eq!(bench.settled_through(), before);
    }
}

#[test]
fn a_stream_that_slept_too_long_is_told_to_start_over() {
    let mut bench = bench(FULL, &[], Request::default());
    for i in 0..5000 {
        bench.set(&format!("n{i}"), "1");
        bench.remove(&format!("n{i}"));
    }
    assert_eq!(bench.absorb(), Err(FellBehind));
}
