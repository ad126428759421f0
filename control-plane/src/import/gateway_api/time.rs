//! Durations of the Gateway API: `1h30m`, `10s`, `500ms`, up to four parts.

/// How many parts there may be.
const MAX_PARTS: usize = 4;

/// The longest number of a part.
const MAX_DIGITS: usize = 5;

/// A duration in milliseconds.
pub(super) fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum = 0;
    for _ in 0..MAX_PARTS {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > MAX_DIGITS {
            return None;
        }
        let (number, after) = rest.split_at(digits);
        // "ms" first: what begins with it begins with "m" too.
        let units = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
        let (unit, length) = units.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        sum += number.parse::<u64>().ok()? * length;
        rest = &after[unit.len()..];
        if rest.is_empty() {
            return Some(sum);
        }
    }
    None
}

/// Milliseconds as a document has them.
pub(super) fn text(milliseconds: u64) -> String {
    match milliseconds {
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_parts() {
        for (given, written) in
            [("10s", "10s"), ("1h30m", "90m"), ("1m30s", "90s"), ("1s500ms", "1500ms"), ("0s", "0h")]
        {
            assert_eq!(milliseconds(given).map(text).as_deref(), Some(written), "{given}");
        }
        for given in ["", "s", "1", "1.5s", "123456s", "1h1h1h1h1h", "-1s", "1d", "1s "] {
            assert_eq!(milliseconds(given), None, "{given}");
        }
    }
}
