//! A change set on its way into the store: check, translate, one transaction.
//!
//! Everything is decided under the writers' lock of the store, on a catalog that is current at that
//! moment, so two replicas cannot commit what contradicts. What the catalog or the translation refuses
//! never reaches the store, and neither does what Envoy would refuse of the translation. The result of the check is what is
//! published: nothing is computed twice.
//!
//! Invariant: a change set is one revision or none.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use time::OffsetDateTime;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use crate::{
    model::{Catalog, Document, Entry, Key, Name, Problem, Problems, Resource, parse},
    publish::Changes,
    replica::{Current, Prepared, Replica, ReplicaError},
    store::{NewChange, NewRevision, StoreError},
    translate::constraints,
};

/// How long a commit may take, waiting for its turn included.
const COMMIT_DEADLINE: Duration = Duration::from_secs(15);

/// Changes to be made together.
#[derive(Clone, Debug)]
pub struct ChangeSet {
    /// Who makes them.
    pub author: String,
    /// Why.
    pub message: String,
    /// The changes.
    pub edits: Vec<Edit>,
    /// The revision they are based on, if that matters.
    pub if_revision: Option<u64>,
    /// Check only.
    pub dry_run: bool,
}

/// One change.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Creates or replaces a resource.
    Put {
        /// What it becomes.
        document: Document,
        /// What it must be now.
        expect: Expect,
    },
    /// Deletes a resource.
    Delete {
        /// Which one.
        key: Key,
        /// What it must be now.
        expect: Expect,
    },
}

/// What a resource must be for a change to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Anything.
    Any,
    /// Not there.
    Absent,
    /// There.
    Exists,
    /// There, last changed by this revision.
    Revision(u64),
}

/// What was done to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is new.
    Created,
    /// It was replaced.
    Updated,
    /// It is gone.
    Deleted,
}

/// A resource that was changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// Which one.
    pub key: Key,
    /// How.
    pub action: Action,
    /// What it was.
    pub before: Option<Arc<Document>>,
    /// What it is.
    pub after: Option<Arc<Document>>,
}

/// A change set that was committed, or would be.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The revision it became; the current one if nothing changed, or on a dry run.
    pub revision: u64,
    /// What changed; nothing if everything was as wanted already.
    pub changed: Vec<Changed>,
    /// The fleets whose proxies get something new.
    pub fleets: Vec<Name>,
    /// Whether rate limiters get something new.
    pub limiters: bool,
    /// When it was published; proxies may have applied it before its author hears of it.
    pub published: Instant,
}

/// Why a change set was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It is wrong in itself, or contradicts other resources.
    #[error("the change is refused")]
    Problems(Vec<Problem>),
    /// It is based on something that has changed since.
    #[error("the change is based on revision {expected}, which is not current")]
    Conflict {
        /// The resource, or `None` for the catalog as a whole.
        key: Option<Key>,
        /// The revision it is based on.
        expected: u64,
        /// What the resource is now.
        current: Option<Arc<Entry>>,
        /// The newest revision.
        head: u64,
    },
    /// There is no such resource.
    #[error("there is no {0}")]
    NotFound(Key),
    /// There is such a resource already.
    #[error("there is a {0} already")]
    Exists(Key),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This replica is not current and cannot become so.
    #[error("this replica cannot follow the store")]
    Behind(#[source] ReplicaError),
}

impl From<ReplicaError> for CommitError {
    fn from(error: ReplicaError) -> Self {
        match error {
            ReplicaError::Store(error) => CommitError::Store(error),
            error @ ReplicaError::Unreadable { .. } => CommitError::Behind(error),
        }
    }
}

/// Commits change sets, one at a time. Cloning shares it.
#[derive(Clone)]
pub struct Commit {
    replica: Arc<Replica>,
    turn: Arc<Mutex<()>>,
    tasks: TaskTracker,
}

impl Commit {
    /// Commits to the store behind `replica`; commits in flight are tasks of `tasks`.
    pub fn new(replica: Arc<Replica>, tasks: TaskTracker) -> Self {
        Self { replica, turn: Arc::default(), tasks }
    }

