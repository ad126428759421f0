//! Redis that is not there, goes, hangs, and comes back.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::net::TcpListener;

use super::{ask, bucket};
use crate::{
    model::{
        descriptor::Hits,
        rule::{Policy, WithoutRedis},
    },
    store::{
        Ask, Charging, SaltCell, Source,
        redis::{
            RedisSettings, Shared, TlsFiles,
            connect::Connector,
            link::{Asked, Link, LinkOptions, Settle},
            script::Call,
            testing::{Far, Log, RedisServer, by_redis, charge, cluster, connected, settings, shared, until},
        },
    },
};

const HOUR: Duration = Duration::from_secs(3_600);
const TIMEOUT: Duration = Duration::from_millis(50);

/// A deadline that a busy machine can keep, and that is short beside an outage.
fn impatient(url: &str) -> RedisSettings {
    RedisSettings { timeout: TIMEOUT, ..settings(url) }
}

#[tokio::test]
async fn it_starts_without_redis_and_takes_to_it_when_it_comes() {
    let Some(mut server) = RedisServer::prepare(&[]) else { return };
    let shared = shared(impatient(&server.url()));
    let store = shared.store_for_worker();
    let limit = bucket(5, HOUR, 5);
    for (policy, admitted) in [(WithoutRedis::Local, true), (WithoutRedis::Allow, true), (WithoutRedis::Deny, false)] {
        let ask = Ask { policy: Policy { without_redis: policy, ..Policy::default() }, ..ask(1, limit) };
        let Charging::Done(outcomes) = store.charge(&[ask]) else { panic!("{policy:?} must be decided at once") };
        assert_eq!((outcomes[0].admitted, outcomes[0].source), (admitted, Source::WithoutRedis), "{policy:?}");
    }
    assert!(!shared.answers());
    server.run().await;
    connected(&shared).await;
    assert!(by_redis(&*store, ask(1, limit)).await);
}

#[tokio::test]
async fn who_starts_without_redis_goes_by_what_it_was_told_of_others() {
    let Some(server) = RedisServer::prepare(&[]) else { return };
    let replicas = NonZeroU32::new(4).unwrap();
    let shared = shared(RedisSettings { replicas, ..impatient(&server.url()) });
    let store = shared.store_for_worker();
    let share = Ask {
        policy: Policy { without_redis: WithoutRedis::Local, ..Policy::default() },
        ..ask(1, bucket(8, HOUR, 8))
    };
    let charge = || match store.charge(&[share]) {
        Charging::Done(outcomes) => outcomes[0].admitted,
        Charging::Waiting(_) => panic!("nobody is waited for"),
    };
    assert_eq!([(); 3].map(|()| charge()), [true, true, false], "two of eight are the share of one of four");
}

#[tokio::test]
async fn what_was_charged_without_redis_is_given_back_without_it() {
    let Some(mut server) = RedisServer::prepare(&[]) else { return };
    let shared = shared(impatient(&server.url()));
    let store = shared.store_for_worker();
    let ask = Ask { hits: Hits::Take(3), ..ask(1, bucket(5, HOUR, 5)) };
    let alone = |ask| match store.charge(&[ask]) {
        Charging::Done(outcomes) => outcomes[0].remaining,
        Charging::Waiting(_) => panic!("there is no Redis"),
    };
    assert_eq!(alone(ask), 2);
    store.give_back_alone(&[Ask { hits: Hits::GiveBack(2), ..ask }]);
    assert_eq!(alone(Ask { hits: Hits::Take(0), ..ask }), 4);
    server.run().await;
    connected(&shared).await;
    assert!(by_redis(&*store, ask).await);
    store.give_back_alone(&[Ask { hits: Hits::GiveBack(1), ..ask }]);
    // What is asked later is charged later.
    let look = charge(&*store, Ask { hits: Hits::Take(0), ..ask }).await;
    assert_eq!((look.source, look.remaining), (Source::Redis, 2));
}

