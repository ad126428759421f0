//! Names, durations, header names and values, files, flags: what stands in several kinds.

use std::{collections::HashMap, time::Duration};

use crate::model::{
    Name,
    access_log::Share,
    problem::{Problems, Quoted},
    wire::{DurationText, NameText, SizeText},
};

/// The longest duration of what happens again and again.
pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// The longest duration of all.
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// The longest name of a header.
pub(super) const MAX_HEADER_NAME: usize = 256;

/// The longest name of a query parameter.
const MAX_PARAMETER_NAME: usize = 256;

/// The longest path of a file.
const MAX_FILE_PATH: usize = 1024;

/// The longest name of a service or method of gRPC.
const MAX_GRPC_NAME: usize = 256;

/// The longest value of a header, in bytes.
pub(super) const MAX_HEADER_VALUE: usize = 4096;

/// The name of a resource.
pub(super) fn name(text: &NameText) -> Result<Name, String> {
    text.0.parse().map_err(|error| format!("{} is not a name: it {error}", Quoted(&text.0)))
}

/// A duration of 1 ms to `most`.
pub(super) fn duration(text: &DurationText, most: Duration) -> Result<Duration, String> {
    let text = text.0.as_str();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60 * 1000),
        "h" => Some(3600 * 1000),
        _ => None,
    };
    let (Some(unit), false) = (unit, number.is_empty()) else {
        return Err(format!("{} is not a duration such as 250ms, 10s, 5m or 1h", Quoted(text)));
    };
    // A number that does not fit is longer than any bound.
    let milliseconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).unwrap_or(u64::MAX);
    let duration = Duration::from_millis(milliseconds);
    if duration.is_zero() || duration > most {
        return Err(format!("must be between 1ms and {}, not {}", whole(most), Quoted(text)));
    }
    Ok(duration)
}

/// A duration of 1 ms to `most`, if there is one and nothing is wrong with it.
pub(super) fn optional_duration(
    text: Option<&DurationText>,
    most: Duration,
    problems: &mut Problems,
) -> Option<Duration> {
    text.and_then(|text| problems.ok(duration(text, most)))
}

/// A bound as it is written in a document.
fn whole(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

/// A size of `least` to `most` bytes.
pub(super) fn size(text: &SizeText, least: &str, most: &str) -> Result<u32, String> {
    let bytes = |text: &str| {
        let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
        let unit = match unit {
            "B" => 1,
            "KiB" => 1024,
            "MiB" => 1024 * 1024,
            _ => return None,
        };
        // A number that does not fit is larger than any bound.
        (!number.is_empty()).then(|| number.parse::<u32>().map_or(u32::MAX, |number| number.saturating_mul(unit)))
    };
    let text = text.0.as_str();
    let size = bytes(text).ok_or_else(|| format!("{} is not a size such as 512B, 64KiB or 1MiB", Quoted(text)))?;
    let within = bytes(least).is_none_or(|least| least <= size) && bytes(most).is_none_or(|most| size <= most);
    within.then_some(size).ok_or_else(|| format!("must be between {least} and {most}, not {}", Quoted(text)))
}

/// A share in percent, in steps of a hundredth.
pub(super) fn share(percent: f64) -> Result<Share, String> {
    let hundredths = percent * 100.0;
    let rounded = hundredths.round();
    if (hundredths - rounded).abs() > 1e-6 {
        return Err(format!("must be a multiple of 0.01, not {percent}"));
    }
    // What is no number of so many bits is no share either.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let share = Share::of_hundredths(rounded as u32).filter(|_| rounded >= 0.0);
    share.ok_or_else(|| format!("must be between 0 and 100, not {percent}"))
}

/// A type of content without parameters, in lower case.
pub(super) fn content_type(text: &str) -> Result<String, String> {
    let is_name = |name: &str| !name.is_empty() && !name.contains('*') && name.bytes().all(is_token);
    let is_type = text.split_once('/').is_some_and(|(of, rest)| is_name(of) && is_name(rest));
    if !is_type || text.len() > MAX_HEADER_NAME {
        return Err(format!("{} is not a type of content such as application/json", Quoted(text)));
    }
    Ok(text.to_ascii_lowercase())
}

/// Parses every text of a list, none of which may mean the same as another.
pub(super) fn distinct<T: Clone + Eq + std::hash::Hash>(
    texts: &[String],
    problems: &mut Problems,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let mut first = HashMap::new();
    let mut index = 0..;
    problems.each(texts, |text, problems| {
        let index = index.next()?;
        let parsed = problems.ok(parse(text))?;
        let earlier: usize = *first.entry(parsed.clone()).or_insert(index);
        if earlier != index {
            problems.report(format!("is the same as [{earlier}]"));
            return None;
        }
        Some(parsed)
    })
}

/// The name of a header, in lower case.
pub(super) fn header_name(text: &str) -> Result<String, String> {
    if text.starts_with(':') {
        return Err(format!(
            "{} is a pseudo header; match or change method, path and host by their own fields",
            Quoted(text)
        ));
    }
    if text.is_empty() || text.len() > MAX_HEADER_NAME || !text.bytes().all(is_token) {
        return Err(format!(
            "{} is not the name of a header: 1 to {MAX_HEADER_NAME} letters, digits and !#$%&'*+-.^_`|~",
            Quoted(text)
        ));
    }
    Ok(text.to_ascii_lowercase())
}

/// The name of a header that may be changed, in lower case.
pub(super) fn changeable_header_name(text: &str) -> Result<String, String> {
    let name = header_name(text)?;
    match name.as_str() {
        "host" => Err("host cannot be changed here; use rewrite.host".to_owned()),
        "connection" | "content-length" | "transfer-encoding" | "upgrade" => {
            Err(format!("{name} belongs to the connection and cannot be changed"))
        }
        _ => Ok(name),
    }
}

/// The value of a header, as it is.
pub(super) fn header_value(text: &str) -> Result<String, String> {
    if text.len() > MAX_HEADER_VALUE || text.contains(char::is_control) {
        return Err(format!("must have at most {MAX_HEADER_VALUE} bytes and no control characters"));
    }
    Ok(text.to_owned())
}

/// The name of a query parameter.
pub(super) fn parameter_name(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_graphic() && !b"&=#?".contains(&b);
    if text.is_empty() || text.len() > MAX_PARAMETER_NAME || !text.bytes().all(allowed) {
        return Err(format!(
            "{} is not the name of a parameter: 1 to {MAX_PARAMETER_NAME} printable ASCII characters without &=#?",
            Quoted(text)
        ));
    }
    Ok(text.to_owned())
}

/// The path of a file on the machine of a proxy.
pub(super) fn file_path(path: &str) -> Result<String, String> {
    if !path.starts_with('/') || path.len() > MAX_FILE_PATH || path.contains(char::is_control) {
        return Err(format!("must be an absolute path of at most {MAX_FILE_PATH} printable characters"));
    }
    Ok(path.to_owned())
}

/// A field that is there to be chosen, and not to be turned off.
pub(super) fn only_true(flag: bool, problems: &mut Problems) -> Option<()> {
    if !flag {
        problems.report("can only be true");
    }
    flag.then_some(())
}

/// The name of a cookie, case and all.
pub(super) fn cookie_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_PARAMETER_NAME || !text.bytes().all(is_token) {
        return Err(format!(
            "{} is not the name of a cookie: 1 to {MAX_PARAMETER_NAME} letters, digits and !#$%&'*+-.^_`|~",
            Quoted(text)
        ));
    }
    Ok(text.to_owned())
}

