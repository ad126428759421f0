//! How long a request may take: the shortest of what the route, the caller and the caller's proxy say.
//!
//! A route timeout of zero is none (`RouteAction.timeout` of Envoy), and so is an `x-envoy-expected-rq-timeout-ms` of zero, which
//! no proxy sends. A `grpc-timeout` of zero has passed already: a caller computed what remains, and nothing does.
//!
//! What is passed on is rounded down, so that nobody further along has more time than there is.

use std::time::Duration;

use http::HeaderValue;

/// The moment by which a request must have been answered, if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadline(Option<Duration>);

/// What the parties to a request say of how long it may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// The route's; 15 s if it says nothing (Envoy's default), which is the business of who reads the route.
    pub route: Option<Duration>,
    /// `grpc-timeout`.
    pub grpc: Option<Duration>,
    /// `x-envoy-expected-rq-timeout-ms`.
    pub expected: Option<Duration>,
}

/// How long a route lets a request take, and how its endpoint is told: the same for nearly all requests, so it is made once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTimeout {
    after: Duration,
    said: HeaderValue,
}

impl RouteTimeout {
    /// So long.
    pub fn new(after: Duration) -> Self {
        Self { after, said: expected_timeout(after) }
    }

    /// How long.
    pub fn after(&self) -> Duration {
        self.after
    }

    /// The same as an `x-envoy-expected-rq-timeout-ms`.
    pub fn said(&self) -> HeaderValue {
        self.said.clone()
    }
}

impl Deadline {
    /// None: a request may take for ever.
    pub const NEVER: Self = Self(None);

    /// Of a request that arrived at `now`.
    pub fn new(now: Duration, timeouts: Timeouts) -> Self {
        let said = |timeout: Option<Duration>| timeout.filter(|timeout| !timeout.is_zero());
        let shortest = [said(timeouts.route), timeouts.grpc, said(timeouts.expected)].into_iter().flatten().min();
        Self(shortest.map(|timeout| now.saturating_add(timeout)))
    }

    /// What remains; none if there is no deadline, and zero if it has passed.
    pub fn remaining(self, now: Duration) -> Option<Duration> {
        self.0.map(|at| at.saturating_sub(now))
    }

    /// Whether it has passed.
    pub fn has_passed(self, now: Duration) -> bool {
        self.0.is_some_and(|at| at <= now)
    }

    /// That of one try that begins at `now` and may take `per_try` (zero is none): no later than this one.
    pub fn of_try(self, now: Duration, per_try: Option<Duration>) -> Self {
        let per_try = per_try.filter(|timeout| !timeout.is_zero()).map(|timeout| now.saturating_add(timeout));
        Self([per_try, self.0].into_iter().flatten().min())
    }
}

/// The longest `grpc-timeout` has so many digits.
const MOST_DIGITS: usize = 8;
const LARGEST: u128 = 99_999_999;

/// Units of `grpc-timeout`, finest first, and the nanoseconds of each.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// The value of `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Requests"). None if it is anything else.
pub fn parse_grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let (_, nanoseconds) = UNITS.iter().find(|(name, _)| name == unit)?;
    let number = parse_digits(digits, MOST_DIGITS)?;
    let total = u128::from(number) * nanoseconds;
    let seconds = u64::try_from(total / 1_000_000_000).ok()?;
    Some(Duration::new(seconds, (total % 1_000_000_000) as u32))
}

/// `timeout` as a `grpc-timeout`, in the finest unit that holds it.
pub fn format_grpc_timeout(timeout: Duration) -> String {
    let total = timeout.as_nanos();
    let (unit, nanoseconds) =
        UNITS.iter().find(|(_, nanoseconds)| total / nanoseconds <= LARGEST).copied().unwrap_or(UNITS[UNITS.len() - 1]);
    format!("{}{}", (total / nanoseconds).min(LARGEST), char::from(unit))
}

/// The value of `x-envoy-expected-rq-timeout-ms`. None if it is no number, or one that no timeout has.
pub fn parse_expected_timeout(value: &[u8]) -> Option<Duration> {
    parse_digits(value, 18).map(Duration::from_millis)
}

/// `timeout` as an `x-envoy-expected-rq-timeout-ms`; at least 1, since zero would mean that there is none.
pub fn expected_timeout(timeout: Duration) -> HeaderValue {
    number(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1))
}

/// As `HeaderValue::from`, but with one allocation instead of two.
fn number(mut number: u64) -> HeaderValue {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] += (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    HeaderValue::from_bytes(&digits[first..]).unwrap_or_else(|_| unreachable!("digits may stand in a header"))
}

