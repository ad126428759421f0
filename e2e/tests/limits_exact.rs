//! How much is admitted when three limiters share one Redis and much more is asked for than the limits allow.
//!
//! Too much never, whatever happens: the bound is the one that the limiter's documentation states. Too little hardly:
//! 98 % of the limit, as long as Redis is there. Rules with and without leases are asked at the same time, by 64 clients, and
//! three of four requests are about the first key.
//!
//! A run takes ten seconds; `CHANCERY_EXACT_SECONDS` makes it longer.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a failed test")]

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    limiter::{Client, Limiter},
    redis::{Cluster, Redis},
    wait::{PATIENCE, until},
};
use tempfile::TempDir;
use tokio::{
    sync::{Mutex, MutexGuard},
    task::JoinSet,
};

/// Requests per second that each key is allowed, and at once.
const RATE: f64 = 40.0;
const BURST: f64 = 96.0;

/// Keys per rule.
const KEYS: usize = 2;

const CLIENTS: usize = 64;

/// How long tokens may lie with a limiter.
const LEASE_LIFE: f64 = 1.0;

/// A request of a client may fail while its limiter is being killed; then the client tries again after this.
const RETRY: Duration = Duration::from_millis(20);

const RULES: &str = "
domain: d
descriptors:
- {key: leased, rate_limit: {per: 1s, requests_per_unit: 40, burst: 96}}
- {key: strict, rate_limit: {per: 1s, requests_per_unit: 40, burst: 96, strict: true}}
- {key: closed, rate_limit: {per: 1s, requests_per_unit: 40, burst: 96, when_redis_is_down: deny}}
";

const RULE_KEYS: [&str; 3] = ["leased", "strict", "closed"];

