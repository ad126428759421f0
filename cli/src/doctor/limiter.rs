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

/// How often a limiter is asked at most, while some of its decisions are made without Redis.
const PROBES: u32 = 3;

/// The source of a decision that Redis gave no answer to in time.
const WITHOUT_REDIS: &str = "without_redis";

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
    ask_until_redis_decides(&format!("http://{}/limits/probe", reachable(settings.http_addr))).await
}

async fn ask_until_redis_decides(url: &str) -> Found {
    let mut asked = 1;
    loop {
        match try_out(url).await {
            // One answer that Redis gave too late is no finding, on a busy machine least of all; one in each probe is.
            Ok(probe) if asked < PROBES && probe.sources.contains_key(WITHOUT_REDIS) => asked += 1,
            Ok(probe) => return verdict(&probe),
            Err(found) => return found,
        }
    }
}

/// What became of one probe, or why there is nothing to judge.
async fn try_out(url: &str) -> Result<Probe, Found> {
    let answer = ask(Method::POST, url, Duration::from_secs(8), 64 << 10)
        .await
        .map_err(|_| Found::skipped("the rate limiter does not answer"))?;
    if answer.status == StatusCode::NOT_FOUND {
        return Err(Found::skipped("this rate limiter is too old to be asked"));
    }
    match serde_json::from_slice(&answer.body) {
        Ok(probe) if answer.status == StatusCode::OK => Ok(probe),
        _ => Err(Found::failed(
            format!("it answers {}", answer.status),
            "see its log: journalctl -u chancery-rate-limiter",
        )),
    }
}

fn verdict(probe: &Probe) -> Found {
    let Probe { allowed, tried, admitted, sources } = probe;
    let said = format!("{admitted} of {tried} hits admitted by a limit of {allowed}");
    match sources.get(WITHOUT_REDIS) {
        Some(alone) => Found::failed(
            format!("{said}; {alone} were decided without Redis, after some in each of {} tries before", PROBES - 1),
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
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

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

    /// What is found of a limiter that answers its probes with these sources, one after the other, and what it was not asked for.
    async fn asked(sources: &[&'static str]) -> (Outcome, usize) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/limits/probe", listener.local_addr().unwrap());
        let mut left = sources.iter().copied();
        let limiter = async {
            loop {
                let (mut connection, _) = listener.accept().await.unwrap();
                let source = left.next().expect("it is asked no more often");
                let body = format!(r#"{{"allowed":10,"tried":15,"admitted":10,"sources":{{"{source}":1}}}}"#);
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                let _read = connection.read(&mut [0; 1024]).await.unwrap();
                connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            }
        };
        let found = tokio::select! { found = ask_until_redis_decides(&url) => found, () = limiter => unreachable!() };
        (found.outcome, left.len())
    }

    #[tokio::test]
    async fn a_late_answer_is_a_finding_when_it_is_one_each_time() {
        assert_eq!(asked(&["redis", "redis"]).await, (Outcome::Passed, 1));
        assert_eq!(asked(&["without_redis", "without_redis", "redis"]).await, (Outcome::Passed, 0));
        assert_eq!(asked(&["without_redis"; 4]).await, (Outcome::Failed, 1));
    }
}
