//! What a service's spec says of how an endpoint is chosen, the first time and again.

use std::time::Duration;

use crate::model::{
    parse::{path, text},
    problem::{Problems, Quoted},
    service::{HashKey, HashOf, Hashing, LoadBalancing, MadeCookie, Policy, SessionAffinity, SlowStart},
    wire::{
        DurationText, HashCookieSpec, HashKeySpec, LoadBalancingPolicySpec, LoadBalancingSettingsSpec,
        LoadBalancingSpec, SessionAffinitySpec, SessionCookieSpec, SlowStartSpec,
    },
};

/// The longest life of a cookie.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) fn load_balancing(spec: Option<&LoadBalancingSpec>, problems: &mut Problems) -> Option<LoadBalancing> {
    let of_policy = |policy| LoadBalancingSettingsSpec { policy, ..LoadBalancingSettingsSpec::default() };
    let spec = match spec {
        None => of_policy(None),
        Some(LoadBalancingSpec::Policy(policy)) => of_policy(Some(*policy)),
        Some(LoadBalancingSpec::Settings(settings)) => settings.clone(),
    };
    let LoadBalancingSettingsSpec {
        policy,
        hash,
        hash_balance_factor,
        slow_start,
        zone_aware,
        panic_threshold,
        overprovisioning_factor,
    } = &spec;
    let policy = policy.unwrap_or(LoadBalancingPolicySpec::RoundRobin);
    let hashes = matches!(policy, LoadBalancingPolicySpec::RingHash | LoadBalancingPolicySpec::Maglev);
    let starts_slowly = matches!(policy, LoadBalancingPolicySpec::RoundRobin | LoadBalancingPolicySpec::LeastRequest);
    for (field, given, fits, with) in [
        ("hash", hash.is_some(), hashes, "ring-hash and maglev"),
        ("hashBalanceFactor", hash_balance_factor.is_some(), hashes, "ring-hash and maglev"),
        ("slowStart", slow_start.is_some(), starts_slowly, "round-robin and least-request"),
        ("zoneAware", zone_aware.is_some(), !hashes, "round-robin, least-request and random"),
    ] {
        if given && !fits {
            problems.at(field).report(format!("goes with the policies {with} only"));
        }
    }
    if hashes && hash.is_none() {
        problems.at("hash").report("is missing; without anything to hash, endpoints would be chosen at random");
    }
    let keys = hash.as_ref().map_or(Some(Vec::new()), |specs| {
        let mut problems = problems.at("hash");
        let keys = problems.each(specs, hash_key)?;
        problems.each_once(&keys);
        Some(keys)
    });
    let slow_start = super::all(slow_start.as_ref().map(|spec| parse_slow_start(spec, &mut problems.at("slowStart"))));
    let hashing = keys.map(|keys| Hashing { keys, balance_factor: *hash_balance_factor });
    let policy = match policy {
        LoadBalancingPolicySpec::RoundRobin => Policy::RoundRobin(slow_start?),
        LoadBalancingPolicySpec::LeastRequest => Policy::LeastRequest(slow_start?),
        LoadBalancingPolicySpec::Random => Policy::Random,
        LoadBalancingPolicySpec::RingHash => Policy::RingHash(hashing?),
        LoadBalancingPolicySpec::Maglev => Policy::Maglev(hashing?),
    };
    Some(LoadBalancing {
        policy,
        zone_aware: zone_aware.as_ref().map(|spec| spec.min_endpoints.unwrap_or(1)),
        panic_threshold: *panic_threshold,
        overprovisioning_factor: *overprovisioning_factor,
    })
}

fn parse_slow_start(spec: &SlowStartSpec, problems: &mut Problems) -> Option<SlowStart> {
    let SlowStartSpec { window, min_weight_percent } = spec;
    let window = problems.at("window").ok(text::duration(window, text::HOUR));
    Some(SlowStart { window: window?, min_weight_percent: *min_weight_percent })
}

fn hash_key(spec: &HashKeySpec, problems: &mut Problems) -> Option<HashKey> {
    let HashKeySpec { header, query, cookie, remote_address, terminal } = spec;
    let mut given: Vec<Option<HashOf>> = Vec::new();
    if let Some(name) = header {
        given.push(problems.at("header").ok(text::header_name(name)).map(HashOf::Header));
    }
    if let Some(name) = query {
        given.push(problems.at("query").ok(text::parameter_name(name)).map(HashOf::Query));
    }
    if let Some(spec) = cookie {
        given.push(hash_cookie(spec, &mut problems.at("cookie")));
    }
    if let Some(flag) = remote_address {
        let flag = text::only_true(*flag, &mut problems.at("remoteAddress"));
        given.push(flag.map(|()| HashOf::RemoteAddress));
    }
    let of = problems.only_one(given, "header, query, cookie and remoteAddress")?;
    Some(HashKey { of, terminal: terminal.unwrap_or(false) })
}

fn hash_cookie(spec: &HashCookieSpec, problems: &mut Problems) -> Option<HashOf> {
    let HashCookieSpec { name, ttl, path } = spec;
    if path.is_some() && ttl.is_none() {
        problems.at("path").report("goes with ttl only");
    }
    let name = problems.at("name").ok(text::cookie_name(name));
    let path = cookie_path(path.as_ref(), &mut problems.at("path"));
    let Some(ttl) = ttl else { return Some(HashOf::Cookie { name: name?, made: None }) };
    let ttl = problems.at("ttl").ok(cookie_age(ttl));
    Some(HashOf::Cookie { name: name?, made: Some(MadeCookie { ttl: ttl?, path: path? }) })
}

pub(super) fn session_affinity(spec: &SessionAffinitySpec, problems: &mut Problems) -> Option<SessionAffinity> {
    let SessionAffinitySpec { cookie, header } = spec;
    let mut given: Vec<Option<SessionAffinity>> = Vec::new();
    if let Some(spec) = cookie {
        given.push(session_cookie(spec, &mut problems.at("cookie")));
    }
    if let Some(name) = header {
        given.push(problems.at("header").ok(text::changeable_header_name(name)).map(SessionAffinity::Header));
    }
    problems.only_one(given, "cookie and header")
}

fn session_cookie(spec: &SessionCookieSpec, problems: &mut Problems) -> Option<SessionAffinity> {
    let SessionCookieSpec { name, ttl, path } = spec;
    let name = problems.at("name").ok(text::cookie_name(name));
    let ttl = super::all(ttl.as_ref().map(|ttl| problems.at("ttl").ok(cookie_age(ttl))));
    let path = cookie_path(path.as_ref(), &mut problems.at("path"));
    Some(SessionAffinity::Cookie { name: name?, ttl: ttl?, path: path? })
}

/// Ages of cookies have no fractions.
fn cookie_age(text: &DurationText) -> Result<Duration, String> {
    let age = text::duration(text, YEAR)?;
    match age.subsec_nanos() {
        0 => Ok(age),
        _ => Err("must be whole seconds".to_owned()),
    }
}

/// All paths unless it is said.
fn cookie_path(given: Option<&String>, problems: &mut Problems) -> Option<String> {
    let Some(text) = given else { return Some("/".to_owned()) };
    let path = problems.ok(path::plain(text))?;
    if path.contains(';') {
        problems.report(format!("{} holds a ;, where an attribute of a cookie ends", Quoted(text)));
        return None;
    }
    Some(path)
}
