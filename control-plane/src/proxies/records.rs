//! What this replica tells the others of its proxies: one task, which writes.
//!
//! The load on the database is bounded, however many proxies there are and however fast they answer: one statement in
//! [`WRITE_EVERY`] with [`MOST_AT_ONCE`] rows, of proxies that have changed since they were last written. Who came,
//! went or refused goes first. So after an edit of a large fleet others learn of the last answers late (ten thousand
//! proxies: after 40 s), and at once of those that matter. That this replica lives is one row.
//!
//! A database that is away changes nothing here: what was to be written is written later.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use chancery_runtime::telemetry::chain;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Proxies;
use crate::store::{LOST_AFTER, ProxyRecord, Store, StoreError};

/// How often is written, at most.
const WRITE_EVERY: Duration = Duration::from_secs(2);

/// How many proxies are written at once, at most.
const MOST_AT_ONCE: usize = 500;

/// How often this replica says that it lives: one that goes unheard does no harm.
const LIVE_EVERY: Duration = LOST_AFTER.checked_div(3).unwrap();

/// How often is looked whether others have written of proxies that are here, as may happen when one moves to and fro.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How often is forgotten what is old.
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// How long the last word may take.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Writes what changes in `proxies` into `store` until `stop`.
pub async fn run(proxies: Arc<Proxies>, store: Arc<dyn Store>, stop: CancellationToken) {
    let mut recorder = Recorder::new(proxies, store, Instant::now());
    let mut ticks = tokio::time::interval(WRITE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = ticks.tick() => {}
        }
        match recorder.write(Instant::now()).await {
            Ok(()) => away = false,
            Err(error) if !away => {
                away = true;
                tracing::warn!(error = chain(&error), "cannot tell other replicas of the proxies here");
            }
            Err(_) => {}
        }
    }
    let ended = recorder.store.replica_ends(recorder.proxies.replica());
    if !matches!(tokio::time::timeout(END_WITHIN, ended).await, Ok(Ok(()))) {
        tracing::warn!("other replicas were not told that this one ends; they will see");
    }
}

struct Recorder {
    proxies: Arc<Proxies>,
    store: Arc<dyn Store>,
    begun: bool,
    /// When it is time again for each.
    live_at: Instant,
    look_at: Instant,
    forget_at: Instant,
}

impl Recorder {
    fn new(proxies: Arc<Proxies>, store: Arc<dyn Store>, now: Instant) -> Self {
        let look_at = now + LOOK_EVERY;
        Self { proxies, store, begun: false, live_at: now, look_at, forget_at: look_at }
    }

    /// Writes what is due.
    async fn write(&mut self, now: Instant) -> Result<(), StoreError> {
        let replica = self.proxies.replica();
        if !self.begun {
            self.store.replica_begins(replica).await?;
            self.begun = true;
            self.live_at = now + LIVE_EVERY;
        }
        if self.live_at <= now {
            self.store.replica_lives(replica).await?;
            self.live_at = now + LIVE_EVERY;
        }
        self.write_changed().await?;
        if self.look_at <= now {
            self.look().await?;
            self.look_at = now + LOOK_EVERY;
        }
        if self.forget_at <= now {
            self.store.forget_proxies().await?;
            self.forget_at = now + FORGET_EVERY;
        }
        Ok(())
    }

    async fn write_changed(&self) -> Result<(), StoreError> {
        let changed = self.proxies.changed.take(MOST_AT_ONCE);
        let records = changed.iter().filter_map(|proxy| {
            let status = self.proxies.find(proxy)?;
            Some(ProxyRecord {
                fleet: status.fleet.clone(),
                id: status.id.clone(),
                connected: status.connected,
                status: serde_json::to_string(&status).ok()?,
            })
        });
        let records: Vec<_> = records.collect();
        if records.is_empty() {
            return Ok(());
        }
        let written = self.store.record_proxies(self.proxies.replica(), records).await;
        if written.is_err() {
            changed.iter().for_each(|proxy| self.proxies.changed.mark(proxy));
        }
        written
    }

    /// Writes again, later, of those that are connected here and of which others have written since.
    async fn look(&self) -> Result<(), StoreError> {
        let recorded: HashSet<_> = self.store.connected_to(self.proxies.replica()).await?.into_iter().collect();
        for connection in self.proxies.connections(|_| true) {
            let key = (connection.proxy.fleet().to_owned(), connection.proxy.id.to_string());
            if !recorded.contains(&key) {
                self.proxies.changed.mark(&connection.proxy);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{connection, register_of},
        *,
    };
    use crate::store;

    async fn recorder(replica: &str, store: &Arc<dyn Store>) -> (Arc<Proxies>, Recorder) {
        let proxies = register_of(replica);
        (proxies.clone(), Recorder::new(proxies, store.clone(), Instant::now()))
    }

    async fn seen(store: &Arc<dyn Store>) -> Vec<(String, String, bool, bool)> {
        let found = store.proxies(None, None).await.unwrap().into_iter();
        found.map(|found| (found.record.id, found.replica, found.record.connected, found.replica_lives)).collect()
    }

    fn row(id: &str, replica: &str, connected: bool) -> (String, String, bool, bool) {
        (id.to_owned(), replica.to_owned(), connected, true)
    }

    #[tokio::test]
    async fn what_changed_is_written_and_no_more_than_so_many_at_once() {
        let store = store::open("sqlite::memory:").await.unwrap();
        let (proxies, mut recorder) = recorder("left", &store).await;
        let many: Vec<_> = (0..=MOST_AT_ONCE).map(|n| proxies.connect(connection(&format!("p{n}")))).collect();
        recorder.write(Instant::now()).await.unwrap();
        assert_eq!(seen(&store).await.len(), MOST_AT_ONCE);
        recorder.write(Instant::now()).await.unwrap();
        assert_eq!(seen(&store).await.len(), MOST_AT_ONCE + 1);
        drop(many);
        recorder.write(Instant::now()).await.unwrap();
        assert_eq!(seen(&store).await.iter().filter(|(_, _, connected, _)| *connected).count(), 1);
    }

    #[tokio::test]
    async fn a_proxy_that_another_has_written_of_is_written_again() {
        let store = store::open("sqlite::memory:").await.unwrap();
        let (proxies, mut left) = recorder("left", &store).await;
        let _connected = proxies.connect(connection("one"));
        left.write(Instant::now()).await.unwrap();
        let (proxies, mut right) = recorder("right", &store).await;
        drop(proxies.connect(connection("two")));
        let stray = proxies.connect(connection("one"));
        right.write(Instant::now()).await.unwrap();
        drop(stray);
        right.write(Instant::now()).await.unwrap();
        assert_eq!(seen(&store).await, [row("one", "right", false), row("two", "right", false)]);
        left.write(Instant::now() + LOOK_EVERY).await.unwrap();
        left.write(Instant::now() + LOOK_EVERY).await.unwrap();
        assert_eq!(seen(&store).await[0], row("one", "left", true));
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_written_later() {
        let store = store::open("sqlite::memory:").await.unwrap();
        let (proxies, mut recorder) = recorder("left", &store).await;
        let _connected = proxies.connect(connection("one"));
        let closed = store::open("sqlite::memory:").await.unwrap();
        closed.close().await;
        let working = std::mem::replace(&mut recorder.store, closed);
        recorder.begun = true;
        assert!(recorder.write_changed().await.is_err());
        recorder.store = working;
        recorder.write_changed().await.unwrap();
        assert_eq!(seen(&store).await.len(), 1);
    }
}