/// A service of gRPC with its package, as it stands in the path of a call.
pub(super) fn grpc_service(text: &str) -> Result<String, String> {
    if text.len() > MAX_GRPC_NAME || !text.split('.').all(is_identifier) {
        return Err(format!("{} is not a service of gRPC, such as shop.v1.Checkout", Quoted(text)));
    }
    Ok(text.to_owned())
}

/// A method of gRPC.
pub(super) fn grpc_method(text: &str) -> Result<String, String> {
    if text.len() > MAX_GRPC_NAME || !is_identifier(text) {
        return Err(format!("{} is not a method of gRPC, such as Place", Quoted(text)));
    }
    Ok(text.to_owned())
}

/// A letter or underscore, then letters, digits and underscores.
pub(super) fn is_identifier(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// A request method.
pub(super) fn method(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 32 || !text.bytes().all(|b| is_token(b) && !b.is_ascii_lowercase()) {
        return Err(format!("{} is not a method in upper case, such as GET", Quoted(text)));
    }
    Ok(text.to_owned())
}

/// A character of an HTTP token (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let parse = |text: &str| size(&SizeText(text.to_owned()), "2B", "4MiB");
        assert_eq!([parse("2B"), parse("1KiB"), parse("4MiB")], [Ok(2), Ok(1024), Ok(4 * 1024 * 1024)]);
        for text in ["", "5", "MiB", "-1B", "1.5MiB", "1 B", "1mib", "1MB", "1GiB"] {
            assert!(parse(text).unwrap_err().contains("is not a size"), "{text}");
        }
        for text in ["1B", "5MiB", "4194305B", "99999999999999999999MiB", "4294967295MiB"] {
            assert!(parse(text).unwrap_err().starts_with("must be between 2B and 4MiB"), "{text}");
        }
    }

    #[test]
    fn durations() {
        let parse = |text: &str| duration(&DurationText(text.to_owned()), HOUR);
        assert_eq!(parse("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("010s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse("60m"), Ok(HOUR));
        assert_eq!(parse("1h"), Ok(HOUR));
        for text in ["", "5", "s", "-1s", "+1s", "1.5s", "1 s", "1S", "1us", "1d", "1s ", "１s"] {
            assert!(parse(text).unwrap_err().contains("is not a duration"), "{text}");
        }
        for text in ["0s", "0ms", "61m", "3601s", "99999999999999999999h", "18446744073709551615h"] {
            assert!(parse(text).unwrap_err().starts_with("must be between 1ms and 1h"), "{text}");
        }
    }
}
