//! Limits: whether the running rate limiter admits exactly what a limit says.
//!
//! It is asked to try one out (`POST /limits/probe`): fifteen hits on a limit of ten an hour, charged to the cells that it decides by, under a name
//! by chance that no rule leads to and nothing else charges. No user's counter is touched.

use std::{collections::BTreeMap, time::Duration};

use http::{Method, StatusCode};
use serde::Deserialize;

use super::{
    check::{Check, Found, Group, When},
    site::{Program, Site, reachable},
};
use crate::ask::ask;

pub(super) const GROUP: Group = Group {
    name: "Limits",
    checks: &[Check { name: "exactness", when: When::Running, probe: |site| Box::pin(exactness(site)) }],
};

/// What became of a probe.
#[derive(Debug, Deserialize)]
struct Probe {
    allowed: u32,
    tried: u32,
    admitted: u32,
    sources: BTreeMap<String, u32>,
}

async fn exactness(site: &Site) -> Found {
    let Some(settings) = site.rate_limiter.as_ref().and_then(Program::ok) else {
        return Found::skipped("no rate limiter here");
    };
    if let Some(Err(_)) = site.redis().await {
        return Found::skipped("Redis does not answer, and without it each limiter counts alone");
    }
    let url = format!("http://{}/limits/probe", reachable(settings.http_addr));
    match ask(Method::POST, &url, Duration::from_secs(8), 64 << 10).await {
        Err(_) => Found::skipped("the rate limiter does not answer"),
        Ok(answer) if answer.status == StatusCode::NOT_FOUND => {
            Found::skipped("this rate limiter is too old to be asked")
        }
        Ok(answer) => match serde_json::from_slice(&answer.body) {
            Ok(probe) if answer.status == StatusCode::OK => verdict(&probe),
            _ => Found::failed(
                format!("it answers {}", answer.status),
                "see its log: journalctl -u chancery-rate-limiter",
            ),
        },
    }
}

fn verdict(probe: &Probe) -> Found {
    let Probe { allowed, tried, admitted, sources } = probe;
    let said = format!("{admitted} of {tried} hits admitted by a limit of {allowed}");
    match sources.get("without_redis") {
        Some(alone) => Found::failed(
            format!("{said}; {alone} were decided without Redis"),
            "see how long Redis takes (redis-cli --latency): the limiter waits for redis_timeout, 5 ms unless set",
        ),
        None if admitted == allowed => {
            let by: Vec<_> = sources.keys().map(String::as_str).collect();
            Found::passed(format!("{said} (decided by {})", by.join(", ")))
        }
        None => Found::failed(
            said,
            "look for two limiters on one Redis whose versions differ, and for a Redis that evicts; `chancery bundle` keeps what there is to see",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Outcome;

    fn probe(admitted: u32, source: &str) -> Found {
        verdict(&Probe { allowed: 10, tried: 15, admitted, sources: [(source.to_owned(), 15)].into() })
    }

    #[test]
    fn exactly_as_many_as_the_limit_says() {
        assert_eq!(probe(10, "redis"), Found::passed("10 of 15 hits admitted by a limit of 10 (decided by redis)"));
        assert_eq!((probe(11, "redis").outcome, probe(9, "redis").outcome), (Outcome::Failed, Outcome::Failed));
        let alone = probe(10, "without_redis");
        assert!(alone.outcome == Outcome::Failed && alone.said.contains("without Redis"), "{alone:?}");
    }
}
