//! What a limit's spec means.

use std::time::Duration;

use super::{rule, text};
use crate::model::{
    Name,
    problem::{Problems, Quoted},
    rate_limit::{Absent, Algorithm, Enforcement, Hits, KeyPart, Limit, Mode, RateLimit, WhenRedisIsDown},
    wire::{
        AbsentSpec, AlgorithmSpec, ConstantSpec, DeniedSpec, EnforcementSpec, HitsSpec, KeyPartSpec, LimitSpec,
        NetworkSpec, RateLimitSpec, WhenRedisIsDownSpec,
    },
};

/// The longest period.
const MAX_PERIOD: Duration = Duration::from_secs(366 * 24 * 3600);

/// How long a full bucket may take to fill: what limiters can count.
const MAX_REFILL: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// What the keys of entries start with that Chancery adds.
const OWN_KEYS: &str = "chancery.";

/// The longest key or value of a constant.
const MAX_CONSTANT: usize = 128;

const DEFAULT_IPV4: u8 = 32;

/// What one household or machine usually has; single addresses of it cost nothing.
const DEFAULT_IPV6: u8 = 64;

pub(super) fn rate_limit(name: Name, spec: &RateLimitSpec, problems: &mut Problems) -> Option<RateLimit> {
    let RateLimitSpec {
        key,
        limit: amount,
        algorithm,
        when_redis_is_down,
        shadow,
        strict,
        debt,
        hits: counted,
        denied,
        enforcement,
    } = spec;
    let key = key_parts(key.as_deref().unwrap_or_default(), &mut problems.at("key"));
    let algorithm = match algorithm {
        None | Some(AlgorithmSpec::TokenBucket) => Algorithm::TokenBucket,
        Some(AlgorithmSpec::FixedWindow) => Algorithm::FixedWindow,
    };
    let limit = limit(amount, algorithm, &mut problems.at("limit"));
    let debt = debt.unwrap_or(false);
    let hits = match counted {
        None => Some(Hits::default()),
        Some(spec) => hits(spec, debt, &mut problems.at("hits")),
    };
    // A proxy charges what is refused at its end too: by the number, nobody who goes on asking would ever be out of debt.
    if debt && matches!(hits, Some(Hits::Number(_))) {
        problems.at("debt").report("needs hits of bytesReceived, bytesSent or responseHeader");
    }
    let DeniedSpec { body } = denied.clone().unwrap_or_default();
    let denied_body = rule::answer_body(body, &mut problems.at("denied").at("body"));
    let enforcement = match enforcement {
        None | Some(EnforcementSpec::Service) => Enforcement::Service,
        Some(EnforcementSpec::Quota) => Enforcement::Quota,
    };
    if enforcement == Enforcement::Quota {
        let refuse = |problems: &mut Problems, why| problems.report(format!("needs enforcement: service; {why}"));
        let otherwise = [
            ("algorithm", algorithm == Algorithm::FixedWindow),
            ("debt", debt),
            ("hits", counted.is_some()),
            ("strict", *strict == Some(true)),
        ];
        for (field, _) in otherwise.iter().filter(|(_, given)| *given) {
            refuse(&mut problems.at(field), "a proxy counts its share by itself, one token a request");
        }
        if denied.is_some() {
            refuse(&mut problems.at("denied"), "a proxy refuses by itself without a body");
        }
        for (index, part) in key.iter().flatten().enumerate() {
            if matches!(part, KeyPart::Network { .. }) {
                let mut problems = problems.at("key");
                refuse(&mut problems.index(index).at("network"), "a proxy knows only whole addresses by itself");
            }
        }
    }
    Some(RateLimit {
        name,
        key: key?,
        limit: limit?,
        when_redis_is_down: match when_redis_is_down {
            None | Some(WhenRedisIsDownSpec::Local) => WhenRedisIsDown::Local,
            Some(WhenRedisIsDownSpec::Allow) => WhenRedisIsDown::Allow,
            Some(WhenRedisIsDownSpec::Deny) => WhenRedisIsDown::Deny,
        },
        mode: Mode { shadow: shadow.unwrap_or(false), strict: strict.unwrap_or(false), debt },
        hits: hits?,
        denied_body: denied_body?,
        enforcement,
    })
}

/// Parts whose keys differ, so that a descriptor can be read back.
fn key_parts(specs: &[KeyPartSpec], problems: &mut Problems) -> Option<Vec<KeyPart>> {
    let parts = problems.each(specs, key_part)?;
    for (index, part) in parts.iter().enumerate() {
        if let Some(earlier) = parts[..index].iter().position(|earlier| earlier.key() == part.key()) {
            problems.index(index).report(format!("has the same key, {}, as [{earlier}]", part.key()));
        }
    }
    Some(parts)
}