fn seconds() -> Duration {
    let asked = std::env::var("CHANCERY_EXACT_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(asked.unwrap_or(10))
}

/// What was asked and admitted, by rule and key.
#[derive(Default)]
struct Tally([[Count; KEYS]; RULE_KEYS.len()]);

#[derive(Default)]
struct Count {
    asked: AtomicU64,
    admitted: AtomicU64,
}

/// Three limiters, and clients that never stop asking.
struct Crowd {
    limiters: Vec<Limiter>,
    addresses: Arc<[SocketAddr]>,
    _folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

/// One crowd at a time: two would take the machine from each other, and ask for too little.
static ALONE: Mutex<()> = Mutex::const_new(());

impl Crowd {
    async fn gather(url: &str) -> Result<Self> {
        let alone = ALONE.lock().await;
        let folder = tempfile::tempdir()?;
        let rules = folder.path().join("limits.yaml");
        fs::write(&rules, RULES)?;
        let mut limiters = Vec::new();
        for index in 0..3 {
            let arguments = ["--config", rules.to_str().context("path")?, "--store", url, "--workers", "1"];
            // A machine under test is busy; what is tested here is how much, not how soon.
            let arguments = [&arguments[..], &["--redis-timeout", "1000"]].concat();
            limiters.push(Limiter::start(folder.path(), &format!("limiter-{index}"), &arguments).await?);
        }
        let addresses = limiters.iter().map(|limiter| limiter.grpc).collect();
        let crowd = Self { limiters, addresses, _folder: folder, _alone: alone };
        crowd.together().await?;
        Ok(crowd)
    }

    /// Waits until every limiter decides in Redis.
    async fn together(&self) -> Result<()> {
        for limiter in &self.limiters {
            until("a limiter decides in Redis", PATIENCE, async || {
                let check = limiter.json("/limits/check?domain=d&descriptor=strict=nobody").await?;
                ensure!(check["descriptors"][0]["decidedBy"] == "redis", "{check}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Lets the clients ask for as long as a run takes, while `meanwhile` happens. Answers with what was admitted and how long it was.
    async fn ask(&mut self, meanwhile: impl AsyncFnOnce(&mut Self) -> Result<()>) -> Result<(Arc<Tally>, f64)> {
        let tally = Arc::new(Tally::default());
        let began = Instant::now();
        let deadline = began + seconds();
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(insist(client, self.addresses.clone(), tally.clone(), deadline));
        }
        meanwhile(self).await?;
        clients.join_all().await.into_iter().collect::<Result<Vec<()>>>()?;
        Ok((tally, began.elapsed().as_secs_f64()))
    }
}

/// Asks until the deadline, whatever the answers.
async fn insist(client: usize, addresses: Arc<[SocketAddr]>, tally: Arc<Tally>, deadline: Instant) -> Result<()> {
    let address = addresses[client % addresses.len()];
    let mut asking = None;
    let mut turn = client;
    while Instant::now() < deadline {
        turn += 1;
        // Skewed: three of four requests are about the first key.
        let key = usize::from(turn.is_multiple_of(4));
        let rule = (turn / 4) % RULE_KEYS.len();
        if asking.is_none() {
            asking = Client::connect(address).await.ok();
        }
        let Some(connected) = &mut asking else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        let count = &tally.0[rule][key];
        count.asked.fetch_add(1, Relaxed);
        match connected.passes("d", &[(RULE_KEYS[rule], &key.to_string())]).await {
            Ok(true) => _ = count.admitted.fetch_add(1, Relaxed),
            Ok(false) => {}
            Err(_) => {
                asking = None;
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    Ok(())
}

/// What a rule may have admitted.
struct Expected {
    rule: &'static str,
    /// Buckets that may have been full in the course of the run: the one in Redis, those that came after it was lost, and
    /// those of the limiters themselves while it was away.
    bursts: f64,
    /// What part of the limit must have been admitted.
    least: f64,
}

fn expect(tally: &Tally, seconds: f64, expected: &[Expected]) {
    for Expected { rule, bursts, least } in expected {
        let index = RULE_KEYS.iter().position(|name| name == rule).unwrap();
        for (key, count) in tally.0[index].iter().enumerate() {
            let [asked, admitted] = [&count.asked, &count.admitted].map(|count| count.load(Relaxed) as f64);
            let most = bursts * BURST + (seconds + LEASE_LIFE) * RATE;
            let allowed = BURST + seconds * RATE;
            let share = 100.0 * admitted / allowed;
            println!("{rule} {key}: {asked} asked, {admitted} admitted, {share:.1} % of the limit, at most {most:.0}");
            // A machine too busy to ask for much more than the limit leaves some of it lying.
            let allowed = allowed.min(asked / 2.0);
            assert!(admitted <= most, "{rule} {key}: {admitted} admitted, more than {most}");
            assert!(admitted >= least * allowed, "{rule} {key}: {admitted} admitted of {allowed} allowed");
        }
    }
}

fn all(bursts: f64, least: f64) -> [Expected; 3] {
    RULE_KEYS.map(|rule| Expected { rule, bursts, least })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_and_hardly_less_on_one_redis() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(redis) = Redis::start(folder.path()).await? else { return Ok(()) };
    let mut crowd = Crowd::gather(&redis.url()).await?;
    let (tally, seconds) = crowd.ask(async |_| Ok(())).await?;
    expect(&tally, seconds, &all(1.0, 0.98));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_and_hardly_less_on_a_cluster_that_loses_a_primary() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(mut cluster) = Cluster::start(folder.path()).await? else { return Ok(()) };
    let mut crowd = Crowd::gather(&cluster.url()).await?;
    let (tally, seconds) = crowd
        .ask(async |_| {
            tokio::time::sleep(seconds() / 3).await;
            cluster.kill_a_primary()?;
            Ok(())
        })
        .await?;
    // What the primary had not yet told its replica is lost, at worst a whole bucket; meanwhile each limiter counts by itself.
    expect(
        &tally,
        seconds,
        &[
            Expected { rule: "leased", bursts: 3.0, least: 0.5 },
            Expected { rule: "strict", bursts: 3.0, least: 0.5 },
            Expected { rule: "closed", bursts: 2.0, least: 0.3 },
        ],
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_two_buckets_over_a_restart_of_redis() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(mut redis) = Redis::start(folder.path()).await? else { return Ok(()) };
    let mut crowd = Crowd::gather(&redis.url()).await?;
    let (tally, seconds) = crowd
        .ask(async |_| {
            tokio::time::sleep(seconds() / 3).await;
            redis.kill();
            tokio::time::sleep(seconds() / 10).await;
            redis.start_again().await
        })
        .await?;
    // It comes back empty, so every bucket is full once more; and while it was away, the limiters' own were.
    expect(
        &tally,
        seconds,
        &[
            Expected { rule: "leased", bursts: 3.0, least: 0.9 },
            Expected { rule: "strict", bursts: 3.0, least: 0.9 },
            Expected { rule: "closed", bursts: 2.0, least: 0.7 },
        ],
    );
    crowd.together().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limiter_that_is_killed_with_tokens_lent_only_tightens_limits() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(redis) = Redis::start(folder.path()).await? else { return Ok(()) };
    let mut crowd = Crowd::gather(&redis.url()).await?;
    let (tally, seconds) = crowd
        .ask(async |crowd| {
            for _ in 0..3 {
                tokio::time::sleep(seconds() / 5).await;
                crowd.limiters[0].kill();
                crowd.limiters[0].start_again().await?;
            }
            Ok(())
        })
        .await?;
    expect(&tally, seconds, &all(1.0, 0.9));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clock_of_a_limiter_does_not_matter() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let Some(redis) = Redis::start(folder.path()).await? else { return Ok(()) };
    let mut crowd = Crowd::gather(&redis.url()).await?;
    let rules = folder.path().join("limits.yaml");
    fs::write(&rules, RULES)?;
    let arguments = ["--config", rules.to_str().unwrap(), "--store", &redis.url(), "--redis-timeout", "1000"];
    let Some(ahead) = Limiter::start_ahead(folder.path(), "ahead", "+1h", &arguments).await? else { return Ok(()) };
    crowd.addresses = [&crowd.addresses[..2], &[ahead.grpc]].concat().into();
    crowd.limiters.push(ahead);
    crowd.together().await?;
    let (tally, seconds) = crowd.ask(async |_| Ok(())).await?;
    expect(&tally, seconds, &all(1.0, 0.98));
    Ok(())
}
