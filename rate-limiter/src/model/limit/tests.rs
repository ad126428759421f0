//! Which limits there are, and that every one can be counted.

use proptest::prelude::*;

use super::*;
use crate::model::cell::Meter;

proptest! {
    #[test]
    fn every_limit_can_be_counted_in_ticks_of_any_store(
        requests in 1..=u32::MAX, per in 1..=MAX_PERIOD.as_millis() as u64,
        burst in proptest::option::of(1..=u32::MAX), ticks in prop_oneof![Just(8_000_000), Just(1_000_000_000_u64)],
    ) {
        let Ok(limit) = Limit::new(requests, Duration::from_millis(per), burst, Algorithm::TokenBucket) else {
            return Ok(());
        };
        let Meter::Bucket { interval, tolerance, most } = Meter::new(&limit, ticks) else { panic!() };
        let seconds = |ticks_: u64| ticks_ / ticks;
        prop_assert_eq!(Some(tolerance), interval.checked_mul(limit.burst().into()));
        // Rounding adds at most a tick for each hit.
        let longest = MAX_PERIOD.as_secs() * 10 + seconds(limit.burst().into()) + 1;
        prop_assert!(seconds(tolerance) <= longest && seconds(most) <= 2 * longest);
        prop_assert!(u128::from(interval) * u128::from(requests) * 1_000_000_000 >= limit.per().as_nanos() * u128::from(ticks));
    }
}

#[test]
fn what_cannot_be_counted_is_refused() {
    let new =
        |requests, per, burst| Limit::new(requests, per, burst, Algorithm::TokenBucket).map(|limit| limit.burst());
    let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
    assert_eq!(new(5, second, None), Ok(5));
    assert_eq!(new(5, second, Some(1)), Ok(1));
    assert_eq!(new(0, second, None), Ok(1));
    assert_eq!(new(0, MAX_PERIOD, Some(u32::MAX)), Ok(u32::MAX));
    assert_eq!(new(u32::MAX, Duration::from_millis(1), Some(u32::MAX)), Ok(u32::MAX));
    assert_eq!(new(5, second, Some(0)), Err(InvalidLimit::Burst));
    assert_eq!(new(5, Duration::ZERO, None), Err(InvalidLimit::Period));
    assert_eq!(new(5, Duration::from_micros(999), None), Err(InvalidLimit::Period));
    assert_eq!(new(5, MAX_PERIOD, None), Ok(5));
    assert_eq!(new(5, MAX_PERIOD + Duration::from_nanos(1), None), Err(InvalidLimit::Period));
    assert_eq!(new(1, day, Some(3_660)), Ok(3_660));
    assert_eq!(new(1, day, Some(3_661)), Err(InvalidLimit::Refill { burst: 3_661 }));
}

#[test]
fn a_period_is_called_by_its_unit_where_it_is_one() {
    for unit in Unit::ALL {
        let limit = Limit::new(1, unit.duration(), None, Algorithm::FixedWindow).unwrap();
        assert_eq!(limit.unit(), Some(unit));
        assert!(!unit.name().is_empty());
    }
    assert_eq!(Limit::new(1, Duration::from_secs(10), None, Algorithm::FixedWindow).unwrap().unit(), None);
    assert!(Unit::ALL.is_sorted_by_key(|unit| unit.duration()));
}