fn parse_digits(digits: &[u8], most: usize) -> Option<u64> {
    let valid = (1..=most).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_shortest_counts() {
        for (route, grpc, expected, shortest) in [
            (None, None, None, None),
            (Some(15_000), None, None, Some(15_000)),
            (Some(15_000), Some(100), Some(200), Some(100)),
            (Some(15_000), Some(300), Some(200), Some(200)),
            (Some(50), Some(300), Some(200), Some(50)),
            (Some(0), None, None, None),
            (Some(0), None, Some(200), Some(200)),
            (Some(100), None, Some(0), Some(100)),
            (Some(100), Some(0), None, Some(0)),
        ] {
            let timeouts = Timeouts { route: route.map(ms), grpc: grpc.map(ms), expected: expected.map(ms) };
            let deadline = Deadline::new(ms(7), timeouts);
            assert_eq!(deadline.remaining(ms(7)), shortest.map(ms), "{timeouts:?}");
        }
    }

    #[test]
    fn what_remains_grows_less_and_ends() {
        let deadline = Deadline::new(ms(1_000), Timeouts { route: Some(ms(100)), ..Timeouts::default() });
        assert_eq!(deadline.remaining(ms(1_040)), Some(ms(60)));
        for (now, per_try, remaining) in [(1_040, 25, 25), (1_090, 25, 10), (1_040, 0, 60)] {
            assert_eq!(deadline.of_try(ms(now), Some(ms(per_try))).remaining(ms(now)), Some(ms(remaining)));
        }
        assert!(!deadline.has_passed(ms(1_099)) && deadline.has_passed(ms(1_100)));
        assert_eq!(deadline.remaining(ms(5_000)), Some(Duration::ZERO));
        assert_eq!(Deadline::NEVER.of_try(ms(1), Some(ms(25))).remaining(ms(1)), Some(ms(25)));
        assert_eq!(Deadline::NEVER.of_try(ms(1), None), Deadline::NEVER);
        assert!(!Deadline::NEVER.has_passed(Duration::MAX));
    }

    #[test]
    fn grpc_timeouts_are_read_in_every_unit() {
        for (text, expected) in [
            ("1n", Some(Duration::from_nanos(1))),
            ("20u", Some(Duration::from_micros(20))),
            ("300m", Some(ms(300))),
            ("4S", Some(Duration::from_secs(4))),
            ("5M", Some(Duration::from_secs(300))),
            ("6H", Some(Duration::from_secs(21_600))),
            ("99999999H", Some(Duration::from_secs(359_999_996_400))),
            ("0S", Some(Duration::ZERO)),
            ("00000001S", Some(Duration::from_secs(1))),
            ("100000000n", None),
            ("S", None),
            ("10", None),
            ("10s", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            (" 1S", None),
            ("", None),
        ] {
            assert_eq!(parse_grpc_timeout(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn they_are_written_in_the_finest_unit_that_holds_them() {
        for (timeout, text) in [
            (Duration::ZERO, "0n"),
            (ms(99), "99000000n"),
            (ms(100), "100000u"),
            (Duration::from_secs(15), "15000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(200_000), "200000S"),
            (Duration::from_secs(6_000_000_000), "1666666H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(format_grpc_timeout(timeout), text);
        }
    }

    #[test]
    fn expected_timeouts_are_whole_milliseconds() {
        assert_eq!(parse_expected_timeout(b"250"), Some(ms(250)));
        for bad in ["", "-1", "1.5", "9999999999999999999999"] {
            assert_eq!(parse_expected_timeout(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(expected_timeout(Duration::from_micros(2_999)), "2");
        assert_eq!(expected_timeout(Duration::ZERO), "1");
        assert_eq!(RouteTimeout::new(ms(2_000)).said(), "2000");
    }

    #[test]
    fn a_number_is_written_as_it_is() {
        for value in [0, 7, 10, 4_999, u64::MAX] {
            assert_eq!(number(value), HeaderValue::from(value));
        }
    }

    proptest! {
        #[test]
        fn what_is_passed_on_is_never_longer(timeout: Duration) {
            let passed_on = parse_grpc_timeout(format_grpc_timeout(timeout).as_bytes()).unwrap();
            prop_assert!(passed_on <= timeout);
            if timeout < Duration::from_secs(3_600 * 99_999_999) {
                // Eight digits: it is less by one part in ten million, at most, or by an hour near the end.
                prop_assert!(timeout - passed_on <= (timeout / 1_000_000).max(Duration::from_secs(3_600)));
            }
        }

        #[test]
        fn no_value_breaks_the_parsers(value: Vec<u8>) {
            parse_grpc_timeout(&value);
            parse_expected_timeout(&value);
        }
    }
}
