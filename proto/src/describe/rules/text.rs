//! What is demanded of texts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use regex::Regex;

use super::{KnownRegex, StringRules, WellKnown};

pub(super) fn check(rules: &StringRules, pattern: Option<&Regex>, value: &str, report: &mut dyn FnMut(String)) {
    if rules.ignore_empty() && value.is_empty() {
        return;
    }
    if rules.r#const.as_deref().is_some_and(|constant| constant != value) {
        report(format!("value must equal {:?}", rules.r#const()));
    }
    length(rules.len, rules.min_len, rules.max_len, value.chars().count(), "characters", report);
    length(rules.len_bytes, rules.min_bytes, rules.max_bytes, value.len(), "bytes", report);
    if pattern.is_some_and(|pattern| !pattern.is_match(value)) {
        report(format!("value does not match regex pattern {:?}", rules.pattern()));
    }
    if rules.prefix.as_deref().is_some_and(|prefix| !value.starts_with(prefix)) {
        report(format!("value does not have prefix {:?}", rules.prefix()));
    }
    if rules.suffix.as_deref().is_some_and(|suffix| !value.ends_with(suffix)) {
        report(format!("value does not have suffix {:?}", rules.suffix()));
    }
    if rules.contains.as_deref().is_some_and(|part| !value.contains(part)) {
        report(format!("value does not contain substring {:?}", rules.contains()));
    }
    if rules.not_contains.as_deref().is_some_and(|part| value.contains(part)) {
        report(format!("value contains substring {:?}", rules.not_contains()));
    }
    if !rules.r#in.is_empty() && !rules.r#in.iter().any(|known| known == value) {
        report(format!("value must be in list {:?}", rules.r#in));
    }
    if rules.not_in.iter().any(|other| other == value) {
        report(format!("value must not be in list {:?}", rules.not_in));
    }
    let known = |known: bool, noun: &str| if known { None } else { Some(format!("value must be a valid {noun}")) };
    let reason = match rules.well_known {
        Some(WellKnown::WellKnownRegex(regex)) => well_known_regex(regex, rules.strict(), value),
        Some(WellKnown::Email(true)) => known(is_email(value), "email address"),
        Some(WellKnown::Hostname(true)) => known(is_hostname(value), "hostname"),
        Some(WellKnown::Ip(true)) => known(value.parse::<IpAddr>().is_ok(), "IP address"),
        Some(WellKnown::Ipv4(true)) => known(value.parse::<Ipv4Addr>().is_ok(), "IPv4 address"),
        Some(WellKnown::Ipv6(true)) => known(value.parse::<Ipv6Addr>().is_ok(), "IPv6 address"),
        Some(WellKnown::Uri(true)) => known(is_absolute_uri(value), "URI"),
        Some(WellKnown::UriRef(true)) => known(has_only_uri_characters(value), "URI reference"),
        Some(WellKnown::Address(true)) => {
            known(value.parse::<IpAddr>().is_ok() || is_hostname(value), "hostname, or IP address")
        }
        Some(WellKnown::Uuid(true)) => known(is_uuid(value), "UUID"),
        _ => None,
    };
    if let Some(reason) = reason {
        report(reason);
    }
}

/// Exact, least and most length, in `unit`s.
pub(super) fn length(
    exact: Option<u64>,
    least: Option<u64>,
    most: Option<u64>,
    found: usize,
    unit: &str,
    report: &mut dyn FnMut(String),
) {
    let found = found as u64;
    match (least, most) {
        _ if exact.is_some_and(|exact| found != exact) => {
            report(format!("value length must be {} {unit}", exact.unwrap_or_default()));
        }
        (Some(least), Some(most)) if !(least..=most).contains(&found) => {
            report(format!("value length must be between {least} and {most} {unit}, inclusive"));
        }
        (Some(least), None) if found < least => report(format!("value length must be at least {least} {unit}")),
        (None, Some(most)) if found > most => report(format!("value length must be at most {most} {unit}")),
        _ => {}
    }
}

/// As the expressions that protoc-gen-validate puts in their place.
fn well_known_regex(regex: i32, strict: bool, value: &str) -> Option<String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_|~`".contains(&byte);
    let forbidden = |byte: u8| byte < 0x20 && byte != b'\t' || byte == 0x7f;
    let (fine, pattern) = match (KnownRegex::try_from(regex), strict) {
        (Ok(KnownRegex::HttpHeaderName), true) => {
            let name = value.strip_prefix(':').unwrap_or(value);
            (!name.is_empty() && name.bytes().all(token), "^:?[0-9a-zA-Z!#$%&'*+-.^_|~`]+$")
        }
        (Ok(KnownRegex::HttpHeaderValue), true) => {
            (!value.bytes().any(forbidden), r"^[^\u0000-\u0008\u000A-\u001F\u007F]*$")
        }
        (Ok(KnownRegex::HttpHeaderName | KnownRegex::HttpHeaderValue), false) => {
            (!value.contains(['\0', '\r', '\n']), r"^[^\u0000\u000A\u000D]*$")
        }
        _ => return None,
    };
    (!fine).then(|| format!("value does not match regex pattern {pattern:?}"))
}