#[tokio::test]
async fn a_restart_stalls_nobody() {
    let Some(mut server) = RedisServer::start(&[]).await else { return };
    let shared = shared(impatient(&server.url()));
    let store = shared.store_for_worker();
    connected(&shared).await;
    let mut longest = Duration::ZERO;
    let mut sources = (false, false);
    let mut knock = async || {
        let asked = Instant::now();
        let outcome = charge(&*store, ask(1, bucket(1_000_000, HOUR, 1_000_000))).await;
        longest = longest.max(asked.elapsed());
        outcome.source == Source::Redis
    };
    assert!(knock().await);
    server.kill();
    until("decided without Redis", async || !knock().await).await;
    for _ in 0..1_000 {
        sources.0 |= knock().await;
        tokio::task::yield_now().await;
    }
    assert!(!sources.0, "nobody answers while the server is down");
    server.run().await;
    until("Redis decides again", async || knock().await).await;
    // The deadline, a look every quarter of it, and a busy machine.
    assert!(longest < TIMEOUT * 3, "the longest answer took {longest:?}");
    eprintln!("the longest answer through a restart took {longest:?}");
    sources.1 = shared.answers();
    assert!(sources.1);
}

#[tokio::test]
async fn a_connection_that_ends_while_idle_is_noticed_and_replaced() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let shared = shared(impatient(&server.url()));
    let store = shared.store_for_worker();
    connected(&shared).await;
    server.cli(&["client", "kill", "type", "normal"]);
    until("a new connection", async || {
        tokio::task::yield_now().await;
        shared.answers() && by_redis(&*store, ask(1, bucket(1_000_000, HOUR, 1_000_000))).await
    })
    .await;
}

#[tokio::test]
async fn a_frozen_server_costs_the_deadline_a_few_times_and_then_nothing() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let shared = shared(impatient(&server.url()));
    let store = shared.store_for_worker();
    connected(&shared).await;
    let limit = bucket(1_000_000, HOUR, 1_000_000);
    assert!(by_redis(&*store, ask(1, limit)).await);
    server.freeze();
    let asked = Instant::now();
    let outcome = charge(&*store, ask(1, limit)).await;
    let took = asked.elapsed();
    assert_eq!(outcome.source, Source::WithoutRedis);
    assert!((TIMEOUT..TIMEOUT * 3).contains(&took), "the deadline is {TIMEOUT:?}, and it took {took:?}");
    until("the breaker opens", async || {
        charge(&*store, ask(1, limit)).await;
        !shared.answers()
    })
    .await;
    let Charging::Done(_) = store.charge(&[ask(1, limit)]) else { panic!("an open breaker answers at once") };
    server.thaw();
    connected(&shared).await;
    assert!(by_redis(&*store, ask(1, limit)).await);
}

/// Something that takes connections and says nothing.
#[tokio::test]
async fn what_never_answers_is_as_good_as_away() {
    let Some(_) = RedisServer::prepare(&[]) else { return };
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shared = shared(impatient(&format!("redis://{}", silent.local_addr().unwrap())));
    let store = shared.store_for_worker();
    let (_connection, _) = silent.accept().await.unwrap();
    let Charging::Done(outcomes) = store.charge(&[ask(1, bucket(1, HOUR, 1))]) else { panic!("must not wait") };
    assert_eq!(outcomes[0].source, Source::WithoutRedis);
}

#[tokio::test]
async fn a_replica_is_as_good_as_away_until_it_is_a_primary() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let shared = shared(impatient(&server.url()));
    let store = shared.store_for_worker();
    connected(&shared).await;
    let limit = bucket(1_000_000, HOUR, 1_000_000);
    server.cli(&["replicaof", "127.0.0.1", "1"]);
    until("decided without Redis", async || !by_redis(&*store, ask(1, limit)).await).await;
    until("the breaker opens", async || !answers_after_asking(&shared, &*store).await).await;
    server.cli(&["replicaof", "no", "one"]);
    until("Redis decides again", async || by_redis(&*store, ask(1, limit)).await).await;
}

async fn answers_after_asking(shared: &Shared, store: &dyn crate::store::Store) -> bool {
    charge(store, ask(1, bucket(1_000_000, HOUR, 1_000_000))).await;
    shared.answers()
}

#[tokio::test]
async fn who_waits_when_a_store_ends_is_answered() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let shared = shared(settings(&server.url()));
    let store = shared.store_for_worker();
    connected(&shared).await;
    server.freeze();
    let Charging::Waiting(waiting) = store.charge(&[ask(1, bucket(1, HOUR, 1))]) else { panic!("Redis must be asked") };
    drop(store);
    let outcomes = tokio::time::timeout(Duration::from_secs(1), waiting).await.expect("an answer");
    assert_eq!(outcomes[0].source, Source::WithoutRedis);
    server.thaw();
}

