//! What a fleet's spec means.

use std::{net::IpAddr, time::Duration};

use super::{host, rollout, text};
use crate::model::{
    Name,
    fleet::{Fleet, OnFailure, RateLimiter},
    problem::{Problems, Quoted},
    service::Address,
    wire::{FleetSpec, OnFailureSpec, RateLimiterSpec},
};

/// The time for a whole answer where nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a request waits for a decision where nothing else is said: Envoy's own default.
const DEFAULT_LIMITER_TIMEOUT: Duration = Duration::from_millis(20);

/// The longest that a request can be made to wait for a decision.
const MAX_LIMITER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn fleet(name: Name, spec: &FleetSpec, problems: &mut Problems) -> Option<Fleet> {
    let FleetSpec { defaults, trusted_hops, rate_limiter: limiter, rollout } = spec;
    let default_timeout = match defaults.as_ref().and_then(|defaults| defaults.timeout.as_ref()) {
        None => Some(DEFAULT_TIMEOUT),
        Some(timeout) => problems.at("defaults").at("timeout").ok(text::duration(timeout, text::DAY)),
    };
    let rate_limiter = match limiter {
        None => Some(None),
        Some(spec) => rate_limiter(spec, &mut problems.at("rateLimiter")).map(Some),
    };
    let rollout = match rollout {
        None => Some(None),
        Some(spec) => rollout::policy(spec, &mut problems.at("rollout")).map(Some),
    };
    Some(Fleet {
        name,
        default_timeout: default_timeout?,
        trusted_hops: trusted_hops.unwrap_or(0),
        rate_limiter: rate_limiter?,
        rollout: rollout?,
    })
}

fn rate_limiter(spec: &RateLimiterSpec, problems: &mut Problems) -> Option<RateLimiter> {
    let RateLimiterSpec { addresses, timeout, on_failure, insecure } = spec;
    let addresses = {
        let mut problems = problems.at("addresses");
        let parsed = problems.each(addresses, |text, problems| problems.ok(socket(text)));
        problems.each_once(parsed.as_deref().unwrap_or_default());
        parsed
    };
    let timeout = match timeout {
        None => Some(DEFAULT_LIMITER_TIMEOUT),
        Some(timeout) => problems.at("timeout").ok(text::duration(timeout, MAX_LIMITER_TIMEOUT)),
    };
    Some(RateLimiter {
        addresses: addresses?,
        timeout: timeout?,
        on_failure: match on_failure {
            None | Some(OnFailureSpec::Allow) => OnFailure::Allow,
            Some(OnFailureSpec::Deny) => OnFailure::Deny,
        },
        insecure: insecure.unwrap_or(false),
    })
}

/// `host:port`.
fn socket(text: &str) -> Result<(Address, u16), String> {
    let (host, port) = text
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse::<u16>().ok().filter(|port| *port > 0)?)))
        .ok_or_else(|| format!("{} is not of the form host:port", Quoted(text)))?;
    let host = host::exact(host)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = match bare.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() || address.is_multicast() => {
            return Err(format!("{address} is not the address of one machine"));
        }
        Ok(address) => Address::Ip(address),
        Err(_) => Address::Dns(host),
    };
    Ok((address, port))
}
