//! This process's catalog, kept current by revision number.
//!
//! Local commits and those of other replicas take the same way: revisions above the one held are applied
//! in order, each to the catalog and then to the caches of the fleets. A notification from the store only
//! wakes; what was committed is read by number, also every few seconds and after every
//! reconnect, so a lost notification costs seconds and never a change.
//!
//! A revision that this program cannot read (a newer replica wrote it) stops the replica where it is: it
//! goes on serving the last revision it understands, says so in `/readyz`, and refuses writes.
//!
//! Invariant: the catalog, its revision and what is published move together, under `advancing`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use chancery_runtime::{telemetry::chain, traces::Place};
use time::OffsetDateTime;
use tokio::{sync::Mutex, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    access::owner,
    feed::{Event, Feed},
    model::{Catalog, Entry, Key, Name, Problem, Problems, parse},
    publish::{Changes, Publisher},
    store::{Loaded, Revision, RevisionSummary, Store, StoreError, Stored, Write},
};

/// How often the store is asked for its newest revision, whatever was notified.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How long one look at the store may take.
const STORE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a revision waits to be told of in its trace.
const TRACES_DEADLINE: Duration = Duration::from_secs(1);

/// The catalog at a revision.
#[derive(Clone, Debug)]
pub struct Current {
    /// The revision; 0 before the first.
    pub revision: u64,
    /// All resources at that revision.
    pub catalog: Catalog,
}

/// This process's view of what is committed.
pub struct Replica {
    store: Arc<dyn Store>,
    publisher: Arc<Publisher>,
    /// Hears of each revision.
    feed: Arc<Feed>,
    current: ArcSwap<Current>,
    advancing: Mutex<()>,
    stuck: ArcSwap<Option<String>>,
}

/// A revision whose effect is already known.
pub struct Prepared {
    /// Its number.
    pub revision: u64,
    /// The catalog after it.
    pub catalog: Catalog,
    /// What it changes for those who are served.
    pub changes: Changes,
    /// Where in which trace its way is told of.
    pub place: Place,
}

/// Why a replica is not current.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A revision cannot be read by this program.
    #[error("revision {revision} cannot be applied by this version of the program: {reason}")]
    Unreadable {
        /// Which revision.
        revision: u64,
        /// The first problem.
        reason: String,
    },
}

impl Replica {
    /// Loads everything from the store and publishes it.
    pub async fn load(store: Arc<dyn Store>, publisher: Arc<Publisher>, feed: Arc<Feed>) -> Result<Self, ReplicaError> {
        let Loaded { revision, resources } = within_deadline(store.load()).await?;
        let unreadable = |problems: Vec<Problem>| ReplicaError::Unreadable { revision, reason: first(&problems) };
        let mut problems = Problems::default();
        let entries: Vec<Entry> = resources.into_iter().filter_map(|stored| entry(stored, &mut problems)).collect();
        if !problems.is_empty() {
            return Err(unreadable(problems.into_vec()));
        }
        let catalog = Catalog::load(entries).map_err(unreadable)?;
        publisher.load(revision, Changes::full(&catalog));
        Ok(Self {
            store,
            publisher,
            feed,
            current: ArcSwap::from_pointee(Current { revision, catalog }),
            advancing: Mutex::new(()),
            stuck: ArcSwap::default(),
        })
    }

    /// The catalog and its revision.
    pub fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// The store behind it.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Why this replica cannot go on, if it cannot.
    pub fn stuck(&self) -> Option<String> {
        self.stuck.load().as_ref().clone()
    }

    /// Applies what was committed since, if anything.
    pub async fn catch_up(&self) -> Result<(), ReplicaError> {
        let _advancing = self.advancing.lock().await;
        let held = self.current.load().revision;
        if within_deadline(self.store.head()).await? == held {
            return Ok(());
        }
        let revisions = within_deadline(self.store.revisions_after(held)).await?;
        self.apply_all(revisions, &self.traces_after(held).await)
    }

    /// As [`Replica::catch_up`], under the writers' lock.
    pub async fn catch_up_with(&self, write: &mut dyn Write) -> Result<Arc<Current>, ReplicaError> {
        let _advancing = self.advancing.lock().await;
        let held = self.current.load().revision;
        if write.head() != held {
            let revisions = within_deadline(write.revisions_after(held)).await?;
            // By the connection that holds the lock: nobody waits for another one meanwhile.
            let traces = match self.publisher.trails().are_made() {
                true => within_deadline(write.traces_after(held)).await?,
                false => BTreeMap::new(),
            };
            self.apply_all(revisions, &traces)?;
        }
        Ok(self.current())
    }

    /// All resources as they were at an earlier revision.
    ///
    /// # Errors
    /// The store does not answer, or holds what this program cannot read.
    pub async fn catalog_at(&self, revision: u64) -> Result<Catalog, ReplicaError> {
        let current = self.current();
        let mut since = within_deadline(self.store.revisions_after(revision)).await?;
        since.retain(|later| later.summary.number <= current.revision);
        let unreadable = |problems: Vec<Problem>| ReplicaError::Unreadable { revision, reason: first(&problems) };
        let (mut problems, mut before) = (Problems::default(), BTreeMap::new());
        for change in since.into_iter().flat_map(|revision| revision.changes) {
            before.entry(change.key).or_insert(change.before);
        }
        let mut changes = Vec::with_capacity(before.len());
        for (key, document) in before {
            let stored = document.map(|document| {
                let (updated_at, updated_by) = (OffsetDateTime::UNIX_EPOCH, String::new());
                entry(Stored { document, revision, updated_at, updated_by }, &mut problems)
            });
            changes.push((key, stored.flatten()));
        }
        if !problems.is_empty() {
            return Err(unreadable(problems.into_vec()));
        }
        current.catalog.apply(changes).map_err(unreadable)
    }