    /// The catalog as it is.
    pub fn current(&self) -> Arc<Current> {
        self.replica.current()
    }

    /// Checks `set`, and commits it unless it is a dry run.
    ///
    /// A commit that has begun is carried through even if the caller goes away.
    pub async fn commit(&self, set: ChangeSet) -> Result<Committed, CommitError> {
        let edits = parse_edits(&set, &self.replica.current())?;
        if set.dry_run {
            let current = self.replica.current();
            let checked = check(&current, &set, edits)?;
            translate(&current, &checked)?;
            return Ok(checked.committed);
        }
        let this = self.clone();
        let work = self.tasks.spawn(async move { this.commit_parsed(set, edits).await });
        let unavailable =
            |error: Box<dyn std::error::Error + Send + Sync>| CommitError::Store(StoreError::Unavailable(error));
        match tokio::time::timeout(COMMIT_DEADLINE, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(failed)) => Err(unavailable(failed.into())),
            Err(elapsed) => Err(unavailable(elapsed.into())),
        }
    }

    async fn commit_parsed(&self, set: ChangeSet, edits: Vec<Parsed>) -> Result<Committed, CommitError> {
        let _turn = self.turn.lock().await;
        let mut write = self.replica.store().begin().await?;
        let current = self.replica.catch_up_with(&mut *write).await?;
        let checked = check(&current, &set, edits)?;
        if checked.committed.changed.is_empty() {
            return Ok(checked.committed);
        }
        let changes = translate(&current, &checked)?;
        let Checked { mut committed, next, new_changes, at } = checked;
        committed.fleets = changes.fleets.keys().cloned().collect();
        committed.limiters = !changes.domains.is_empty();
        let revision = NewRevision { author: set.author, message: set.message, at, changes: new_changes };
        let summary = write.commit(revision).await?.summary;
        let revision = summary.number;
        committed.revision = revision;
        tracing::info!(revision, changed = committed.changed.len(), fleets = ?committed.fleets, "committed");
        committed.published = Instant::now();
        self.replica.advance(Prepared { revision, catalog: next, changes }, &summary).await;
        Ok(committed)
    }
}

enum Parsed {
    Put { document: Arc<Document>, resource: Resource, expect: Expect },
    Delete { key: Key, expect: Expect },
}

impl Parsed {
    fn key(&self) -> Key {
        match self {
            Parsed::Put { document, .. } => document.key(),
            Parsed::Delete { key, .. } => key.clone(),
        }
    }

    fn expect(&self) -> Expect {
        match self {
            Parsed::Put { expect, .. } | Parsed::Delete { expect, .. } => *expect,
        }
    }

    fn into_change(self, stamp: &Stamp<'_>) -> (Key, Option<Entry>) {
        match self {
            Parsed::Put { document, resource, .. } => {
                let key = document.key();
                let (revision, updated_at, updated_by) = (stamp.revision, stamp.at, stamp.author.to_owned());
                (key, Some(Entry { document, resource, revision, updated_at, updated_by }))
            }
            Parsed::Delete { key, .. } => (key, None),
        }
    }
}

/// Parses every edit, or says all that is wrong with the change: in the documents that cannot be read, and, as far as it
/// can be told without them, in the rest.
fn parse_edits(set: &ChangeSet, current: &Current) -> Result<Vec<Parsed>, CommitError> {
    let mut problems = Problems::default();
    let mut parsed: Vec<Parsed> = Vec::with_capacity(set.edits.len());
    let mut unread: Vec<&Document> = Vec::new();
    let mut seen = BTreeSet::new();
    for edit in &set.edits {
        let key = match edit {
            Edit::Put { document, expect } => {
                match parse(document, &mut problems) {
                    Some(resource) => {
                        let document = Arc::new(document.clone());
                        parsed.push(Parsed::Put { document, resource, expect: *expect });
                    }
                    None => unread.push(document),
                }
                document.key()
            }
            Edit::Delete { key, expect } => {
                parsed.push(Parsed::Delete { key: key.clone(), expect: *expect });
                key.clone()
            }
        };
        if !seen.insert(key.clone()) {
            problems.about(key.to_string()).report("stands twice in one change");
        }
    }
    if problems.is_empty() {
        return Ok(parsed);
    }
    let mut found = problems.into_vec();
    if seen.len() == set.edits.len() {
        let stamp = Stamp { revision: current.revision + 1, at: now(), author: &set.author };
        let changes = parsed.into_iter().map(|edit| edit.into_change(&stamp)).collect();
        found.extend(current.catalog.problems_beside(changes, &unread));
    }
    found.sort();
    Err(CommitError::Problems(found))
}