fn key_part(spec: &KeyPartSpec, problems: &mut Problems) -> Option<KeyPart> {
    let KeyPartSpec { header, query, absent, remote_address, network: mask, path, method, constant: fixed } = spec;
    if absent.is_some() && header.is_none() && query.is_none() {
        problems.at("absent").report("goes with header and query only");
    }
    let absent = match absent {
        None | Some(AbsentSpec::Together) => Absent::Together,
        Some(AbsentSpec::Skip) => Absent::Skip,
    };
    let mut given: Vec<Option<KeyPart>> = Vec::new();
    if let Some(name) = header {
        let name = problems.at("header").ok(countable_header(name));
        given.push(name.map(|name| KeyPart::Header { name, absent }));
    }
    if let Some(name) = query {
        let name = problems.at("query").ok(countable_parameter(name));
        given.push(name.map(|name| KeyPart::Query { name, absent }));
    }
    if let Some(spec) = mask {
        let NetworkSpec { ipv4, ipv6 } = spec;
        given.push(Some(KeyPart::Network { ipv4: ipv4.unwrap_or(DEFAULT_IPV4), ipv6: ipv6.unwrap_or(DEFAULT_IPV6) }));
    }
    if let Some(spec) = fixed {
        given.push(constant(spec, &mut problems.at("constant")));
    }
    let flags = [
        ("remoteAddress", remote_address, KeyPart::RemoteAddress),
        ("path", path, KeyPart::Path),
        ("method", method, KeyPart::Method),
    ];
    for (field, flag, part) in flags {
        if let Some(flag) = flag {
            given.push(text::only_true(*flag, &mut problems.at(field)).map(|()| part));
        }
    }
    problems.only_one(given, "header, query, remoteAddress, network, path, method and constant")
}

fn constant(spec: &ConstantSpec, problems: &mut Problems) -> Option<KeyPart> {
    let ConstantSpec { key, value } = spec;
    let key = problems.at("key").ok(constant_text(key).and_then(|key| match key.starts_with(OWN_KEYS) {
        true => Err(format!("{} starts with {OWN_KEYS}, which is taken", Quoted(&key))),
        false => Ok(key),
    }));
    let value = problems.at("value").ok(constant_text(value));
    Some(KeyPart::Constant { key: key?, value: value? })
}

/// The name stands in a format of Envoy, where `%` has a meaning.
fn countable_header(text: &str) -> Result<String, String> {
    let name = text::header_name(text)?;
    match name.contains('%') {
        true => Err(format!("{} holds a %, which a limit cannot be counted by", Quoted(text))),
        false => Ok(name),
    }
}

/// As [`countable_header`], where brackets and colons have a meaning too.
fn countable_parameter(text: &str) -> Result<String, String> {
    let name = text::parameter_name(text)?;
    match name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)) {
        true => Ok(name),
        false => Err(format!("{} cannot be counted by: only parameters of letters, digits and -._~ can", Quoted(text))),
    }
}

/// Proxies may take what stands behind `%` for a command.
fn constant_text(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_graphic() && b != b'%';
    if text.is_empty() || text.len() > MAX_CONSTANT || !text.bytes().all(allowed) {
        return Err(format!(
            "{} is not 1 to {MAX_CONSTANT} printable ASCII characters other than spaces and %",
            Quoted(text)
        ));
    }
    Ok(text.to_owned())
}

fn limit(spec: &LimitSpec, algorithm: Algorithm, problems: &mut Problems) -> Option<Limit> {
    let LimitSpec { requests, per, burst } = spec;
    let per = problems.at("per").ok(text::duration(per, MAX_PERIOD));
    if burst.is_some() && algorithm == Algorithm::FixedWindow {
        problems.at("burst").report("goes with algorithm token-bucket only");
    }
    let limit = Limit { requests: *requests, per: per?, burst: *burst, algorithm };
    let burst = limit.burst.unwrap_or(limit.requests);
    let refill = limit.per.as_nanos() * u128::from(burst) / u128::from(limit.requests.max(1));
    if limit.requests > 0 && refill > MAX_REFILL.as_nanos() {
        problems.at("burst").report(format!("{burst} would take more than ten years to come back at this rate"));
    }
    Some(limit)
}

fn hits(spec: &HitsSpec, debt: bool, problems: &mut Problems) -> Option<Hits> {
    let HitsSpec { number, bytes_received, bytes_sent, response_header } = spec;
    let mut given: Vec<Option<Hits>> = number.iter().map(|number| Some(Hits::Number(*number))).collect();
    let mut later = Vec::new();
    if let Some(flag) = bytes_received {
        later.push("bytesReceived");
        given.push(text::only_true(*flag, &mut problems.at("bytesReceived")).map(|()| Hits::BytesReceived));
    }
    if let Some(flag) = bytes_sent {
        later.push("bytesSent");
        given.push(text::only_true(*flag, &mut problems.at("bytesSent")).map(|()| Hits::BytesSent));
    }
    if let Some(name) = response_header {
        later.push("responseHeader");
        given.push(problems.at("responseHeader").ok(countable_header(name)).map(Hits::ResponseHeader));
    }
    if given.len() != 1 {
        problems.report("needs exactly one of number, bytesReceived, bytesSent and responseHeader");
        return None;
    }
    if let ([field], false) = (&later[..], debt) {
        problems.at(field).report("is known only when a request ends; it needs debt: true");
    }
    given.pop().flatten()
}
