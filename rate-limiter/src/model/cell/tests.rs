//! `Meter` against plain models that count whole numbers of any size: a bucket that is filled and emptied, windows that
//! are remembered for ever, and a log of what was admitted.

use std::collections::HashMap;

use num_bigint::BigInt;
use proptest::{collection::vec, prelude::*};

use super::*;

const NANOSECONDS: u64 = 1_000_000_000;
/// Unix time of a day in 2026 that does not begin a window of any length, in nanoseconds.
const NOW: u64 = 1_785_000_123_456_789_012;

fn limits(algorithm: Algorithm) -> impl Strategy<Value = Limit> {
    let requests = prop_oneof![1..20_u32, 1..=u32::MAX];
    let per = prop_oneof![1..5_000_u64, Just(1_000), Just(60_000), Just(86_400_000), 1..31_000_000_000_u64];
    let burst = proptest::option::of(prop_oneof![1..20_u32, 1..=u32::MAX]);
    (requests, per, burst).prop_filter_map("not a limit", move |(requests, per, burst)| {
        Limit::new(requests, Duration::from_millis(per), burst, algorithm).ok()
    })
}

fn any_limit() -> impl Strategy<Value = Limit> {
    let never = Limit::new(0, Duration::from_secs(1), None, Algorithm::TokenBucket).unwrap();
    prop_oneof![8 => limits(Algorithm::TokenBucket), 4 => limits(Algorithm::FixedWindow), 1 => Just(never)]
}

fn ticks() -> impl Strategy<Value = u64> {
    prop_oneof![Just(NANOSECONDS), Just(8_000_000)]
}

fn amount() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..4_u64, 3 => 0..5_000_000_000_u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn hits() -> impl Strategy<Value = Hits> {
    prop_oneof![4 => amount().prop_map(Hits::Take), 1 => amount().prop_map(Hits::GiveBack)]
}

/// Time from one charge to the next: in thousandths of what one hit costs, of a whole bucket, or in ticks.
#[derive(Clone, Copy, Debug)]
enum Pause {
    Interval(u16),
    Whole(u16),
    Ticks(u64),
}

impl Pause {
    fn ticks(self, meter: Meter) -> u64 {
        let (interval, whole) = match meter {
            Meter::Never => (1, 1),
            Meter::Bucket { interval, tolerance, .. } => (interval, tolerance),
            Meter::Window { period, .. } => (period, period),
        };
        let part = |of: u64, thousandths: u16| (u128::from(of) * u128::from(thousandths) / 1_000) as u64;
        match self {
            Self::Interval(thousandths) => part(interval, thousandths),
            Self::Whole(thousandths) => part(whole, thousandths),
            Self::Ticks(ticks) => ticks,
        }
    }
}

fn pauses() -> impl Strategy<Value = Pause> {
    prop_oneof![
        Just(Pause::Ticks(0)),
        (0..3_u16).prop_map(|hits| Pause::Interval(hits * 1_000)),
        (0..3_000_u16).prop_map(Pause::Interval),
        (0..1_500_u16).prop_map(Pause::Whole),
        (0..1_000_000_000_u64).prop_map(Pause::Ticks),
    ]
}

/// A bucket as one would draw it: it holds `level`, at most `size`, and fills by one part a tick.
struct Bucket {
    interval: BigInt,
    size: BigInt,
    debt: BigInt,
    level: BigInt,
}

impl Bucket {
    fn charge(&mut self, hits: Hits, debt: bool) -> bool {
        let cost = |hits: u64| &self.interval * BigInt::from(hits);
        match hits {
            Hits::GiveBack(hits) => {
                self.level = (&self.level + cost(hits)).min(self.size.clone());
                true
            }
            Hits::Take(hits) => {
                let admitted = self.level >= cost(hits.max(1));
                if admitted {
                    self.level -= cost(hits);
                } else if debt {
                    self.level = (&self.level - cost(hits)).max(-self.debt.clone());
                }
                admitted
            }
        }
    }

    fn wait(&mut self, ticks: u64) {
        self.level = (&self.level + ticks).min(self.size.clone());
    }

    fn hits_left(&self) -> BigInt {
        (&self.level / &self.interval).max(BigInt::ZERO)
    }
}