/// What a revision says of itself.
struct Stamp<'a> {
    revision: u64,
    at: OffsetDateTime,
    author: &'a str,
}

/// The time, as exact as stores keep it.
fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond()).unwrap_or(now)
}

struct Checked {
    committed: Committed,
    next: Catalog,
    new_changes: Vec<NewChange>,
    at: OffsetDateTime,
}

/// What `edits` make of the current catalog, if they may.
fn check(current: &Current, set: &ChangeSet, edits: Vec<Parsed>) -> Result<Checked, CommitError> {
    let Current { revision: head, catalog } = current;
    if let Some(expected) = set.if_revision
        && expected != *head
    {
        return Err(CommitError::Conflict { key: None, expected, current: None, head: *head });
    }
    let stamp = Stamp { revision: head + 1, at: now(), author: &set.author };
    let mut changed = Vec::new();
    let mut changes = Vec::new();
    for edit in edits {
        let key = edit.key();
        let before = catalog.entry(&key);
        expectation(&key, edit.expect(), before, *head)?;
        let before_document = before.map(|entry| entry.document.clone());
        match edit {
            Parsed::Put { document, .. } if before_document.as_ref() == Some(&document) => {}
            Parsed::Delete { .. } if before.is_none() => {}
            edit => {
                let (key, entry) = edit.into_change(&stamp);
                let action = match (before, &entry) {
                    (_, None) => Action::Deleted,
                    (None, Some(_)) => Action::Created,
                    (Some(_), Some(_)) => Action::Updated,
                };
                let after = entry.as_ref().map(|entry| entry.document.clone());
                changed.push(Changed { key: key.clone(), action, before: before_document, after });
                changes.push((key, entry));
            }
        }
    }
    changed.sort_by(|a: &Changed, b| a.key.cmp(&b.key));
    let next = catalog.apply(changes).map_err(CommitError::Problems)?;
    let new_changes = changed
        .iter()
        .map(|c| NewChange { key: c.key.clone(), before: c.before.clone(), after: c.after.clone() })
        .collect();
    Ok(Checked {
        committed: Committed {
            revision: *head,
            changed,
            fleets: Vec::new(),
            limiters: false,
            published: Instant::now(),
        },
        next,
        new_changes,
        at: stamp.at,
    })
}

/// What a change that was found consistent means for everybody, if Envoy would take it.
fn translate(current: &Current, checked: &Checked) -> Result<Changes, CommitError> {
    let keys: Vec<Key> = checked.committed.changed.iter().map(|changed| changed.key.clone()).collect();
    let changes = Changes::between(&current.catalog, &checked.next, &keys);
    let refused = constraints::refused(&checked.next, &changes.fleets);
    if refused.is_empty() { Ok(changes) } else { Err(CommitError::Problems(refused)) }
}

fn expectation(key: &Key, expect: Expect, before: Option<&Arc<Entry>>, head: u64) -> Result<(), CommitError> {
    match (expect, before) {
        (Expect::Any, _) | (Expect::Absent, None) | (Expect::Exists, Some(_)) => Ok(()),
        (Expect::Absent, Some(_)) => Err(CommitError::Exists(key.clone())),
        (Expect::Exists | Expect::Revision(_), None) => Err(CommitError::NotFound(key.clone())),
        (Expect::Revision(expected), Some(entry)) if entry.revision == expected => Ok(()),
        (Expect::Revision(expected), Some(entry)) => {
            Err(CommitError::Conflict { key: Some(key.clone()), expected, current: Some(entry.clone()), head })
        }
    }
}