#[tokio::test]
async fn a_cluster_goes_on_without_a_primary_and_takes_its_replica() {
    let Some(mut nodes) = cluster(1).await else { return };
    for node in &nodes {
        until("every replica follows its primary", async || {
            let state = node.cli(&["info", "replication"]);
            state.contains("role:master") && state.contains("connected_slaves:1")
                || state.contains("role:slave") && state.contains("master_link_status:up")
        })
        .await;
    }
    let shared = shared(impatient(&nodes[0].url()));
    let store = shared.store_for_worker();
    connected(&shared).await;
    let limit = bucket(1_000_000, HOUR, 1_000_000);
    let by = async |key| by_redis(&*store, ask(key, limit)).await;
    // A key of the node that will go, and one of another.
    let mut keys = (None, None);
    for key in 0..200 {
        let before = nodes[1].cli(&["dbsize"]);
        assert!(by(key).await);
        let place = if nodes[1].cli(&["dbsize"]) == before { &mut keys.1 } else { &mut keys.0 };
        place.get_or_insert(key);
        if let (Some(_), Some(_)) = keys {
            break;
        }
    }
    let (Some(lost), Some(kept)) = keys else { panic!("200 keys lie on one node") };
    nodes[1].kill();
    until("the lost primary is noticed", async || !by(lost).await).await;
    assert!(by(kept).await, "the others go on");
    until("the replica has taken over", async || by(lost).await).await;
    assert!(by(kept).await);
}

/// One server with all the slots, at the end of a long way.
#[tokio::test]
async fn a_refund_is_given_once_though_a_cluster_could_not_answer() {
    let Some(mut server) = RedisServer::prepare(&["--cluster-enabled", "yes"]) else { return };
    let far = Far::from(server.port, Duration::ZERO);
    server.argue(&["--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port", &far.port().to_string()]);
    server.run().await;
    assert_eq!(server.cli(&["cluster", "addslotsrange", "0", "16383"]), "OK");
    until("the cluster is whole", async || server.cli(&["cluster", "info"]).contains("cluster_state:ok")).await;
    let shared = shared(impatient(&far.url()));
    let store = shared.store_for_worker();
    connected(&shared).await;
    let limit = bucket(100, HOUR, 100);
    until("fifty are taken", async || {
        let taken = charge(&*store, Ask { hits: Hits::Take(50), ..ask(1, limit) }).await;
        taken.source == Source::Redis
    })
    .await;
    far.answers_after(Duration::from_millis(240));
    let charged = || server.cli(&["info", "commandstats"]).split("cmdstat_evalsha:calls=").nth(1).map(str::to_owned);
    let before = charged();
    let given = charge(&*store, Ask { hits: Hits::GiveBack(5), ..ask(1, limit) }).await;
    assert_eq!(given.source, Source::WithoutRedis);
    until("it is given", async || charged() != before).await;
    far.cut();
    far.moves(Duration::ZERO);
    let mut left = None;
    until("Redis decides again", async || {
        let look = charge(&*store, Ask { hits: Hits::Take(0), ..ask(1, limit) }).await;
        left = (look.source == Source::Redis).then_some(look.remaining);
        left.is_some()
    })
    .await;
    assert!(left.is_some_and(|left| (55..59).contains(&left)), "{left:?} left of 50 and a refund of 5");
}

#[tokio::test]
async fn a_link_that_panics_leaves_nobody_waiting_and_starts_again() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let log = Log::record();
    let connector = Connector::new(server.url().parse().unwrap(), &TlsFiles::default(), SaltCell::random()).unwrap();
    let panics = AtomicBool::new(true);
    let settle: Settle = Arc::new(move |_, _, _| assert!(!panics.swap(false, Ordering::SeqCst), "as this test wants"));
    let link = Link::spawn(Arc::new(connector), LinkOptions { timeout: TIMEOUT * 20, settle, given_time: None });
    until("Redis answers", async || link.answers()).await;
    let call = Call::new(&ask(1, bucket(5, HOUR, 5)), 0).unwrap();
    let ask = || link.ask(smallvec::smallvec![Asked { call, noted: true }], tokio::time::Instant::now());
    let answers = tokio::time::timeout(TIMEOUT * 10, ask().unwrap()).await.expect("an answer before the deadline");
    assert_eq!(answers[..], [None]);
    until("it is started again", async || link.answers()).await;
    assert!(ask().unwrap().await[0].is_some());
    assert_eq!(log.count("a task panicked"), 1);
}
