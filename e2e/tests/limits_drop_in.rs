//! Our limiter says what envoyproxy/ratelimit says: the same random rules for both, the same random requests to both.
//!
//! Ours counts by fixed windows, once in memory and once in Redis. The first seed is always the same;
//! `CHANCERY_PEER_SEED` sets another, `CHANCERY_PEER_REQUESTS` how many requests there are.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a failed test")]

use std::{
    collections::HashMap,
    env, fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    limiter::{Client, Limiter},
    peer::{self, Peer},
    redis::Redis,
    wait::{PATIENCE, until},
};
use chancery_proto::envoy::{
    rate_limit_common::RateLimitDescriptor,
    rls::{
        RateLimitRequest, RateLimitResponse,
        rate_limit_response::{Code, DescriptorStatus, rate_limit::Unit},
    },
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use self::case::Case;

#[path = "limits_drop_in/case.rs"]
mod case;

const DOMAINS: usize = 40;
const REQUESTS: usize = 4_000;

/// Mismatches that are shown before a run is given up.
const SHOWN: usize = 3;

fn setting(name: &str, default: usize) -> usize {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test]
async fn the_same_rules_give_the_same_answers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(program) = peer::program() else { return Ok(()) };
    let Some(redis) = Redis::start(folder.path()).await? else { return Ok(()) };
    let seed = setting("CHANCERY_PEER_SEED", 1);
    println!("CHANCERY_PEER_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed as u64);
    let cases: Vec<Case> = (0..DOMAINS).map(|number| Case::random(&mut rng, number)).collect();
    let rules = Peer::rules(folder.path())?;
    for case in &cases {
        fs::write(rules.join(format!("{}.yaml", case.domain)), serde_json::to_vec_pretty(&case.rules)?)?;
    }
    let theirs = Peer::start(&program, folder.path(), &redis).await?;
    let (rules, url) = (rules.display().to_string(), redis.url());
    let start = async |name, store| {
        // On a busy machine Redis may be late; what would be decided without it is not the subject here.
        let redis = ["--redis-timeout", "2000"];
        let rules = ["--config", &rules, "--algorithm", "fixed-window", "--store", store];
        let arguments = [&rules[..], &redis[..]].concat();
        Limiter::start(folder.path(), name, &arguments).await
    };
    let (in_memory, in_redis) = (start("memory", "memory").await?, start("redis", &url).await?);
    in_redis.ready().await?;
    let mut trio = Trio {
        theirs: Client::connect(theirs.grpc).await?,
        ours: [("memory", in_memory.client().await?), ("Redis", in_redis.client().await?)],
        edges: Edges::default(),
    };
    let mut seen = Seen::default();
    let mut mismatches = Vec::new();
    for number in 0..setting("CHANCERY_PEER_REQUESTS", REQUESTS) {
        let case = &cases[rng.random_range(0..cases.len())];
        let request = case.request(&mut rng);
        if let Err(mismatch) = trio.ask(&request, &mut seen).await {
            mismatches.push(format!("request {number}: {request:?}\n{mismatch:#}\nrules: {}", case.rules));
        }
        ensure!(mismatches.len() < SHOWN, "with seed {seed}\n{}", mismatches.join("\n\n"));
    }
    ensure!(mismatches.is_empty(), "with seed {seed}\n{}", mismatches.join("\n\n"));
    println!("{seen:?}");
    let Seen { statuses, blurred, limited, refused, unlimited } = seen;
    ensure!(blurred * 20 < statuses, "too many windows ended while they were asked about: {seen:?}");
    ensure!([limited, refused, unlimited].iter().all(|count| count * 100 > statuses), "hardly anything met: {seen:?}");
    Ok(())
}

/// What the answers were about, so that a generator that makes nothing of interest is noticed.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    statuses: usize,
    /// Not compared, because a window ended.
    blurred: usize,
    limited: usize,
    refused: usize,
    unlimited: usize,
}

