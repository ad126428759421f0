//! What a user relies on, in plain numbers.

use std::time::Duration;

use super::{START, Subject, Trial, ask, bucket, window};
use crate::{
    model::{
        cell::DEBT,
        descriptor::Hits,
        limit::{Algorithm, Limit, MAX_PERIOD},
        rule::Policy,
    },
    store::Ask,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

pub(super) async fn all(subject: &Subject<'_>) {
    nothing_asked_is_nothing_answered(subject).await;
    a_bucket_admits_its_burst_and_then_its_rate(subject).await;
    a_window_admits_so_many_until_it_ends(subject).await;
    a_look_changes_nothing(subject).await;
    what_is_given_back_can_be_taken_again(subject).await;
    a_bucket_cannot_be_given_more_than_it_holds(subject).await;
    debt_is_paid_before_anyone_is_admitted(subject).await;
    debt_beyond_all_measure_is_paid_off_some_day(subject).await;
    cells_do_not_touch_each_other(subject).await;
    asks_of_one_call_are_charged_in_turn(subject).await;
    an_edited_limit_goes_on_from_the_same_cell(subject).await;
    another_algorithm_starts_afresh(subject).await;
    a_limit_of_zero_refuses_and_leaves_the_cell_alone(subject).await;
    more_than_the_burst_is_refused_and_costs_nothing(subject).await;
    limits_at_the_ends_of_their_range_are_counted(subject).await;
}

async fn nothing_asked_is_nothing_answered(subject: &Subject<'_>) {
    let mut trial = Trial::new(subject, "nothing asked");
    assert!(trial.charge(&[]).await.is_empty());
}

async fn a_bucket_admits_its_burst_and_then_its_rate(subject: &Subject<'_>) {
    let mut trial = Trial::new(subject, "burst, then rate");
    let limit = bucket(10, SECOND, 3);
    for left in [2, 1, 0] {
        let outcome = trial.take(0, limit, 1).await;
        assert!(outcome.admitted && outcome.remaining == left && outcome.retry.is_zero(), "{outcome:?}");
    }
    let refused = trial.take(0, limit, 1).await;
    assert!(!refused.admitted, "{refused:?}");
    assert_eq!((refused.retry, refused.reset), (Duration::from_millis(100), Duration::from_millis(300)));
    trial.advance(Duration::from_micros(99_999));
    assert!(!trial.take(0, limit, 1).await.admitted);
    trial.advance(Duration::from_micros(1));
    assert!(trial.take(0, limit, 1).await.admitted);
    assert!(!trial.take(0, limit, 1).await.admitted);
    trial.advance(SECOND);
    assert_eq!(trial.take(0, limit, 1).await.remaining, 2);
}

async fn a_window_admits_so_many_until_it_ends(subject: &Subject<'_>) {
    let mut trial = Trial::new(subject, "windows");
    let limit = window(2, HOUR);
    assert_eq!(START.as_secs() % 3_600, 0);
    trial.advance(HOUR / 4);
    assert_eq!(trial.take(0, limit, 1).await.reset, HOUR / 4 * 3);
    assert!(trial.take(0, limit, 1).await.admitted);
    let refused = trial.take(0, limit, 1).await;
    assert!(!refused.admitted && refused.retry == HOUR / 4 * 3, "{refused:?}");
    // What is refused counts too: giving back the one that was too many frees nothing.
    trial.give_back(0, limit, 1).await;
    assert!(!trial.take(0, limit, 1).await.admitted);
    trial.advance(HOUR / 4 * 3 - Duration::from_micros(1));
    assert!(!trial.take(0, limit, 1).await.admitted);
    trial.advance(Duration::from_micros(1));
    assert_eq!(trial.take(0, limit, 1).await.remaining, 1);
    trial.advance(5 * HOUR);
    assert_eq!(trial.take(0, limit, 1).await.remaining, 1);
}

async fn a_look_changes_nothing(subject: &Subject<'_>) {
    for (name, limit) in [("look at a bucket", bucket(3, HOUR, 3)), ("look at a window", window(3, HOUR))] {
        let mut trial = Trial::new(subject, name);
        for _ in 0..3 {
            let look = trial.take(0, limit, 0).await;
            assert!(look.admitted && look.remaining == 3, "{look:?}");
        }
        assert_eq!(trial.take(0, limit, 2).await.remaining, 1);
        assert_eq!(trial.take(0, limit, 0).await.remaining, 1);
        assert_eq!(trial.take(0, limit, 1).await.remaining, 0);
        let look = trial.take(0, limit, 0).await;
        assert!(!look.admitted && look.remaining == 0, "{look:?}");
    }
}

async fn what_is_given_back_can_be_taken_again(subject: &Subject<'_>) {
    for (name, limit) in [("refund of a bucket", bucket(5, HOUR, 5)), ("refund of a window", window(5, HOUR))] {
        let mut trial = Trial::new(subject, name);
        assert_eq!(trial.take(0, limit, 5).await.remaining, 0);
        let given = trial.give_back(0, limit, 2).await;
        assert!(given.admitted && given.remaining == 2, "{given:?}");
        assert_eq!(trial.take(0, limit, 2).await.remaining, 0);
        assert!(!trial.take(0, limit, 1).await.admitted);
    }
}

async fn a_bucket_cannot_be_given_more_than_it_holds(subject: &Subject<'_>) {
    for (name, limit) in [("overfull bucket", bucket(4, HOUR, 4)), ("overfull window", window(4, HOUR))] {
        let mut trial = Trial::new(subject, name);
        assert_eq!(trial.give_back(0, limit, 10).await.remaining, 4);
        assert_eq!(trial.take(0, limit, 1).await.remaining, 3);
        assert_eq!(trial.give_back(0, limit, u64::MAX).await.remaining, 4);
        assert_eq!(trial.take(0, limit, 4).await.remaining, 0);
        assert!(!trial.take(0, limit, 1).await.admitted);
    }
}

async fn debt_is_paid_before_anyone_is_admitted(subject: &Subject<'_>) {
    let mut trial = Trial::new(subject, "debt");
    let limit = bucket(10, SECOND, 10);
    let debt = Ask { policy: Policy { debt: true, strict: true, ..Policy::default() }, ..one(&trial, limit) };
    let over = trial.one(Ask { hits: Hits::Take(15), ..debt }).await;
    assert!(!over.admitted && over.remaining == 0 && over.reset == SECOND * 3 / 2, "{over:?}");
    trial.advance(SECOND / 2);
    assert!(!trial.one(debt).await.admitted);
    trial.advance(SECOND / 5);
    let paid = trial.one(debt).await;
    assert!(paid.admitted && paid.remaining == 0, "{paid:?}");
    // The same cell, asked without debt.
    assert!(!trial.one(one(&trial, limit)).await.admitted);
}

async fn debt_beyond_all_measure_is_paid_off_some_day(subject: &Subject<'_>) {
    let mut trial = Trial::new(subject, "endless debt");
    let limit = bucket(1, SECOND, 1);
    let debt = Ask { policy: Policy { debt: true, strict: true, ..Policy::default() }, ..one(&trial, limit) };
    for hits in [u64::MAX, u64::MAX, 1, 0] {
        let refused = trial.one(Ask { hits: Hits::Take(hits), ..debt }).await;
        assert!(!refused.admitted && refused.reset == DEBT + SECOND, "{hits}: {refused:?}");
    }
    trial.advance(DEBT);
    assert!(!trial.one(ask(debt.key, limit, Hits::Take(1))).await.admitted);
    trial.advance(SECOND);
    assert!(trial.one(debt).await.admitted);
}

async fn cells_do_not_touch_each_other(subject: &Subject<'_>) {
    let mut trial = Trial::new(subject, "many cells");
    let limit = bucket(1, HOUR, 1);
    for n in 0..200 {
        assert!(trial.take(n, limit, 1).await.admitted, "{n}");
    }
    for n in 0..200 {
        assert!(!trial.take(n, limit, 1).await.admitted, "{n}");
    }
}

async fn asks_of_one_call_are_charged_in_turn(subject: &Subject<'_>) {
    for (name, limit) in [("one call, a bucket", bucket(2, HOUR, 2)), ("one call, a window", window(2, HOUR))] {
        let mut trial = Trial::new(subject, name);
        let (first, second) = (ask(trial.key(0), limit, Hits::Take(1)), ask(trial.key(1), limit, Hits::Take(2)));
        let outcomes = trial.charge(&[first, second, first, first]).await;
        let answers: Vec<_> = outcomes.iter().map(|outcome| (outcome.admitted, outcome.remaining)).collect();
        assert_eq!(answers, [(true, 1), (true, 0), (true, 0), (false, 0)]);
        // More than fit in place.
        let asks: Vec<Ask> = (10..30).map(|n| ask(trial.key(n), limit, Hits::Take(1))).collect();
        assert!(trial.charge(&asks).await.iter().all(|outcome| outcome.admitted && outcome.remaining == 1));
    }
}

async fn an_edited_limit_goes_on_from_the_same_cell(subject: &Subject<'_>) {
    let mut trial = Trial::new(subject, "edited bucket");
    assert_eq!(trial.take(0, bucket(10, SECOND, 10), 10).await.remaining, 0);
    // The cell is full for another second, which at the new rate is a hundred hits of a thousand.
    assert_eq!(trial.take(0, bucket(100, SECOND, 1_000), 0).await.remaining, 900);
    assert!(!trial.take(0, bucket(1, SECOND, 1), 1).await.admitted);
    let mut trial = Trial::new(subject, "edited window");
    assert_eq!(trial.take(0, window(10, HOUR), 4).await.remaining, 6);
    assert_eq!(trial.take(0, window(5, HOUR), 0).await.remaining, 1);
    assert_eq!(trial.take(0, window(20, HOUR), 1).await.remaining, 15);
}

async fn another_algorithm_starts_afresh(subject: &Subject<'_>) {
    let mut trial = Trial::new(subject, "another algorithm");
    assert_eq!(trial.take(0, bucket(3, HOUR, 3), 3).await.remaining, 0);
    assert_eq!(trial.take(0, window(3, HOUR), 1).await.remaining, 2);
    assert_eq!(trial.take(1, window(3, HOUR), 3).await.remaining, 0);
    assert_eq!(trial.take(1, bucket(3, HOUR, 3), 1).await.remaining, 2);
}

async fn a_limit_of_zero_refuses_and_leaves_the_cell_alone(subject: &Subject<'_>) {
    for algorithm in [Algorithm::TokenBucket, Algorithm::FixedWindow] {
        let mut trial = Trial::new(subject, format!("zero, {algorithm:?}"));
        let some = Limit::new(3, HOUR, None, algorithm).unwrap();
        let zero = Limit::new(0, HOUR, None, algorithm).unwrap();
        assert_eq!(trial.take(0, some, 1).await.remaining, 2);
        let refused = trial.take(0, zero, 1).await;
        assert!(!refused.admitted && refused.retry == Duration::MAX, "{refused:?}");
        assert!(!trial.take(0, zero, u64::MAX).await.admitted);
        assert_eq!(trial.take(0, some, 0).await.remaining, 2);
    }
}

async fn more_than_the_burst_is_refused_and_costs_nothing(subject: &Subject<'_>) {
    let mut trial = Trial::new(subject, "more than the burst");
    let limit = bucket(5, SECOND, 5);
    for hits in [6, u64::from(u32::MAX), u64::MAX / 2, u64::MAX] {
        let refused = trial.take(0, limit, hits).await;
        assert!(!refused.admitted && refused.remaining == 5 && refused.retry == Duration::MAX, "{hits}: {refused:?}");
    }
    assert_eq!(trial.take(0, limit, 5).await.remaining, 0);
}

async fn limits_at_the_ends_of_their_range_are_counted(subject: &Subject<'_>) {
    let shortest = Duration::from_millis(1);
    let limits = [
        (1, shortest, Some(1)),
        (u32::MAX, shortest, None),
        (u32::MAX, shortest, Some(1)),
        (1, MAX_PERIOD, None),
        (1, MAX_PERIOD, Some(10)),
        (u32::MAX, MAX_PERIOD, None),
        (u32::MAX, Duration::from_secs(1), Some(u32::MAX)),
    ];
    for algorithm in [Algorithm::TokenBucket, Algorithm::FixedWindow] {
        for (requests, per, burst) in limits {
            let limit = Limit::new(requests, per, burst, algorithm).unwrap();
            let mut trial = Trial::new(subject, format!("ends of the range, {limit:?}"));
            let most = match algorithm {
                Algorithm::TokenBucket => limit.burst(),
                Algorithm::FixedWindow => limit.requests(),
            };
            assert_eq!(trial.take(0, limit, 1).await.remaining, u64::from(most) - 1, "{limit:?}");
            assert_eq!(trial.take(0, limit, u64::from(most) - 1).await.remaining, 0, "{limit:?}");
            assert!(!trial.take(0, limit, 1).await.admitted, "{limit:?}");
            trial.advance(per);
            assert!(trial.take(0, limit, 1).await.admitted, "{limit:?}");
        }
    }
}

fn one(trial: &Trial<'_>, limit: Limit) -> Ask {
    ask(trial.key(0), limit, Hits::Take(1))
}
