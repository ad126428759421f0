//! Shares as proxies report and leave.

use super::*;
use crate::model::limit::Algorithm;

const KEY: CellKey = CellKey(7);
const ONE: Member = Member { stream: StreamId(1), bucket: 0 };
const TWO: Member = Member { stream: StreamId(2), bucket: 0 };

fn limit() -> Limit {
    Limit::new(1_000, Duration::from_secs(1), None, Algorithm::TokenBucket).unwrap()
}

fn usage(hits: u64) -> Usage {
    Usage { allowed: hits, denied: 0, elapsed: REPORT_INTERVAL, overdrawn: false }
}

fn rate(assignment: Assignment) -> u32 {
    match assignment {
        Assignment::Bucket { tokens_per_fill, fill_interval, .. } => tokens_per_fill / fill_interval,
        Assignment::Nothing => 0,
        Assignment::Everything => u32::MAX,
    }
}

/// The reporter's rate, and who else is to be told.
fn report(ledger: &mut Ledger, member: Member, key: CellKey, usage: Usage) -> (u32, Vec<Member>) {
    let mut changed = Vec::new();
    let report = Report { bucket: member.bucket, key, limit: limit(), usage };
    match ledger.report(member.stream, &[report], Instant::now(), &mut changed)[..] {
        [Answer::Assigned(own)] => (rate(own), changed),
        ref other => panic!("{other:?}"),
    }
}

fn given(ledger: &Ledger, member: Member) -> Option<u32> {
    ledger.given(member).map(rate)
}

#[test]
fn the_first_proxy_has_everything_until_another_wants_some() {
    let mut ledger = Ledger::default();
    assert_eq!(report(&mut ledger, ONE, KEY, usage(50_000)), (1_000, Vec::new()));
    assert_eq!(report(&mut ledger, TWO, KEY, usage(50_000)), (500, vec![ONE]));
    assert_eq!(given(&ledger, ONE), Some(500));
}

#[test]
fn who_leaves_gives_back_its_share() {
    let mut ledger = Ledger::default();
    report(&mut ledger, ONE, KEY, usage(50_000));
    report(&mut ledger, TWO, KEY, usage(50_000));
    let mut changed = Vec::new();
    ledger.leave(TWO.stream, &mut changed);
    assert_eq!((changed, given(&ledger, ONE), given(&ledger, TWO)), (vec![ONE], Some(1_000), None));
    let mut changed = Vec::new();
    ledger.leave(ONE.stream, &mut changed);
    assert!(changed.is_empty() && ledger.cells.is_empty() && ledger.places.is_empty(), "{ledger:?}");
}

#[test]
fn two_buckets_of_one_proxy_about_one_cell_share_it() {
    let mut ledger = Ledger::default();
    let other = Member { bucket: 1, ..ONE };
    report(&mut ledger, ONE, KEY, usage(50_000));
    assert_eq!(report(&mut ledger, other, KEY, usage(50_000)), (500, vec![ONE]));
    let mut changed = Vec::new();
    ledger.leave(ONE.stream, &mut changed);
    assert!(changed.is_empty() && ledger.cells.is_empty(), "those who left are told nothing");
}

#[test]
fn a_report_is_dealt_out_once_for_all_its_buckets() {
    let mut ledger = Ledger::default();
    report(&mut ledger, TWO, KEY, usage(50_000));
    let mut changed = Vec::new();
    let reports = [0, 1, 2].map(|bucket| Report { bucket, key: KEY, limit: limit(), usage: usage(50_000) });
    let answers = ledger.report(ONE.stream, &reports, Instant::now(), &mut changed);
    let rates = answers.iter().map(|answer| match answer {
        Answer::Assigned(own) => rate(*own),
        Answer::Abandon => panic!("{answers:?}"),
    });
    assert_eq!((rates.collect::<Vec<_>>(), changed), (vec![250; 3], vec![TWO]));
}

/// As many as clients can make up, if the limit is for all of them together. Anything but linear would not end in time.
#[test]
fn a_cell_may_have_thousands_of_buckets() {
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    let report = |bucket| Report { bucket, key: KEY, limit: limit(), usage: usage(1) };
    let reports: Vec<Report> = (0..10_000).map(report).collect();
    for _ in 0..3 {
        assert_eq!(ledger.report(ONE.stream, &reports, now, &mut Vec::new()).len(), reports.len());
    }
    self::report(&mut ledger, TWO, KEY, usage(1));
    let mut changed = Vec::new();
    ledger.leave(ONE.stream, &mut changed);
    assert_eq!((changed, ledger.cells.len(), ledger.places.len()), (vec![TWO], 1, 1));
}