fn is_hostname(value: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = value.strip_suffix('.').unwrap_or(value);
    name.len() <= 253 && name.split('.').all(label)
}

fn is_email(value: &str) -> bool {
    value.rsplit_once('@').is_some_and(|(local, host)| {
        (1..=64).contains(&local.len()) && !local.contains(char::is_whitespace) && is_hostname(host)
    })
}

fn is_absolute_uri(value: &str) -> bool {
    value.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    }) && has_only_uri_characters(value)
}

fn has_only_uri_characters(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
}

fn is_uuid(value: &str) -> bool {
    let parts: Vec<&str> = value.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(rules: &StringRules, value: &str) -> Vec<String> {
        let mut found = Vec::new();
        check(rules, None, value, &mut |reason| found.push(reason));
        found
    }

    /// The rules that no message of Envoy uses today; the others are held to a real Envoy.
    #[test]
    fn what_envoy_does_not_use_is_decided_as_documented() {
        let known = |known| StringRules { well_known: Some(known), ..StringRules::default() };
        for (rule, good, bad) in [
            (WellKnown::Email(true), "a@example.com", "a@"),
            (WellKnown::Hostname(true), "a.example.com", "a..b"),
            (WellKnown::Ip(true), "::1", "1.2.3"),
            (WellKnown::Ipv4(true), "1.2.3.4", "::1"),
            (WellKnown::Ipv6(true), "::1", "1.2.3.4"),
            (WellKnown::Uri(true), "https://example.com/a?b#c", "/a"),
            (WellKnown::UriRef(true), "/a?b#c", "/a b"),
            (WellKnown::Address(true), "example.com", "ex_ample"),
            (WellKnown::Uuid(true), "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
        ] {
            assert_eq!(reasons(&known(rule), good), [""; 0], "{rule:?}");
            assert_eq!(reasons(&known(rule), bad).len(), 1, "{rule:?}");
        }
        let text = |text: &str| Some(text.to_owned());
        for (rules, good, bad) in [
            (StringRules { r#const: text("a"), ..StringRules::default() }, "a", "b"),
            (StringRules { len: Some(2), ..StringRules::default() }, "äö", "ä"),
            (StringRules { len_bytes: Some(2), ..StringRules::default() }, "ä", "äö"),
            (StringRules { min_bytes: Some(2), ..StringRules::default() }, "ä", "a"),
            (StringRules { contains: text("b"), ..StringRules::default() }, "abc", "ac"),
            (StringRules { not_contains: text("b"), ..StringRules::default() }, "ac", "abc"),
            (StringRules { not_in: vec!["a".to_owned()], ..StringRules::default() }, "b", "a"),
        ] {
            assert_eq!(reasons(&rules, good), [""; 0], "{rules:?}");
            assert_eq!(reasons(&rules, bad).len(), 1, "{rules:?}");
        }
    }
}
