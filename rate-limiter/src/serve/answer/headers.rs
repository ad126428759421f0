//! Response headers that tell a client about its limits, for those who do not let Envoy write them.
//!
//! `X-RateLimit-*` are the customary three, for the limit that is nearest to its end. `RateLimit-Policy` and
//! `RateLimit` follow the IETF's draft (draft-ietf-httpapi-ratelimit-headers, as structured fields): one member per limit.

use std::fmt::Write as _;

use chancery_proto::envoy::core::HeaderValue;

use super::{ResponseHeaders, remaining, reset_seconds};
use crate::model::{
    limit::Limit,
    verdict::{Status, Verdict},
};

/// The headers of a response.
pub(super) fn of(verdict: &Verdict, which: ResponseHeaders) -> Vec<HeaderValue> {
    let mut headers = Vec::new();
    if matches!(which, ResponseHeaders::XRateLimit | ResponseHeaders::Both) {
        customary(verdict, &mut headers);
    }
    if matches!(which, ResponseHeaders::Ietf | ResponseHeaders::Both) {
        ietf(verdict, &mut headers);
    }
    headers
}

fn limited(verdict: &Verdict) -> impl Iterator<Item = (&Status, &Limit)> {
    verdict.statuses.iter().filter_map(|status| Some((status, status.limit.as_ref()?)))
}

fn customary(verdict: &Verdict, headers: &mut Vec<HeaderValue>) {
    let tightest = verdict.tightest.and_then(|index| verdict.statuses.get(index));
    let Some((status, limit)) = tightest.and_then(|status| Some((status, status.limit.as_ref()?))) else { return };
    let left = if status.admitted { remaining(status) } else { 0 };
    headers.push(header("x-ratelimit-limit", limit.requests().to_string()));
    headers.push(header("x-ratelimit-remaining", left.to_string()));
    headers.push(header("x-ratelimit-reset", reset_seconds(status).unwrap_or_default().to_string()));
}

fn ietf(verdict: &Verdict, headers: &mut Vec<HeaderValue>) {
    let (mut policies, mut states) = (String::new(), String::new());
    for (status, limit) in limited(verdict) {
        let separator = if policies.is_empty() { "" } else { ", " };
        let name = name(status);
        let window = limit.per().as_secs().max(1);
        let left = if status.admitted { remaining(status) } else { 0 };
        let reset = reset_seconds(status).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(policies, "{separator}\"{name}\";q={};w={window}", limit.requests());
        let _ = write!(states, "{separator}\"{name}\";r={left};t={reset}");
    }
    if !policies.is_empty() {
        headers.push(header("ratelimit-policy", policies));
        headers.push(header("ratelimit", states));
    }
}

/// The name of a limit as the inside of a structured-field string: printable ASCII, quotes and backslashes escaped.
fn name(status: &Status) -> String {
    let rule = status.rule.as_ref();
    let name = rule.map_or("default", |rule| if rule.name.is_empty() { &rule.path } else { &rule.name });
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            ' '..='~' => text.push(c),
            _ => text.push('?'),
        }
    }
    text
}

fn header(key: &str, value: String) -> HeaderValue {
    HeaderValue { key: key.to_owned(), value, raw_value: Default::default() }
}