#[test]
fn a_bucket_whose_rule_changed_leaves_its_old_cell() {
    let mut ledger = Ledger::default();
    report(&mut ledger, ONE, KEY, usage(50_000));
    report(&mut ledger, TWO, KEY, usage(50_000));
    assert_eq!(report(&mut ledger, TWO, CellKey(8), usage(50_000)), (1_000, vec![ONE]));
    assert_eq!(given(&ledger, ONE), Some(1_000));
    let mut changed = Vec::new();
    ledger.forget(TWO.stream, &[TWO.bucket], &mut changed);
    assert!(changed.is_empty() && ledger.cells.len() == 1, "{ledger:?}");
}

#[test]
fn what_is_not_used_for_long_is_abandoned() {
    let (mut ledger, start, mut changed) = (Ledger::default(), Instant::now(), Vec::new());
    let mut report = |hits, now| {
        let report = Report { bucket: ONE.bucket, key: KEY, limit: limit(), usage: usage(hits) };
        ledger.report(ONE.stream, &[report], now, &mut changed)[0]
    };
    report(1, start);
    assert!(matches!(report(0, start + IDLE / 2), Answer::Assigned(_)));
    assert_eq!(report(0, start + IDLE), Answer::Abandon);
    assert!(ledger.cells.is_empty() && changed.is_empty());
}

#[test]
fn an_edited_limit_is_dealt_out_with_the_next_report() {
    let (mut ledger, mut changed) = (Ledger::default(), Vec::new());
    report(&mut ledger, ONE, KEY, usage(50_000));
    // As little as this is told too.
    let edited = Limit::new(990, Duration::from_secs(1), None, Algorithm::TokenBucket).unwrap();
    let edited = Report { bucket: ONE.bucket, key: KEY, limit: edited, usage: usage(50_000) };
    let answer = ledger.report(ONE.stream, &[edited], Instant::now(), &mut changed)[0];
    let Answer::Assigned(Assignment::Bucket { max_tokens: 990, .. }) = answer else { panic!("{answer:?}") };
}

#[test]
fn a_ripple_of_demand_leaves_shares_alone() {
    let mut ledger = Ledger::default();
    report(&mut ledger, ONE, KEY, usage(2_000));
    report(&mut ledger, TWO, KEY, usage(50_000));
    report(&mut ledger, ONE, KEY, usage(2_000));
    let settled = (ledger.given(ONE), ledger.given(TWO));
    for hits in [2_100, 1_900, 2_200, 2_000] {
        assert_eq!(report(&mut ledger, ONE, KEY, usage(hits)).1, []);
        assert_eq!(report(&mut ledger, TWO, KEY, usage(20 * hits)).1, []);
        assert_eq!((ledger.given(ONE), ledger.given(TWO)), settled, "a proxy that is told anew starts afresh");
    }
    // Little by little is not forever.
    for _ in 0..10 {
        report(&mut ledger, ONE, KEY, usage(50_000));
    }
    let (one, two) = (given(&ledger, ONE).unwrap(), given(&ledger, TWO).unwrap());
    assert!(one > 430 && one + two == 1_000, "{one} and {two}");
}

#[test]
fn who_draws_on_an_overdrawn_cell_gets_nothing_until_it_is_not() {
    let mut ledger = Ledger::default();
    report(&mut ledger, ONE, KEY, usage(50_000));
    let overdrawn = Usage { overdrawn: true, ..usage(50_000) };
    assert_eq!(report(&mut ledger, ONE, KEY, overdrawn), (0, Vec::new()));
    // Another's report does not let it go on.
    report(&mut ledger, TWO, KEY, usage(50_000));
    assert_eq!(given(&ledger, ONE), Some(0));
    assert_eq!(report(&mut ledger, ONE, KEY, usage(50_000)).0, 500);
}

#[test]
fn a_flood_is_forgotten_within_a_few_reports() {
    let mut ledger = Ledger::default();
    report(&mut ledger, ONE, KEY, usage(50_000_000));
    report(&mut ledger, TWO, KEY, usage(50_000_000));
    for _ in 0..3 {
        report(&mut ledger, ONE, KEY, usage(0));
    }
    assert!(given(&ledger, TWO).unwrap() > 800, "{ledger:?}");
}
