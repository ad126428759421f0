use super::*;
use crate::{
    model::{cell::Charged, limit::Algorithm, rule::Policy},
    store::redis::script::Reply,
};

const MS: Duration = Duration::from_millis(1);

/// 1,000 a second; leases of up to 100.
fn limit() -> Limit {
    Limit::new(1_000, Duration::from_secs(1), Some(800), Algorithm::TokenBucket).unwrap()
}

fn ask(hits: Hits) -> Ask {
    Ask { key: CellKey(1), limit: limit(), hits, policy: Policy::default() }
}

/// An entry that sees a thousand hits a second, and the moment.
fn hot() -> (Entry, Instant) {
    let mut now = Instant::now();
    let mut entry = Entry::new(&ask(Hits::Take(1)), now);
    for _ in 0..200 {
        now += MS;
        match entry.decide(&ask(Hits::Take(1)), 1, now) {
            Said::Ask(want) => answer(&mut entry, 0, want, true, now),
            Said::Decided(..) => panic!("nothing was borrowed"),
        }
    }
    (entry, now)
}

/// Redis grants `granted` of those wanted, or refuses.
fn answer(entry: &mut Entry, granted: u32, want: u32, admitted: bool, now: Instant) {
    let call = Call { key: CellKey(1), meter: entry.meter, hits: Hits::Take(1), debt: false, want };
    let retry = if admitted { 0 } else { 8_000 };
    let charged = Charged { cell: 0, admitted, remaining: 5, reset: 0, retry };
    entry.settle(&call, now, Some(&Reply { charged, granted }), 1, now);
}

fn wanted(said: &Said) -> u32 {
    match said {
        Said::Ask(want) => *want,
        Said::Decided(outcome, _) => panic!("{outcome:?}"),
    }
}

fn take(entry: &mut Entry, hits: u64, now: Instant) -> (Option<Outcome>, Option<u32>) {
    match entry.decide(&ask(Hits::Take(hits)), 1, now) {
        Said::Decided(outcome, refill) => (Some(outcome), refill),
        Said::Ask(_) => (None, None),
    }
}

#[test]
fn a_cold_key_borrows_nothing() {
    let now = Instant::now();
    let mut entry = Entry::new(&ask(Hits::Take(1)), now);
    assert_eq!(wanted(&entry.decide(&ask(Hits::Take(1)), 1, now)), 0);
}

/// What a key borrows at its last hit, if it is asked for every `gap` for two seconds.
fn borrows(gap: Duration) -> u32 {
    let mut now = Instant::now();
    let end = now + Duration::from_secs(2);
    let mut entry = Entry::new(&ask(Hits::Take(1)), now);
    let mut want = 0;
    while now < end {
        want = wanted(&entry.decide(&ask(Hits::Take(1)), 1, now));
        answer(&mut entry, 0, want, true, now);
        now += gap;
    }
    want
}

#[test]
fn a_key_borrows_what_it_is_likely_to_use() {
    assert_eq!(borrows(1_000 * MS), 0, "once a second");
    assert_eq!(borrows(250 * MS), 1);
    assert_eq!(borrows(100 * MS), 4);
    assert_eq!(borrows(20 * MS), FEW - 1);
    assert!((45..55).contains(&borrows(MS)));
}

#[test]
fn a_few_tokens_stay_for_their_life() {
    let (mut entry, now) = hot();
    answer(&mut entry, 10, 10, true, now);
    assert_eq!(entry.unused(false, now + LIFE - MS), 0);
    assert!(take(&mut entry, 1, now + LIFE - MS).0.is_some());
    assert_eq!(entry.unused(true, now), 8);
}

#[test]
fn what_was_left_when_another_lease_came_goes_back_as_well() {
    let slow = Limit::new(100, Duration::from_secs(100), Some(800), Algorithm::TokenBucket).unwrap();
    let now = Instant::now();
    let mut entry = Entry::new(&Ask { limit: slow, ..ask(Hits::Take(1)) }, now);
    for lease in 0..3 {
        answer(&mut entry, 40, 40, true, now + lease * LIFE);
    }
    // Less what the bucket gains in two seconds, and one for rounding; of the last one only that.
    assert_eq!(entry.unused(true, now + 2 * LIFE), (80 - 3) + (40 - 1));
    assert_eq!(entry.unused(true, now + 2 * LIFE), 0);
}

#[test]
fn a_hot_key_borrows_fifty_milliseconds_of_its_demand_one_call_at_a_time() {
    let (mut entry, now) = hot();
    let want = wanted(&entry.decide(&ask(Hits::Take(1)), 1, now));
    assert!((40..=60).contains(&want), "{want}");
    assert_eq!(wanted(&entry.decide(&ask(Hits::Take(1)), 1, now)), 0, "one is on its way");
    // The link that carried it is gone.
    assert!(wanted(&entry.decide(&ask(Hits::Take(200)), 1, now + REFILL)) > 0);
}

