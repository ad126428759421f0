//! Postgres goes away, comes back, or falls silent, while stores are open.
//!
//! What must hold: every call answers within its deadline, no write is half done, and all is well
//! again without a restart of ours.

#![allow(clippy::unwrap_used, reason = "a panic here is the report of a failed test")]

#[allow(dead_code, unused_macros, reason = "only its tools are used here")]
#[path = "../../control-plane/src/store/conformance/mod.rs"]
mod conformance;

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use chancery_control_plane::store::{HistoryQuery, Store, StoreError};
use chancery_e2e::postgres::{Postgres, Stop};
use conformance::{change, create, new_revision, open, service, try_commit};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

/// The longest that a call may take while the database is away.
const CALL: Duration = Duration::from_secs(6);

/// The longest that anything may take to recover.
const RECOVERY: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_store_outlives_an_orderly_stop() {
    let Some(postgres) = Postgres::start().await.unwrap() else { return };
    outlives(postgres, Stop::Fast).await;
}

#[tokio::test]
async fn a_store_outlives_a_crash() {
    let Some(postgres) = Postgres::start().await.unwrap() else { return };
    outlives(postgres, Stop::Immediate).await;
}

async fn outlives(mut postgres: Postgres, how: Stop) {
    let url = postgres.create_database().await.unwrap();
    let store = open(&url).await;
    let first = create(&store, "before").await;
    // Leaves several idle connections behind, all of which will be stale.
    let reads: JoinSet<_> = (0..8).map(|_| head(&store)).collect();
    reads.join_all().await;
    let held = store.begin().await.unwrap();
    let mut wakeups = store.wakeups();

    postgres.stop(how).await.unwrap();
    let lost = service("lost", json!({}));
    let lost = within(CALL, held.commit(new_revision("lost", vec![change("lost", None, Some(&lost))]))).await;
    assert_unavailable(lost);
    all_calls_are_unavailable(&store).await;
    let refused = within(CALL, chancery_control_plane::store::open(&url)).await;
    assert_unavailable(refused);

    wakeups.mark_unchanged();
    postgres.start_again().await.unwrap();
    let second = within(CALL, create(&store, "after")).await;
    assert_eq!(second.summary.number, 2);
    assert_eq!(within(CALL, store.revisions_after(0)).await.unwrap(), [first, second]);
    within(RECOVERY, wakeups.changed()).await.unwrap();
    assert_hears(&store, &url).await;
}

#[tokio::test]
async fn a_listener_that_is_cut_off_listens_again() {
    let Some(postgres) = Postgres::start().await.unwrap() else { return };
    let url = postgres.create_database().await.unwrap();
    let store = open(&url).await;
    assert_hears(&store, &url).await;

    let mut wakeups = store.wakeups();
    wakeups.mark_unchanged();
    // The other store that `assert_hears` opened listened as well, and may be gone by now.
    assert!(postgres.terminate_sessions("LISTEN").await.unwrap() >= 1);
    within(RECOVERY, wakeups.changed()).await.unwrap();
    assert_hears(&store, &url).await;
}

#[tokio::test]
async fn a_network_that_swallows_packets_takes_no_call_beyond_its_deadline() {
    let Some(postgres) = Postgres::start().await.unwrap() else { return };
    let network = Network::to(postgres.port()).await;
    let url = postgres.create_database().await.unwrap();
    let store = open(&network.url(&url)).await;
    create(&store, "before").await;
    assert_hears(&store, &url).await;
    let mut wakeups = store.wakeups();

    network.swallow();
    // More of each than there are connections: none may stay behind.
    let calls: JoinSet<_> = (0..10)
        .map(|_| {
            let store = Arc::clone(&store);
            async move { all_calls_are_unavailable(&store).await }
        })
        .collect();
    calls.join_all().await;

    network.heal();
    wakeups.mark_unchanged();
    let deadline = Instant::now() + RECOVERY;
    while try_commit(&store, "try", vec![change("a", None, Some(&service("a", json!({}))))]).await.is_err() {
        assert!(Instant::now() < deadline, "writes work again");
    }
    let reads: JoinSet<_> = (0..8).map(|_| head(&store)).collect();
    within(CALL, reads.join_all()).await;
    // The old listening connection says nothing; it is found out by asking.
    within(RECOVERY, wakeups.changed()).await.unwrap();
    assert_hears(&store, &url).await;
}

#[tokio::test]
async fn a_statement_that_is_never_answered_gives_its_connection_up() {
    let Some(postgres) = Postgres::start().await.unwrap() else { return };
    let network = Network::to(postgres.port()).await;
    let url = postgres.create_database().await.unwrap();
    let store = open(&network.url(&url)).await;
    // Every connection of the pool is in the middle of a statement when the network fails.
    let mut blocker = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE revisions").execute(&mut blocker).await.unwrap();
    let reads: JoinSet<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&store);
            async move { assert_unavailable(within(CALL, store.head()).await) }
        })
        .collect();
    wait_for_blocked_sessions(&mut blocker, 8).await;
    network.swallow();
    reads.join_all().await;

    sqlx::raw_sql("COMMIT").execute(&mut blocker).await.unwrap();
    network.heal();
    let reads: JoinSet<_> = (0..8).map(|_| head(&store)).collect();
    within(CALL, reads.join_all()).await;
}