    /// Moves to a revision that was just committed here, and is what `summary` says.
    pub async fn advance(&self, prepared: Prepared, summary: &RevisionSummary) {
        let _advancing = self.advancing.lock().await;
        // The poll may have been faster.
        if self.current.load().revision + 1 == prepared.revision {
            self.move_to(prepared, summary);
        }
    }

    /// Keeps the replica current until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut wakeups = self.store.wakeups();
        let mut away = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                woken = wakeups.changed() => if woken.is_err() { return },
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            match self.catch_up().await {
                Ok(()) if away => {
                    away = false;
                    tracing::info!(revision = self.current().revision, "the database is back");
                }
                Ok(()) => {}
                Err(error @ ReplicaError::Unreadable { .. }) => {
                    tracing::error!(error = chain(&error), "this replica stays at its revision");
                }
                Err(error) if !away => {
                    away = true;
                    tracing::warn!(error = chain(&error), "cannot follow the database; serving the last revision");
                }
                Err(_) => {}
            }
            metrics::gauge!(crate::metrics::REVISION).set(self.current().revision as f64);
        }
    }

    /// Which traces newer revisions were made in, if anybody is told of that. To apply them does not depend on it.
    async fn traces_after(&self, held: u64) -> BTreeMap<u64, String> {
        if !self.publisher.trails().are_made() {
            return BTreeMap::new();
        }
        let traces = timeout(TRACES_DEADLINE, self.store.traces_after(held)).await;
        traces.ok().and_then(Result::ok).unwrap_or_default()
    }

    fn apply_all(&self, revisions: Vec<Revision>, traces: &BTreeMap<u64, String>) -> Result<(), ReplicaError> {
        for revision in revisions {
            let number = revision.summary.number;
            let current = self.current.load_full();
            if number <= current.revision {
                continue;
            }
            let summary = revision.summary.clone();
            let step = self.publisher.trails().follow(number, traces.get(&number));
            match prepare(&current.catalog, revision, step.place()) {
                Ok(prepared) => {
                    self.move_to(prepared, &summary);
                    let (author, trace_id) = (&summary.author, step.trace().map(|trace| trace.to_string()));
                    tracing::info!(revision = number, author, trace_id, "a revision of another replica is in force");
                }
                Err(problems) => {
                    let error = ReplicaError::Unreadable { revision: number, reason: first(&problems) };
                    self.stuck.store(Arc::new(Some(error.to_string())));
                    return Err(error);
                }
            }
        }
        self.stuck.store(Arc::new(None));
        Ok(())
    }

    fn move_to(&self, Prepared { revision, catalog, changes, place }: Prepared, summary: &RevisionSummary) {
        let before = self.current.load();
        // Before it is published: who hears of a revision hears of it before the answers to it.
        self.feed.tell(|| Event::Revision {
            revision,
            author: summary.author.clone(),
            message: summary.message.clone(),
            change_count: summary.change_count,
            owners: owners(&before.catalog, &catalog),
        });
        self.current.store(Arc::new(Current { revision, catalog }));
        self.publisher.trails().expect(revision, &changes, place);
        self.publisher.publish(revision, changes);
    }
}

/// Whose the resources are that are not the same in both.
fn owners(before: &Catalog, after: &Catalog) -> BTreeSet<Option<Name>> {
    let entries = before.different(after).into_iter().flat_map(|key| [before.entry(&key), after.entry(&key)]);
    entries.flatten().map(|entry| owner(&entry.document).cloned()).collect()
}

/// What a committed revision makes of `catalog`.
fn prepare(catalog: &Catalog, revision: Revision, place: &Place) -> Result<Prepared, Vec<Problem>> {
    let _step = place.begin("translate");
    let summary = revision.summary;
    let mut problems = Problems::default();
    let mut changes = Vec::with_capacity(revision.changes.len());
    for change in revision.changes {
        let next = change.after.map(|document| {
            let stored = Stored {
                document,
                revision: summary.number,
                updated_at: summary.at,
                updated_by: summary.author.clone(),
            };
            entry(stored, &mut problems)
        });
        match next {
            Some(Some(entry)) => changes.push((change.key, Some(entry))),
            Some(None) => {}
            None => changes.push((change.key, None)),
        }
    }
    if !problems.is_empty() {
        return Err(problems.into_vec());
    }
    let keys: Vec<Key> = changes.iter().map(|(key, _)| key.clone()).collect();
    let next = catalog.apply(changes)?;
    let changes = Changes::between(catalog, &next, &keys);
    Ok(Prepared { revision: summary.number, catalog: next, changes, place: place.clone() })
}

fn entry(stored: Stored, problems: &mut Problems) -> Option<Entry> {
    let Stored { document, revision, updated_at, updated_by } = stored;
    let resource = parse(&document, problems)?;
    Some(Entry { document, resource, revision, updated_at, updated_by })
}

fn first(problems: &[Problem]) -> String {
    problems.first().map(ToString::to_string).unwrap_or_default()
}

async fn within_deadline<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match timeout(STORE_DEADLINE, answer).await {
        Ok(result) => result,
        Err(elapsed) => Err(StoreError::Unavailable(elapsed.into())),
    }
}