#[test]
fn at_a_quarter_left_the_next_is_fetched_once() {
    let (mut entry, now) = hot();
    answer(&mut entry, 40, 40, true, now);
    for left in (11..40).rev() {
        let (outcome, refill) = take(&mut entry, 1, now);
        assert_eq!((outcome.unwrap().remaining, refill), (left + 5, None));
    }
    assert!(take(&mut entry, 1, now).1.is_some());
    assert_eq!(take(&mut entry, 1, now).1, None);
    assert!(take(&mut entry, 9, now).0.is_some());
    assert!(take(&mut entry, 1, now).0.is_none(), "a lease is used up");
}

#[test]
fn a_lease_ends_with_its_life() {
    let (mut entry, now) = hot();
    answer(&mut entry, 40, 40, true, now);
    assert!(take(&mut entry, 1, now + LIFE - MS).0.is_some());
    assert!(take(&mut entry, 1, now + LIFE).0.is_none());
}

#[test]
fn what_is_left_of_one_lease_does_not_live_longer_by_the_next() {
    let (mut entry, now) = hot();
    answer(&mut entry, 40, 40, true, now);
    answer(&mut entry, 10, 10, true, now + LIFE - MS);
    assert_eq!(take(&mut entry, 45, now + LIFE - MS).0.unwrap().remaining, 5 + 5);
    let (mut entry, now) = hot();
    answer(&mut entry, 40, 40, true, now);
    answer(&mut entry, 10, 10, true, now + LIFE - MS);
    assert!(take(&mut entry, 11, now + LIFE).0.is_none());
    assert!(take(&mut entry, 10, now + LIFE).0.is_some());
}

#[test]
fn what_is_unused_goes_back_less_what_the_bucket_would_have_gained() {
    let (mut entry, now) = hot();
    answer(&mut entry, 500, 500, true, now);
    assert_eq!(entry.unused(false, now + 150 * MS), 0, "somebody may still come");
    // 200 hits' worth of time, and one for rounding.
    assert_eq!(entry.unused(false, now + 200 * MS), 299);
    assert_eq!(entry.unused(true, now + 200 * MS), 0);
    assert!(take(&mut entry, 1, now + 200 * MS).0.is_none());
    let (mut entry, now) = hot();
    answer(&mut entry, 50, 50, true, now);
    assert_eq!(entry.unused(true, now), 49);
    answer(&mut entry, 50, 50, true, now);
    assert_eq!(entry.unused(false, now + LIFE), 0);
}

#[test]
fn hits_given_back_return_to_the_lease_they_came_from() {
    let (mut entry, now) = hot();
    answer(&mut entry, 40, 40, true, now);
    assert_eq!(take(&mut entry, 3, now).0.unwrap().remaining, 37 + 5);
    let back = |entry: &mut Entry, hits| entry.decide(&ask(Hits::GiveBack(hits)), 1, now);
    assert!(matches!(back(&mut entry, 4), Said::Ask(0)), "more than was handed out");
    assert!(matches!(back(&mut entry, 3), Said::Decided(outcome, None) if outcome.remaining == 45));
    assert!(matches!(back(&mut entry, 1), Said::Ask(0)));
}

#[test]
fn a_refusal_is_remembered_until_a_handful_is_there() {
    let (mut entry, now) = hot();
    answer(&mut entry, 0, 40, false, now);
    // One millisecond by Redis's word, and up to fifty for as many hits.
    let (outcome, _) = take(&mut entry, 1, now + 30 * MS);
    assert_eq!(outcome.unwrap().source, Source::Denial);
    assert!(take(&mut entry, 1, now + 55 * MS).0.is_none());
    answer(&mut entry, 0, 0, false, now + 55 * MS);
    assert!(take(&mut entry, 1, now + 56 * MS).0.is_some());
    assert!(matches!(entry.decide(&ask(Hits::GiveBack(1)), 1, now + 56 * MS), Said::Ask(0)));
    assert!(take(&mut entry, 1, now + 56 * MS).0.is_none(), "what is given back may be taken");
}

#[test]
fn what_was_borrowed_under_another_limit_is_not_used() {
    let (mut entry, now) = hot();
    let other = Limit::new(10, Duration::from_secs(1), Some(10), Algorithm::TokenBucket).unwrap();
    let call = Call {
        key: CellKey(1),
        meter: Meter::new(&other, TICKS_PER_SECOND),
        hits: Hits::Take(1),
        debt: false,
        want: 5,
    };
    let charged = Charged { cell: 0, admitted: true, remaining: 5, reset: 0, retry: 0 };
    entry.settle(&call, now, Some(&Reply { charged, granted: 5 }), 1, now);
    assert!(take(&mut entry, 1, now).0.is_none());
}

#[test]
fn an_idle_entry_is_forgotten_and_a_borrowing_one_is_not() {
    let (mut entry, now) = hot();
    assert!(!entry.is_idle(now + FORGOTTEN - MS) && entry.is_idle(now + FORGOTTEN));
    answer(&mut entry, 40, 40, true, now);
    assert!(!entry.is_idle(now + FORGOTTEN));
    entry.unused(true, now + FORGOTTEN);
    assert!(entry.is_idle(now + FORGOTTEN));
}
