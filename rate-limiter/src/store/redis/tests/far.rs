//! A Redis that is not near: answers take their time, and some come too late.
//!
//! Deadlines and ways are twenty times the usual, so that a busy machine makes no difference.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{ask, bucket};
use crate::store::{
    Charging, Source,
    redis::{
        RedisSettings,
        testing::{Far, Log, RedisServer, by_redis, charge, connected, settings, shared, until},
    },
};

const HOUR: Duration = Duration::from_secs(3_600);
const TIMEOUT: Duration = Duration::from_millis(100);

/// As 1.5 ms are to the usual 5 ms.
const EACH_WAY: Duration = Duration::from_millis(30);

/// Requests come when they come, not when the last one was answered.
#[tokio::test]
async fn whoever_redis_can_answer_in_time_is_answered_by_redis() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let far = Far::from(server.port, EACH_WAY);
    let shared = shared(RedisSettings { timeout: TIMEOUT, ..settings(&far.url()) });
    let store = shared.store_for_worker();
    connected(&shared).await;
    server.cli(&["config", "resetstat"]);
    let (keys, requests, burst) = (3, 300, 40);
    let mut schedule = tokio::time::interval(TIMEOUT / 33);
    let (admitted, alone) = (AtomicU64::new(0), AtomicU64::new(0));
    let decide = async |key| {
        let outcome = charge(&*store, ask(key, bucket(burst, HOUR, burst))).await;
        admitted.fetch_add(u64::from(outcome.admitted), Ordering::Relaxed);
        alone.fetch_add(u64::from(outcome.source != Source::Redis), Ordering::Relaxed);
    };
    let mut deciding = Vec::new();
    for request in 0..requests {
        schedule.tick().await;
        let mut one = Box::pin(decide(request % keys));
        // It is asked for at once, as a charge is when it begins.
        if futures_util::poll!(&mut one).is_pending() {
            deciding.push(one);
        }
    }
    futures_util::future::join_all(deciding).await;
    assert_eq!(alone.into_inner(), 0, "decided without Redis");
    assert_eq!(admitted.into_inner(), u64::from(burst) * keys as u64);
    // They went together all the same: at most a call every sixteenth of the deadline, and a few.
    let stats = server.cli(&["info", "commandstats"]);
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let calls: u128 = calls.unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(calls * 4 < requests * 3, "{calls} calls for {requests} requests");
}

#[tokio::test]
async fn a_redis_too_slow_for_its_deadline_is_as_good_as_away_and_told_of_once() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let log = Log::record();
    let far = Far::from(server.port, Duration::ZERO);
    let shared = shared(RedisSettings { timeout: TIMEOUT, ..settings(&far.url()) });
    let store = shared.store_for_worker();
    connected(&shared).await;
    let limit = bucket(1_000_000, HOUR, 1_000_000);
    assert!(by_redis(&*store, ask(1, limit)).await);
    // As 10 ms are to the usual 5 ms: the answer takes four times as long as it may.
    far.moves(2 * TIMEOUT);
    until("the breaker opens", async || {
        charge(&*store, ask(1, limit)).await;
        !shared.answers()
    })
    .await;
    let Charging::Done(_) = store.charge(&[ask(1, limit)]) else { panic!("an open breaker answers at once") };
    let asked = far.asked();
    until("Redis is tried again", async || far.asked() >= asked + 4).await;
    assert!(!shared.answers());
    assert_eq!((log.count("Redis does not serve"), log.count("lost Redis")), (1, 0));
    far.moves(Duration::ZERO);
    connected(&shared).await;
    until("the outage is over", async || {
        assert!(by_redis(&*store, ask(1, limit)).await);
        log.count("Redis serves again") == 1
    })
    .await;
}
