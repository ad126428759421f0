//! Values of fields that several messages have.

use std::{net::IpAddr, time::Duration};

use chancery_proto::{
    envoy::{
        core::{Address, address, socket_address::PortSpecifier},
        matcher::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
    },
    google::protobuf,
};
use regex::bytes::{Regex, RegexBuilder};

use super::Problems;
use crate::config::{
    routes::{Pattern, TextMatch},
    snapshot::Target,
};

/// A compiled expression takes no more memory than this.
const REGEX_BYTES: usize = 1 << 20;

pub(super) fn duration(value: &protobuf::Duration) -> Option<Duration> {
    let seconds = u64::try_from(value.seconds).ok()?;
    let nanos = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds, nanos))
}

/// The duration in a field; `None` also if it cannot be one, which is noted.
pub(super) fn duration_at(problems: &mut Problems, path: &str, value: Option<&protobuf::Duration>) -> Option<Duration> {
    let value = value?;
    let read = duration(value);
    if read.is_none() {
        problems.add(path, "is no duration that a timeout can have");
    }
    read
}

pub(super) fn target(problems: &mut Problems, path: &str, address: Option<&Address>) -> Option<Target> {
    let Some(address::Address::SocketAddress(socket)) = address.and_then(|address| address.address.as_ref()) else {
        problems.add(path, "is no socket address");
        return None;
    };
    let port = match socket.port_specifier {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(port).ok().filter(|port| *port > 0),
        _ => None,
    };
    let Some(port) = port else {
        problems.add(format!("{path}.socket_address.port_value"), "is no port");
        return None;
    };
    if socket.protocol != 0 {
        problems.add(format!("{path}.socket_address.protocol"), "only TCP is spoken");
    }
    if socket.address.is_empty() {
        problems.add(format!("{path}.socket_address.address"), "is empty");
    }
    Some(match socket.address.parse::<IpAddr>() {
        Ok(ip) => Target::Address((ip, port).into()),
        Err(_) => Target::Name(socket.address.as_str().into(), port),
    })
}

/// An expression; `whole`: it has to match all of the text.
pub(super) fn regex(problems: &mut Problems, path: &str, matcher: &RegexMatcher, whole: bool) -> Option<Regex> {
    let text = if whole { format!("^(?:{})$", matcher.regex) } else { matcher.regex.clone() };
    match RegexBuilder::new(&text).unicode(false).size_limit(REGEX_BYTES).build() {
        Ok(regex) => Some(regex),
        Err(error) => {
            let last = error.to_string().lines().last().unwrap_or_default().to_owned();
            problems.add(format!("{path}.regex"), last);
            None
        }
    }
}

pub(super) fn text_match(problems: &mut Problems, path: &str, matcher: &StringMatcher) -> Option<TextMatch> {
    let pattern = match &matcher.match_pattern {
        Some(MatchPattern::Exact(text)) => Pattern::Exact(text.as_str().into()),
        Some(MatchPattern::Prefix(text)) => Pattern::Prefix(text.as_str().into()),
        Some(MatchPattern::Suffix(text)) => Pattern::Suffix(text.as_str().into()),
        Some(MatchPattern::Contains(text)) => Pattern::Contains(text.as_str().into()),
        Some(MatchPattern::SafeRegex(matcher)) => {
            Pattern::Regex(regex(problems, &format!("{path}.safe_regex"), matcher, true)?)
        }
        _ => {
            problems.add(path, "is a pattern of a kind that is not known here");
            return None;
        }
    };
    Some(TextMatch { pattern, ignore_case: matcher.ignore_case })
}