/// The three that are asked.
struct Trio {
    theirs: Client,
    ours: [(&'static str, Client); 2],
    edges: Edges,
}

impl Trio {
    async fn ask(&mut self, request: &RateLimitRequest, seen: &mut Seen) -> Result<()> {
        let before = inside_a_second().await?;
        let [(_, memory), (_, redis)] = &mut self.ours;
        let (theirs, memory, redis) =
            tokio::join!(self.theirs.ask(request.clone()), memory.ask(request.clone()), redis.ask(request.clone()));
        self.edges.passed(before, since_epoch());
        let theirs = theirs.context("envoyproxy/ratelimit")?;
        for status in &theirs.statuses {
            seen.statuses += 1;
            seen.blurred += usize::from(self.edges.blur(status, before));
            seen.limited += usize::from(status.current_limit.is_some());
            seen.refused += usize::from(status.code() == Code::OverLimit);
            seen.unlimited += usize::from(status.limit_remaining == u32::MAX);
        }
        for (store, ours) in [("memory", memory), ("Redis", redis)] {
            let ours = ours.with_context(|| format!("ours in {store}"))?;
            self.compare(request, &theirs, &ours, before)
                .with_context(|| format!("theirs: {theirs:?}\nours in {store}: {ours:?}"))?;
        }
        Ok(())
    }

    fn compare(
        &self,
        request: &RateLimitRequest,
        theirs: &RateLimitResponse,
        ours: &RateLimitResponse,
        now: Duration,
    ) -> Result<()> {
        ensure!(theirs.statuses.len() == ours.statuses.len(), "different numbers of statuses");
        let mut whole = true;
        for (at, (theirs, ours)) in theirs.statuses.iter().zip(&ours.statuses).enumerate() {
            if self.edges.blur(theirs, now) {
                whole = false;
                continue;
            }
            ensure!(theirs.current_limit == ours.current_limit, "current_limit of status {at}");
            ensure!(theirs.limit_remaining == ours.limit_remaining, "limit_remaining of status {at}");
            let hits = hits(request, &request.descriptors[at]);
            let Some(limit) = &theirs.current_limit else {
                ensure!(theirs.code == ours.code, "code of status {at}");
                continue;
            };
            if hits == 0 && theirs.limit_remaining == 0 {
                // A look: there whether too much has been used, here whether one more would pass.
                whole = false;
                continue;
            }
            ensure!(theirs.code == ours.code, "code of status {at}");
            // Ours never tells when what is more than the whole limit would pass.
            if let (Some(theirs), Some(ours)) = (&theirs.duration_until_reset, &ours.duration_until_reset)
                && hits <= limit.requests_per_unit.into()
            {
                ensure!(theirs.seconds.abs_diff(ours.seconds) <= 1, "duration_until_reset of status {at}");
            }
        }
        ensure!(!whole || theirs.overall_code == ours.overall_code, "overall_code");
        Ok(())
    }
}

fn hits(request: &RateLimitRequest, descriptor: &RateLimitDescriptor) -> u64 {
    descriptor.hits_addend.as_ref().map_or(request.hits_addend.max(1).into(), |hits| hits.value)
}

/// Windows in which not all of the three have counted the same, because the window before ended between their answers.
#[derive(Default)]
struct Edges(HashMap<u64, u64>);

impl Edges {
    fn passed(&mut self, before: Duration, after: Duration) {
        for period in [1, 60, 3_600, 86_400, 7 * 86_400, 30 * 86_400, 365 * 86_400] {
            let window = after.as_secs() / period;
            if before.as_secs() / period != window {
                self.0.insert(period, window);
            }
        }
    }

    /// Whether a status is about such a window.
    fn blur(&self, status: &DescriptorStatus, now: Duration) -> bool {
        let Some(limit) = &status.current_limit else { return false };
        let period = match limit.unit() {
            Unit::Unknown => return false,
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 3_600,
            Unit::Day => 86_400,
            Unit::Week => 7 * 86_400,
            Unit::Month => 30 * 86_400,
            Unit::Year => 365 * 86_400,
        };
        self.0.get(&period).is_some_and(|window| now.as_secs() / period <= *window)
    }
}

/// Waits until the current second, with which any window may end, has some time left. Answers the time.
async fn inside_a_second() -> Result<Duration> {
    until("the middle of a second", PATIENCE, async || {
        let now = since_epoch();
        ensure!((50..850).contains(&now.subsec_millis()), "at its edge");
        Ok(now)
    })
    .await
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}