#[tokio::test]
async fn a_writer_that_falls_silent_loses_the_lock() {
    let Some(postgres) = Postgres::start().await.unwrap() else { return };
    let network = Network::to(postgres.port()).await;
    let url = postgres.create_database().await.unwrap();
    let (silent, other) = (open(&network.url(&url)).await, open(&url).await);
    let held = silent.begin().await.unwrap();
    network.swallow();
    assert_unavailable(within(CALL, other.begin()).await);

    let deadline = Instant::now() + RECOVERY;
    let document = service("a", json!({}));
    while try_commit(&other, "at last", vec![change("a", None, Some(&document))]).await.is_err() {
        assert!(Instant::now() < deadline, "the lock is given up");
    }
    let late = within(2 * CALL, held.commit(new_revision("late", vec![change("b", None, Some(&document))]))).await;
    assert_unavailable(late);
    assert_eq!(other.head().await.unwrap(), 1);
}

#[tokio::test]
async fn readers_are_served_while_many_writers_wait() {
    let Some(postgres) = Postgres::start().await.unwrap() else { return };
    let store = open(&postgres.create_database().await.unwrap()).await;
    let held = store.begin().await.unwrap();
    let mut waiting: JoinSet<_> = (0..30)
        .map(|_| {
            let store = Arc::clone(&store);
            async move { store.begin().await.map(drop) }
        })
        .collect();
    within(Duration::from_secs(2), head(&store)).await;
    drop(held);
    while let Some(turn) = within(CALL, waiting.join_next()).await {
        turn.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_newer_schema_stops_the_start() {
    let Some(postgres) = Postgres::start().await.unwrap() else { return };
    let url = postgres.create_database().await.unwrap();
    open(&url).await.close().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::query("INSERT INTO _sqlx_migrations VALUES (7000, 'from the future', now(), true, '', 0)")
        .execute(&mut connection)
        .await
        .unwrap();
    for _ in 0..3 {
        // Again and again: a refused start leaves no lock behind.
        let refused = within(CALL, chancery_control_plane::store::open(&url)).await.err();
        assert!(matches!(refused, Some(StoreError::Schema { found: 7000, .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_no_outage() {
    let Some(postgres) = Postgres::start().await.unwrap() else { return };
    let url = postgres.url().replace("/postgres", "/nowhere");
    let refused = within(CALL, chancery_control_plane::store::open(&url)).await.err();
    assert!(matches!(refused, Some(StoreError::Failed { .. })), "{refused:?}");
}

/// Every revision that another process commits wakes `store`. The first wake-up may be that of a new
/// connection, the second is not.
async fn assert_hears(store: &Arc<dyn Store>, url: &str) {
    let other = open(url).await;
    let mut wakeups = store.wakeups();
    for _ in 0..2 {
        wakeups.mark_unchanged();
        let head = other.head().await.unwrap();
        create(&other, &format!("heard-{head}")).await;
        within(CALL, wakeups.changed()).await.unwrap();
        assert_eq!(store.revisions_after(head).await.unwrap().len(), 1);
    }
    other.close().await;
}

async fn wait_for_blocked_sessions(connection: &mut PgConnection, count: i64) {
    let deadline = Instant::now() + CALL;
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *connection).await.unwrap() < count {
        assert!(Instant::now() < deadline, "{count} sessions wait for the lock");
    }
}

async fn all_calls_are_unavailable(store: &Arc<dyn Store>) {
    assert_unavailable(within(CALL, store.begin()).await);
    assert_unavailable(within(CALL, store.head()).await);
    assert_unavailable(within(CALL, store.load()).await);
    assert_unavailable(within(CALL, store.revisions_after(0)).await);
    assert_unavailable(within(CALL, store.revision(1)).await);
    assert_unavailable(within(CALL, store.history(HistoryQuery { limit: 1, ..HistoryQuery::default() })).await);
}

fn assert_unavailable<T>(answer: Result<T, StoreError>) {
    let error = answer.err();
    assert!(matches!(error, Some(StoreError::Unavailable(_))), "{error:?}");
}

fn head(store: &Arc<dyn Store>) -> impl Future<Output = u64> + Send + 'static {
    let store = Arc::clone(store);
    async move { store.head().await.unwrap() }
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> T {
    timeout(limit, future).await.unwrap_or_else(|_| panic!("no answer within {limit:?}"))
}

/// A network that can begin to swallow packets: connections stay open, and nothing comes through. Those
/// that were open then stay dead; after [`Network::heal`] new ones work.
struct Network {
    port: u16,
    target: u16,
    swallowing: watch::Sender<bool>,
    _task: AbortOnDropHandle<()>,
}

impl Network {
    async fn to(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let swallowing = watch::Sender::new(false);
        let switch = swallowing.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let mut swallowing = switch.subscribe();
                connections.spawn(async move {
                    let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await.unwrap();
                    if !*swallowing.borrow_and_update() {
                        tokio::select! {
                            _ = copy_bidirectional(&mut near, &mut far) => return,
                            _ = swallowing.changed() => {}
                        }
                    }
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { port, target, swallowing, _task: AbortOnDropHandle::new(task) }
    }

    /// `url`, by way of this network.
    fn url(&self, url: &str) -> String {
        url.replace(&format!(":{}/", self.target), &format!(":{}/", self.port))
    }

    fn swallow(&self) {
        self.swallowing.send_replace(true);
    }

    fn heal(&self) {
        self.swallowing.send_replace(false);
    }
}
