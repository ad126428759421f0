//! How long a caller waits: the `grpc-timeout` header.

use std::time::Duration;

use http::HeaderMap;

/// The header.
const NAME: &str = "grpc-timeout";

/// What the header says. One that cannot be read says nothing, as with tonic.
pub(super) fn of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(NAME)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // At most eight digits, says the protocol.
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3_600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout(text: &'static str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(NAME, http::HeaderValue::from_static(text));
        of(&headers)
    }

    #[test]
    fn units_and_digits_are_as_the_protocol_says() {
        assert_eq!(of(&HeaderMap::new()), None);
        assert_eq!(timeout("20m"), Some(Duration::from_millis(20)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        assert_eq!(timeout("1M"), Some(Duration::from_secs(60)));
        assert_eq!(timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(timeout("3u"), Some(Duration::from_micros(3)));
        assert_eq!(timeout("0n"), Some(Duration::ZERO));
        for text in ["", "m", "123456789m", "+1m", "1", "1s", "-1S", "1 m"] {
            assert_eq!(timeout(text), None, "{text:?}");
        }
    }
}
