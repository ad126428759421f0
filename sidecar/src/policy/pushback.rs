//! What a server says of when to come again.
//!
//! `Retry-After` (RFC 9110, 10.2.3) in seconds or as a date, and `grpc-retry-pushback-ms` (gRPC proposal A6), in which a
//! negative number, or anything that is no number, means: do not come again. A date is read in the form that servers
//! must send (`Sun, 06 Nov 1994 08:49:37 GMT`); the two forms that have been obsolete since 1997 say nothing.
//!
//! A server cannot push back for longer than [`MOST`].

use std::time::Duration;

/// The longest pushback that is honoured (linkerd2-proxy's cap on `Retry-After`).
pub const MOST: Duration = Duration::from_secs(300);

/// What an answer says of when to come again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pushback {
    /// Nothing.
    #[default]
    Unsaid,
    /// Not before this time has passed.
    After(Duration),
    /// Never with this request.
    Never,
}

impl Pushback {
    /// The time, if one was said.
    pub fn after(self) -> Option<Duration> {
        match self {
            Self::After(wait) => Some(wait),
            Self::Unsaid | Self::Never => None,
        }
    }
}

/// The value of `Retry-After`, at `unix_time` (since 1970). A date in the past is no wait.
pub fn parse_retry_after(value: &[u8], unix_time: Duration) -> Pushback {
    let value = value.trim_ascii();
    let seconds = if !value.is_empty() && value.iter().all(u8::is_ascii_digit) {
        digits(value)
    } else {
        match parse_date(value) {
            Some(at) => at.saturating_sub(unix_time.as_secs()),
            None => return Pushback::Unsaid,
        }
    };
    Pushback::After(Duration::from_secs(seconds).min(MOST))
}

/// The value of `grpc-retry-pushback-ms`.
pub fn parse_grpc_pushback(value: &[u8]) -> Pushback {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Pushback::Never;
    }
    Pushback::After(Duration::from_millis(digits(value)).min(MOST))
}

/// A number of ASCII digits; the largest there is if it is larger.
fn digits(value: &[u8]) -> u64 {
    value.iter().fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`. The day of the week is not looked at.
fn parse_date(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let mut words = text.get(5..).filter(|_| text.as_bytes().get(3..5) == Some(b", "))?.split(' ');
    let day = number(words.next()?, 2)?;
    let month = words.next()?;
    let month = 1 + ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        .iter()
        .position(|name| *name == month)? as u64;
    let year = number(words.next()?, 4).filter(|year| *year >= 1970)?;
    let mut clock = words.next()?.split(':').map(|part| number(part, 2));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let ended = clock.next().is_none() && words.next() == Some("GMT") && words.next().is_none();
    if !ended || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(((days_before(year, month) + day - 1) * 24 + hour) * 3_600 + minute * 60 + second)
}

fn number(text: &str, length: usize) -> Option<u64> {
    (text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits(text.as_bytes()))
}

/// Days from 1970 to the first of a month. The year is taken to begin in March, so that a leap day is its last.
fn days_before(year: u64, month: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5;
    // From the first of March of year 0 to the first of January 1970.
    days - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const THEN: u64 = 784_111_777;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let seconds = |seconds| Pushback::After(Duration::from_secs(seconds));
        for (text, expected) in [
            ("0", seconds(0)),
            (" 120 ", seconds(120)),
            ("301", seconds(300)),
            ("99999999999999999999999", seconds(300)),
            ("Sun, 06 Nov 1994 08:49:49 GMT", seconds(12)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", seconds(0)),
            ("Fri, 29 Feb 1980 00:00:00 GMT", seconds(0)),
            ("Tue, 29 Feb 2028 00:00:00 GMT", seconds(300)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Pushback::Unsaid),
            ("Sun, 06 Nov 1994 24:49:37 GMT", Pushback::Unsaid),
            ("Sun, 06 Nov 1994 08:49:37 CET", Pushback::Unsaid),
            ("Sun, 06 Nov 1994", Pushback::Unsaid),
            ("-1", Pushback::Unsaid),
            ("1.5", Pushback::Unsaid),
            ("", Pushback::Unsaid),
        ] {
            assert_eq!(parse_retry_after(text.as_bytes(), Duration::from_secs(THEN)), expected, "{text:?}");
        }
    }

    #[test]
    fn dates_are_counted_right() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400),
            ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_800),
            ("Thu, 31 Dec 2026 23:59:59 GMT", 1_798_761_599),
        ] {
            assert_eq!(parse_date(text.as_bytes()), Some(seconds), "{text}");
        }
    }

    #[test]
    fn a_grpc_server_can_say_never() {
        for (text, expected) in [
            ("0", Pushback::After(Duration::ZERO)),
            ("250", Pushback::After(Duration::from_millis(250))),
            ("4000000000", Pushback::After(MOST)),
            ("-1", Pushback::Never),
            ("soon", Pushback::Never),
            ("", Pushback::Never),
        ] {
            assert_eq!(parse_grpc_pushback(text.as_bytes()), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_value_pushes_back_for_longer_than_the_most(value: Vec<u8>, year in "[0-9]{4}", now: Duration) {
            for value in [value, format!("Sun, 31 Dec {year} 23:59:60 GMT").into_bytes()] {
                for pushback in [parse_retry_after(&value, now), parse_grpc_pushback(&value)] {
                    prop_assert!(pushback.after().unwrap_or_default() <= MOST);
                }
            }
        }
    }
}
