//! Words of the format: numbers, truth values, durations, and which known word an unknown one was meant to be.
//!
//! Texts are read as envoyproxy/ratelimit's YAML library reads them into typed fields: `yes` is a truth value where
//! one is expected, `1_000` a number, and any scalar is a text where a text is expected.

use std::time::Duration;

/// A whole number that fits 32 bits, in decimal or `0x`, `0o`, `0b`; digits may be grouped by `_`.
pub(super) fn number(text: &str) -> Result<u32, String> {
    let digits = text.replace('_', "");
    let unsigned = digits.strip_prefix('+').unwrap_or(&digits);
    let (digits, radix) = match unsigned.get(..2) {
        Some("0x") => (&unsigned[2..], 16),
        Some("0o") => (&unsigned[2..], 8),
        Some("0b") => (&unsigned[2..], 2),
        _ => (unsigned, 10),
    };
    if radix == 10 && digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{} is octal to some readers and decimal to others: leave the zero away", quoted(text)));
    }
    let negative =
        digits.strip_prefix('-').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()));
    let whole = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
    match (whole, negative) {
        (true, _) => u32::from_str_radix(digits, radix)
            .map_err(|_| format!("{} is out of range: from 0 to {}", quoted(text), u32::MAX)),
        (false, true) => Err(format!("{} is out of range: from 0 to {}", quoted(text), u32::MAX)),
        (false, false) => Err(format!("{} is not a whole number", quoted(text))),
    }
}

/// A truth value in any spelling of YAML 1.1 or 1.2.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "y" | "Y" | "on" | "On" | "ON" => Ok(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "n" | "N" | "off" | "Off" | "OFF" => Ok(false),
        _ => Err(format!("{} is neither true nor false", quoted(text))),
    }
}

/// A duration such as `250ms`, `10s`, `5m`, `1h` or `7d`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.bytes().take_while(u8::is_ascii_digit).count());
    let unit = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60 * 1000),
        "h" => Some(3600 * 1000),
        "d" => Some(86_400 * 1000),
        _ => None,
    };
    let (Some(unit), false) = (unit, number.is_empty()) else {
        return Err(format!("{} is not a duration such as 250ms, 10s, 5m, 1h or 7d", quoted(text)));
    };
    // What does not fit is longer than any bound that follows.
    let milliseconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).unwrap_or(u64::MAX);
    Ok(Duration::from_millis(milliseconds))
}

/// One of `known`, found by its word.
pub(super) fn choice<T: Copy>(text: &str, known: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = known.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
    Err(format!("{} is not one of {}", quoted(text), words.join(", ")))
}

/// The known word that `word` was probably meant to be.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > 64 {
        return None;
    }
    let bare = |word: &str| word.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let (found, distance) = known
        .iter()
        .map(|known| (*known, distance(&bare(word), &bare(known))))
        .min_by_key(|(_, distance)| *distance)?;
    (distance <= found.len() / 3).then_some(found)
}

/// How many letters must be put in, taken out, changed, or swapped with the next.
fn distance(from: &str, to: &str) -> usize {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for i in 1..=from.len() {
        let mut next = vec![i];
        for j in 1..=to.len() {
            let changed = row[j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = changed.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[to.len()]
}

/// A text in quotes, cut off where it is long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(60) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}