proptest! {
    #[test]
    fn a_bucket_holds_what_a_plain_one_holds(
        limit in limits(Algorithm::TokenBucket), ticks in ticks(),
        charges in vec((pauses(), hits(), any::<bool>()), 1..60),
    ) {
        let meter = Meter::new(&limit, ticks);
        let Meter::Bucket { interval, tolerance, most } = meter else { panic!("{meter:?}") };
        let mut plain = Bucket {
            interval: interval.into(),
            size: tolerance.into(),
            debt: (most - tolerance).into(),
            level: tolerance.into(),
        };
        let (mut cell, mut now) = (0, NOW);
        for (pause, hits, debt) in charges {
            let pause = pause.ticks(meter);
            now += pause;
            plain.wait(pause);
            let charged = meter.charge(cell, now, hits, debt);
            prop_assert_eq!(charged.admitted, plain.charge(hits, debt));
            prop_assert_eq!(BigInt::from(charged.remaining), plain.hits_left());
            prop_assert_eq!(BigInt::from(charged.reset), &plain.size - &plain.level);
            prop_assert_eq!(charged.cell, now + charged.reset);
            cell = charged.cell;
        }
    }

    #[test]
    fn no_interval_admits_more_than_the_burst_and_the_rate(
        limit in limits(Algorithm::TokenBucket), ticks in ticks(),
        charges in vec((pauses(), proptest::option::of(amount()), any::<bool>()), 1..50),
    ) {
        let meter = Meter::new(&limit, ticks);
        let mut log: Vec<(u64, u64)> = Vec::new();
        let (mut cell, mut now) = (0, NOW);
        for (pause, hits, debt) in charges {
            now += pause.ticks(meter);
            // The greediest takes whatever is left.
            let hits = hits.unwrap_or_else(|| meter.charge(cell, now, Hits::Take(0), false).remaining);
            let charged = meter.charge(cell, now, Hits::Take(hits), debt);
            cell = charged.cell;
            if charged.admitted {
                log.push((now, hits));
            }
            let mut sum = BigInt::ZERO;
            for (since, hits) in log.iter().rev() {
                sum += *hits;
                // sum <= burst + rate * time, without a division: ticks * per * sum <= ticks * per * burst + requests * time.
                let scale = BigInt::from(limit.per().as_nanos()) * ticks;
                let rate = BigInt::from(now - since) * limit.requests() * NANOSECONDS;
                prop_assert!(&scale * &sum <= scale * limit.burst() + rate, "{sum} hits in {} ticks", now - since);
            }
        }
    }

    #[test]
    fn windows_count_what_plain_ones_count(
        limit in limits(Algorithm::FixedWindow), ticks in ticks(),
        charges in vec((pauses(), hits()), 1..60),
    ) {
        let meter = Meter::new(&limit, ticks);
        let Meter::Window { period, requests } = meter else { panic!("{meter:?}") };
        let mut windows: HashMap<u64, BigInt> = HashMap::new();
        let (mut cell, mut now) = (0, NOW);
        for (pause, hits) in charges {
            now += pause.ticks(meter);
            let count = windows.entry(now / period).or_default();
            let admitted = match hits {
                Hits::GiveBack(hits) => {
                    *count = (&*count - hits).max(BigInt::ZERO);
                    true
                }
                Hits::Take(hits) => {
                    let admitted = &*count + hits.max(1) <= BigInt::from(requests);
                    *count = (&*count + hits).min(BigInt::from(COUNT_MASK));
                    admitted
                }
            };
            let charged = meter.charge(cell, now, hits, false);
            prop_assert_eq!(charged.admitted, admitted);
            prop_assert_eq!(BigInt::from(charged.remaining), (BigInt::from(requests) - &*count).max(BigInt::ZERO));
            prop_assert_eq!((now + charged.reset) % period, 0);
            prop_assert!((1..=period).contains(&charged.reset));
            cell = charged.cell;
        }
    }

    #[test]
    fn whatever_a_cell_holds_it_shuts_for_a_bounded_time(
        limit in any_limit(), ticks in ticks(),
        cell in prop_oneof![any::<u64>(), Just(u64::MAX), NOW..NOW * 2],
        now in prop_oneof![any::<u64>(), Just(0), Just(u64::MAX), Just(NOW)],
        hits in hits(), debt in any::<bool>(),
    ) {
        let meter = Meter::new(&limit, ticks);
        let charged = meter.charge(cell, now, hits, debt);
        let (bound, most) = match meter {
            Meter::Never => (0, 0),
            Meter::Bucket { most, .. } => (most, limit.burst()),
            Meter::Window { period, requests } => (period, requests as u32),
        };
        prop_assert!(charged.reset <= bound);
        prop_assert!(charged.remaining <= most.into());
        prop_assert_eq!(charged.retry == 0, charged.admitted);
        if charged.retry != u64::MAX {
            prop_assert!(charged.retry <= bound);
        }
        let expires = meter.expires(charged.cell, now);
        prop_assert!(expires >= now && expires - now <= bound);
    }

    #[test]
    fn a_look_changes_nothing_and_says_what_one_hit_would_be_told(
        limit in any_limit(), used in amount(), later in pauses(), debt in any::<bool>(),
    ) {
        let meter = Meter::new(&limit, NANOSECONDS);
        let cell = meter.charge(0, NOW, Hits::Take(used), debt).cell;
        let now = NOW + later.ticks(meter);
        let look = meter.charge(cell, now, Hits::Take(0), debt);
        let one = meter.charge(cell, now, Hits::Take(1), false);
        prop_assert_eq!((look.admitted, look.retry), (one.admitted, one.retry));
        prop_assert_eq!(look.admitted, look.remaining > 0);
        for hits in [Hits::Take(1), Hits::Take(used), Hits::GiveBack(used)] {
            prop_assert_eq!(meter.charge(look.cell, now, hits, debt), settled(meter, cell, now, hits, debt));
        }
    }

    #[test]
    fn what_is_given_back_at_once_was_never_taken(
        limit in any_limit(), used in amount(), hits in 1..u64::MAX, later in pauses(),
    ) {
        let meter = Meter::new(&limit, NANOSECONDS);
        let cell = meter.charge(0, NOW, Hits::Take(used), false).cell;
        let now = NOW + later.ticks(meter);
        let before = meter.charge(cell, now, Hits::Take(0), false);
        let taken = meter.charge(cell, now, Hits::Take(hits), false);
        if taken.admitted {
            let back = meter.charge(taken.cell, now, Hits::GiveBack(hits), false);
            prop_assert_eq!((back.cell, back.remaining, back.reset), (before.cell, before.remaining, before.reset));
        }
        let full = meter.charge(0, now, Hits::Take(0), false).remaining;
        prop_assert!(meter.charge(cell, now, Hits::GiveBack(hits), false).remaining <= full);
    }

    #[test]
    fn after_the_time_to_retry_and_no_earlier_the_hits_are_admitted(
        limit in any_limit(), used in amount(), hits in amount(), later in pauses(), debt in any::<bool>(),
    ) {
        let meter = Meter::new(&limit, NANOSECONDS);
        let cell = meter.charge(0, NOW, Hits::Take(used), true).cell;
        let now = NOW + later.ticks(meter);
        let charged = meter.charge(cell, now, Hits::Take(hits), debt);
        if charged.retry == u64::MAX {
            prop_assert!(!meter.charge(0, now, Hits::Take(hits), debt).admitted);
        } else if !charged.admitted {
            prop_assert!(meter.charge(charged.cell, now + charged.retry, Hits::Take(hits), debt).admitted);
            prop_assert!(!meter.charge(charged.cell, now + charged.retry - 1, Hits::Take(hits), debt).admitted);
        }
    }

    #[test]
    fn a_cell_expires_when_it_says_no_more_than_an_absent_one(
        limit in any_limit(), used in amount(), later in pauses(), debt in any::<bool>(),
    ) {
        let meter = Meter::new(&limit, NANOSECONDS);
        let cell = meter.charge(0, NOW, Hits::Take(used), debt).cell;
        let now = NOW + later.ticks(meter);
        let at = meter.expires(cell, now);
        let say = |cell, at| meter.charge(cell, at, Hits::Take(0), debt);
        prop_assert_eq!(say(cell, at).remaining, say(0, at).remaining);
        prop_assert_eq!(say(cell, at).admitted, say(0, at).admitted);
        if at > now {
            prop_assert_ne!(settled(meter, cell, at - 1, Hits::Take(0), debt), settled(meter, 0, at - 1, Hits::Take(0), debt));
        }
    }
}

