use std::time::Duration;

use tokio::time::Instant;

use crate::{
    model::{
        descriptor::Hits,
        key::CellKey,
        limit::{Algorithm, Limit},
        rule::Policy,
    },
    store::{
        Ask, Source, Store,
        redis::testing::{RedisServer, charge, connected, settings, shared, until},
    },
};

const HOUR: Duration = Duration::from_secs(3_600);

fn limit(requests: u32, per: Duration, burst: u32) -> Limit {
    Limit::new(requests, per, Some(burst), Algorithm::TokenBucket).unwrap()
}

fn ask(key: u128, limit: Limit) -> Ask {
    Ask { key: CellKey(key << 64 | key), limit, hits: Hits::Take(1), policy: Policy::default() }
}

/// Keys that were looked up in Redis.
fn charges(server: &RedisServer) -> u64 {
    let stats = server.cli(&["info", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls="));
    calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
}

/// What Redis itself has left.
async fn left(store: &dyn Store, key: u128, limit: Limit) -> u64 {
    let strict = Policy { strict: true, ..Policy::default() };
    let look = charge(store, Ask { hits: Hits::Take(0), policy: strict, ..ask(key, limit) }).await;
    assert_eq!(look.source, Source::Redis);
    look.remaining
}

/// Charges until a good many tokens are borrowed. Says how many hits were admitted.
async fn warm_up(store: &dyn Store, key: u128, limit: Limit) -> u64 {
    let mut admitted = 0;
    until("a lease", async || {
        let outcome = charge(store, ask(key, limit)).await;
        admitted += u64::from(outcome.admitted);
        outcome.source == Source::Lease && left(store, key, limit).await + 8 < 8_000 - admitted
    })
    .await;
    admitted
}

/// Three limiters with unequal demand, far more than the limit, on several keys.
#[tokio::test]
async fn all_replicas_together_admit_what_the_limit_allows_and_rarely_ask() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let mut stores = Vec::new();
    let mut replicas = Vec::new();
    for _ in 0..3 {
        let one = shared(settings(&server.url()));
        stores.push(one.store_for_worker());
        connected(&one).await;
        replicas.push(one);
    }
    until("they know of each other", async || replicas.iter().all(|one| one.replicas() == 3)).await;
    // A second's worth of burst each: a busy machine may stall for a moment without losing tokens.
    let limits = [
        limit(800, Duration::from_secs(1), 1_200),
        limit(200, Duration::from_secs(1), 400),
        limit(40, Duration::from_secs(1), 40),
    ];
    server.cli(&["config", "resetstat"]);
    let start = Instant::now();
    let lasts = Duration::from_secs(4);
    let demand = |store: usize, key: usize| {
        // The first limiter is asked most.
        let at_once = [8, 3, 1][store];
        let store = stores[store].clone();
        let ask = ask(key as u128, limits[key]);
        async move {
            let mut moments = Vec::new();
            let mut decisions = 0u64;
            while start.elapsed() < lasts {
                for _ in 0..at_once {
                    decisions += 1;
                    if charge(&*store, ask).await.admitted {
                        moments.push(start.elapsed());
                    }
                }
                tokio::task::yield_now().await;
            }
            (key, moments, decisions)
        }
    };
    let demands = (0..3).flat_map(|store| (0..limits.len()).map(move |key| (store, key)));
    // Several at a time each: one that waits for Redis must not be all the demand there is.
    let demands = demands.flat_map(|one| [one; 8]);
    let results = futures_util::future::join_all(demands.map(|(store, key)| demand(store, key))).await;
    let took = start.elapsed();
    let decisions: u64 = results.iter().map(|(_, _, decisions)| decisions).sum();
    for (key, limit) in limits.iter().enumerate() {
        let of_key = results.iter().filter(|(of, _, _)| *of == key);
        let mut moments: Vec<_> = of_key.flat_map(|(_, moments, _)| moments).collect();
        moments.sort_unstable();
        let rate = f64::from(limit.requests());
        let allowed = f64::from(limit.burst()) + took.as_secs_f64() * rate;
        let admitted = moments.len() as f64;
        // A busy machine may ask for less than the limit; then the rest must still be there. An eighth of the burst may be
        // borrowed at the end.
        let unasked = left(&*stores[0], key as u128, *limit).await as f64;
        eprintln!("{limit:?}: {admitted} of {allowed}, {unasked} left");
        // Nothing was borrowed before the start, so the whole is bounded without a lease's life.
        assert!(admitted <= allowed + 1.0, "{limit:?}: {admitted} of {allowed}");
        let borrowed = f64::from(limit.burst()) / 8.0;
        assert!(admitted + unasked + borrowed >= allowed * 0.98, "{limit:?}: {admitted} of {allowed}, {unasked} left");
        // Every interval, by the worst that could begin at any admission.
        let mut lowest = f64::INFINITY;
        for (before, moment) in moments.iter().enumerate() {
            let earned = moment.as_secs_f64() * rate;
            lowest = lowest.min(before as f64 - earned);
            let within = (before + 1) as f64 - earned - lowest;
            let bound = f64::from(limit.burst()) + rate + 1.0;
            assert!(within <= bound, "{limit:?}: {within} more than the rate, at {moment:?}");
        }
    }
    let asked = charges(&server);
    eprintln!("{decisions} decisions, {asked} charges in Redis");
    assert!(asked * 20 <= decisions, "{asked} charges for {decisions} decisions");
}

#[tokio::test]
async fn what_is_not_used_goes_back_when_the_key_falls_silent() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let shared = shared(settings(&server.url()));
    let store = shared.store_for_worker();
    connected(&shared).await;
    let limit = limit(8_000, HOUR, 8_000);
    let admitted = warm_up(&*store, 1, limit).await;
    assert!(left(&*store, 1, limit).await < 8_000 - admitted, "something is borrowed");
    // One hit of each lease is kept: the bucket may have gained it.
    until("the rest is back", async || left(&*store, 1, limit).await + 5 >= 8_000 - admitted).await;
    assert!(left(&*store, 1, limit).await <= 8_000 - admitted + 30, "time gave back no more than that");
}

