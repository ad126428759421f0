use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Shared,
    script::{EPOCH_SECONDS, TICKS_PER_SECOND},
    testing::{RedisServer, charge, cluster, connected, settings, shared},
};
use crate::{
    model::{
        descriptor::Hits,
        key::{CellKey, Salt},
        limit::{Algorithm, Limit},
        rule::Policy,
    },
    store::{
        Ask, Clock, Memory, SaltCell, Source,
        conformance::{START, Subject, Ticks, conforms},
    },
};

mod far;
mod outage;
mod paths;

/// Strict: what Redis itself says.
fn ask(key: u128, limit: Limit) -> Ask {
    Ask { key: CellKey(key), limit, hits: Hits::Take(1), policy: Policy { strict: true, ..Policy::default() } }
}

fn bucket(requests: u32, per: Duration, burst: u32) -> Limit {
    Limit::new(requests, per, Some(burst), Algorithm::TokenBucket).unwrap()
}

fn ticks(time: Duration) -> u64 {
    let since = time - Duration::from_secs(EPOCH_SECONDS);
    u64::try_from(since.as_nanos() * u128::from(TICKS_PER_SECOND) / 1_000_000_000).unwrap()
}

async fn conforms_at(url: &str) {
    let now = Arc::new(AtomicU64::new(ticks(START)));
    let local = Arc::new(Memory::new(1_000, Clock::system()));
    let shared = Shared::start_at(settings(url), local, SaltCell::random(), Some(now.clone())).unwrap();
    let store = shared.store_for_worker();
    connected(&shared).await;
    let set_now = |time| now.store(ticks(time), Ordering::Release);
    let subject = Subject {
        store: &*store,
        set_now: &set_now,
        ticks: Ticks { per_second: TICKS_PER_SECOND, epoch: Duration::from_secs(EPOCH_SECONDS) },
    };
    conforms(&subject).await;
}

#[tokio::test]
async fn a_server_conforms() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    conforms_at(&server.url()).await;
}

#[tokio::test]
async fn a_cluster_conforms() {
    let Some(nodes) = cluster(0).await else { return };
    conforms_at(&nodes[1].url()).await;
    for node in &nodes {
        assert_eq!(node.cli(&["flushall"]), "OK");
    }
    let addresses: Vec<_> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    conforms_at(&format!("redis+cluster://{}", addresses.join(","))).await;
    for node in &nodes {
        let keys: u64 = node.cli(&["dbsize"]).parse().unwrap();
        assert!(keys > 100, "all nodes keep cells, one has {keys}");
    }
}

#[tokio::test]
async fn a_key_lives_until_its_cell_says_nothing() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let shared = shared(settings(&server.url()));
    let store = shared.store_for_worker();
    connected(&shared).await;
    let left = || -> i64 {
        let keys = server.cli(&["keys", "ch:?????????????????"]);
        assert_eq!(keys.lines().count(), 1, "{keys}");
        server
            .cli(&["eval", "return redis.call('PTTL', redis.call('KEYS', 'ch:?????????????????')[1])", "0"])
            .parse()
            .unwrap()
    };
    // Ten seconds of a bucket's hundred are used; the rounding adds up to 525 ms.
    let limit = bucket(10, Duration::from_secs(100), 10);
    charge(&*store, ask(1, limit)).await;
    let first = left();
    assert!((9_000..=10_600).contains(&first), "{first} ms");
    charge(&*store, Ask { hits: Hits::Take(2), ..ask(1, limit) }).await;
    let second = left();
    assert!((29_000..=30_600).contains(&second), "{second} ms");
    // A charge that is refused, and a look, leave it alone.
    assert!(!charge(&*store, Ask { hits: Hits::Take(9), ..ask(1, limit) }).await.admitted);
    charge(&*store, Ask { hits: Hits::Take(0), ..ask(1, limit) }).await;
    assert!(left() <= second);
    // A hit that moves the cell by less than the grid keeps the expiry, and it is still late enough.
    server.cli(&["flushall"]);
    let fine = bucket(1_000, Duration::from_secs(100), 1_000);
    charge(&*store, Ask { hits: Hits::Take(100), ..ask(2, fine) }).await;
    for hit in 1..=60 {
        let asked = std::time::Instant::now();
        let reset = charge(&*store, ask(2, fine)).await.reset.as_millis() as i64;
        let (left, passed) = (left(), asked.elapsed().as_millis() as i64);
        assert!(left + passed + 1 >= reset && left <= reset + 526, "after {hit} hits: {left} ms, of {reset}");
    }
}