/// A charge after a look: a cell that lies in the past and one that says "now" are the same.
fn settled(meter: Meter, cell: u64, now: u64, hits: Hits, debt: bool) -> Charged {
    meter.charge(meter.charge(cell, now, Hits::Take(0), debt).cell, now, hits, debt)
}

#[test]
fn a_limit_of_zero_refuses_always() {
    for algorithm in [Algorithm::TokenBucket, Algorithm::FixedWindow] {
        let limit = Limit::new(0, Duration::from_secs(1), None, algorithm).unwrap();
        let meter = Meter::new(&limit, NANOSECONDS);
        for hits in [0, 1, u64::MAX] {
            let charged = meter.charge(0, NOW, Hits::Take(hits), true);
            assert_eq!((charged.admitted, charged.remaining, charged.retry), (false, 0, u64::MAX));
        }
        assert!(meter.charge(0, NOW, Hits::GiveBack(1), false).admitted);
    }
}

#[test]
fn a_mistaken_bill_is_paid_within_ten_minutes_of_a_full_bucket() {
    let limit = Limit::new(100, Duration::from_secs(1), None, Algorithm::TokenBucket).unwrap();
    let charged = Meter::new(&limit, NANOSECONDS).charge(0, NOW, Hits::Take(u64::MAX), true);
    assert_eq!(Duration::from_nanos(charged.reset), DEBT + Duration::from_secs(1));
}

#[test]
fn an_edited_limit_goes_on_from_what_was_used() {
    let meter = |requests, per| {
        let limit = Limit::new(requests, Duration::from_secs(per), None, Algorithm::TokenBucket).unwrap();
        Meter::new(&limit, NANOSECONDS)
    };
    let hour = meter(60, 3_600).charge(0, NOW, Hits::Take(30), false);
    // Half an hour is used. A bucket that fills in a second takes it for empty, and is not shut for half an hour.
    let second = meter(100, 1).charge(hour.cell, NOW, Hits::Take(1), false);
    assert!(!second.admitted && Duration::from_nanos(second.reset) <= DEBT + Duration::from_secs(1));
    let more = meter(600, 3_600).charge(hour.cell, NOW, Hits::Take(0), false);
    assert_eq!(more.remaining, 300);
}