#[tokio::test]
async fn what_is_not_used_goes_back_at_the_end() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let (ending, staying) = (shared(settings(&server.url())), shared(settings(&server.url())));
    let (store, other) = (ending.store_for_worker(), staying.store_for_worker());
    connected(&ending).await;
    connected(&staying).await;
    let limit = limit(8_000, HOUR, 8_000);
    let admitted = warm_up(&*store, 1, limit).await;
    ending.close().await.unwrap();
    let left = left(&*other, 1, limit).await;
    assert!(left + 5 >= 8_000 - admitted && left <= 8_000 - admitted + 30, "{left} left, {admitted} admitted");
}

#[tokio::test]
async fn what_goes_back_at_the_end_goes_together() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let shared = shared(settings(&server.url()));
    let store = shared.store_for_worker();
    connected(&shared).await;
    let limit = limit(8_000, HOUR, 8_000);
    for key in 0..20 {
        for _ in 0..40 {
            charge(&*store, ask(key, limit)).await;
        }
    }
    server.cli(&["config", "resetstat"]);
    shared.close().await.unwrap();
    let stats = server.cli(&["info", "commandstats"]);
    assert!(stats.contains("cmdstat_evalsha:calls=1,"), "{stats}");
    assert!(charges(&server) > 5, "many keys had something left: {stats}");
}

#[tokio::test]
async fn strict_rules_and_debts_never_borrow() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let shared = shared(settings(&server.url()));
    let store = shared.store_for_worker();
    connected(&shared).await;
    let limit = limit(8_000, HOUR, 8_000);
    let start = Instant::now();
    for policy in [Policy { strict: true, ..Policy::default() }, Policy { debt: true, ..Policy::default() }] {
        while start.elapsed() < Duration::from_millis(150) {
            let outcome = charge(&*store, Ask { policy, ..ask(1, limit) }).await;
            assert_eq!(outcome.source, Source::Redis);
        }
    }
}

#[tokio::test]
async fn a_refused_key_asks_redis_no_more_until_something_is_given_back() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let shared = shared(settings(&server.url()));
    let store = shared.store_for_worker();
    connected(&shared).await;
    for algorithm in [Algorithm::TokenBucket, Algorithm::FixedWindow] {
        let limit = Limit::new(2, HOUR, Some(2), algorithm).unwrap();
        let ask = ask(algorithm as u128, limit);
        for expected in [Source::Redis, Source::Redis, Source::Redis, Source::Denial, Source::Denial] {
            assert_eq!(charge(&*store, ask).await.source, expected, "{algorithm:?}");
        }
        let given = charge(&*store, Ask { hits: Hits::GiveBack(2), ..ask }).await;
        assert!(given.admitted && given.source == Source::Redis, "{given:?}");
        let after = charge(&*store, ask).await;
        assert!(after.admitted && after.source == Source::Redis, "{algorithm:?}: {after:?}");
        // Another limit on the same key is another question.
        assert!(!charge(&*store, Ask { hits: Hits::Take(2), ..ask }).await.admitted);
        let wider = Limit::new(20, HOUR, Some(20), algorithm).unwrap();
        assert!(charge(&*store, Ask { limit: wider, ..ask }).await.admitted);
    }
}

#[tokio::test]
async fn an_edited_limit_uses_nothing_that_was_borrowed_under_the_old_one() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let shared = shared(settings(&server.url()));
    let store = shared.store_for_worker();
    connected(&shared).await;
    warm_up(&*store, 1, limit(8_000, HOUR, 8_000)).await;
    let edited = charge(&*store, ask(1, limit(4_000, HOUR, 8_000))).await;
    assert_eq!(edited.source, Source::Redis);
}