#[tokio::test]
async fn windows_are_aligned_to_the_unix_epoch() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let now = Arc::new(AtomicU64::new(ticks(START)));
    let local = Arc::new(Memory::new(1_000, Clock::system()));
    let shared = Shared::start_at(settings(&server.url()), local, SaltCell::random(), Some(now)).unwrap();
    let store = shared.store_for_worker();
    connected(&shared).await;
    for days in [7, 30, 365] {
        let per = Duration::from_secs(days * 86_400);
        let limit = Limit::new(5, per, None, Algorithm::FixedWindow).unwrap();
        let outcome = charge(&*store, ask(days.into(), limit)).await;
        assert_eq!(outcome.reset.as_secs(), per.as_secs() - START.as_secs() % per.as_secs(), "{days} days");
    }
}

#[tokio::test]
async fn a_server_that_lost_the_script_is_sent_it_again() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let shared = shared(settings(&server.url()));
    let store = shared.store_for_worker();
    connected(&shared).await;
    let limit = bucket(3, Duration::from_secs(3_600), 3);
    assert_eq!(charge(&*store, ask(1, limit)).await.remaining, 2);
    assert_eq!(server.cli(&["script", "flush"]), "OK");
    let outcome = charge(&*store, ask(1, limit)).await;
    assert_eq!((outcome.remaining, outcome.source), (1, Source::Redis));
}

#[tokio::test]
async fn what_comes_together_goes_in_one_call() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let shared = shared(settings(&server.url()));
    let store = shared.store_for_worker();
    connected(&shared).await;
    server.cli(&["config", "resetstat"]);
    let limit = bucket(1, Duration::from_secs(3_600), 1);
    let answers = (0..700).map(|key| charge(&*store, ask(key, limit)));
    let outcomes = futures_util::future::join_all(answers).await;
    assert!(outcomes.iter().all(|outcome| outcome.admitted && outcome.source == Source::Redis));
    let stats = server.cli(&["info", "commandstats"]);
    // 512 keys at the most per call.
    assert!(stats.contains("cmdstat_evalsha:calls=2,"), "{stats}");
}

#[tokio::test]
async fn limiters_share_the_salt_and_know_how_many_they_are() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let start = || {
        let salt = SaltCell::random();
        let local = Arc::new(Memory::new(1_000, Clock::system()));
        let shared = Shared::start(settings(&server.url()), local, salt.clone()).unwrap();
        (shared, salt)
    };
    let (first, first_salt) = start();
    let _first_store = first.store_for_worker();
    connected(&first).await;
    let (second, second_salt) = start();
    let _second_store = second.store_for_worker();
    connected(&second).await;
    assert_eq!(first_salt.current(), second_salt.current());
    assert_ne!(first_salt.current(), Salt([0; 16]));
    super::testing::until("both are counted", async || first.replicas() == 2 && second.replicas() == 2).await;
    first.close().await.unwrap();
    super::testing::until("one left", async || second.replicas() == 1).await;
}

#[tokio::test]
async fn limiters_agree_on_the_salt_again_when_it_is_lost() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let start = || {
        let salt = SaltCell::random();
        let local = Arc::new(Memory::new(1_000, Clock::system()));
        (Shared::start(settings(&server.url()), local, salt.clone()).unwrap(), salt)
    };
    let ((first, first_salt), (second, second_salt)) = (start(), start());
    let _stores = (first.store_for_worker(), second.store_for_worker());
    connected(&first).await;
    connected(&second).await;
    let before = first_salt.current();
    assert_eq!(second_salt.current(), before);
    assert_eq!(server.cli(&["flushall"]), "OK");
    super::testing::until("it is there again", async || server.cli(&["exists", "ch:{salt}"]) == "1").await;
    assert_eq!((first_salt.current(), second_salt.current()), (before, before));
    // One that starts in between sets its own.
    let other = Salt(*b"sixteen bytes it");
    assert_eq!(server.cli(&["set", "ch:{salt}", "sixteen bytes it"]), "OK");
    super::testing::until("all have it", async || first_salt.current() == other && second_salt.current() == other)
        .await;
}
