//! A change set on its way into the store: check, translate, one transaction.
//!
//! Everything is decided under the writers' lock of the store, on a catalog that is current at that
//! moment, so two replicas cannot commit what contradicts. What the catalog or the translation refuses
//! never reaches the store, and neither does what Envoy would refuse of the translation. The result of the check is what is
//! published.
//!
//! A real Envoy, where there is one to ask ([`SecondVerdict`]), takes its time, so it is asked before anybody's turn begins, on the
//! catalog known then. In its turn the change is committed if what it puts has been judged, byte by byte. If another change came
//! between and made it different, the turn is given back and Envoy is asked again.
//!
//! Invariants: a change set is one revision or none; no turn waits for Envoy.

mod check;
mod once;
mod parsed;
mod prune;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use chancery_runtime::{telemetry, traces::Place};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use self::{
    check::{Checked, check},
    parsed::{Parsed, now, parse_edits, with_pruned},
};
use crate::{
    access::{
        Principal,
        changes::{Denied, Refusal},
    },
    audit,
    model::{Catalog, Document, Entry, Key, Name, Problem, Selector},
    publish::Changes,
    replica::{Current, Prepared, Replica, ReplicaError},
    store::{IDEMPOTENCY_KEPT_FOR, IdempotencyKey, NewRevision, StoreError},
    translate::constraints,
    verdict::{Hearing, NoVerdict, Question, SecondVerdict, Unheard},
};

/// How long a commit may take, waiting for its turn included.
const COMMIT_DEADLINE: Duration = Duration::from_secs(15);

/// How often a change is judged anew because others changed what it belongs to.
const HEARINGS: usize = 4;

/// How many of the resources that changed are named in the log.
const LOGGED: usize = 20;

/// Changes to be made together.
#[derive(Clone, Debug)]
pub struct ChangeSet {
    /// Who makes them.
    pub author: Arc<Principal>,
    /// From where.
    pub from: Option<IpAddr>,
    /// Why.
    pub message: String,
    /// The changes.
    pub edits: Vec<Edit>,
    /// Resources that are deleted unless the changes name them, if there are any such. It chooses something, not all there is.
    pub prune: Option<Selector>,
    /// The revision they are based on, if that matters.
    pub if_revision: Option<u64>,
    /// Check only.
    pub dry_run: bool,
    /// Under which key it is made once, however often it is sent.
    pub once: Option<Arc<IdempotencyKey>>,
    /// Where in which trace it is told of.
    pub place: Place,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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

/// A change set that was checked, and may be committed as long as nothing else is.
#[derive(Debug)]
pub struct Planned {
    /// What would be committed; its revision is the one that it is based on.
    pub committed: Committed,
    /// The catalog that it is based on.
    pub before: Arc<Current>,
    /// The catalog that it would lead to.
    pub after: Catalog,
    /// What that changes for those who are served.
    pub changes: Changes,
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
    /// Its author may not make it.
    #[error("the change is not allowed")]
    Forbidden(Vec<Refusal>),
    /// There is no such resource, as far as its author may know.
    #[error("there is no {0}")]
    NotFound(Key),
    /// There is such a resource already.
    #[error("there is a {0} already")]
    Exists(Key),
    /// It was made before, under the same key.
    #[error("idempotency key {0:?} was used already")]
    MadeBefore(String),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Envoy has not said whether it would take it.
    #[error(transparent)]
    NoVerdict(#[from] NoVerdict),
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

impl From<Denied> for CommitError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Hidden(key) => CommitError::NotFound(key),
            Denied::Refused(refused) => CommitError::Forbidden(refused),
        }
    }
}

impl From<Unheard> for CommitError {
    fn from(unheard: Unheard) -> Self {
        match unheard {
            Unheard::Refused(problems) => CommitError::Problems(problems),
            Unheard::NoVerdict(error) => CommitError::NoVerdict(error),
        }
    }
}

/// Commits change sets, one at a time. Cloning shares it.
#[derive(Clone)]
pub struct Commit {
    replica: Arc<Replica>,
    turn: Arc<Mutex<()>>,
    tasks: TaskTracker,
    envoy: Option<Arc<SecondVerdict>>,
}

impl Commit {
    /// Commits to the store behind `replica` what `envoy`, if there is one, takes; commits in flight are tasks of `tasks`.
    pub fn new(replica: Arc<Replica>, envoy: Option<Arc<SecondVerdict>>, tasks: TaskTracker) -> Self {
        Self { replica, turn: Arc::default(), tasks, envoy }
    }

    /// The catalog as it is.
    pub fn current(&self) -> Arc<Current> {
        self.replica.current()
    }

    /// What `set` would do, if it may be made by all that is known without asking Envoy.
    ///
    /// # Errors
    /// Those of [`Commit::plan`], Envoy's aside.
    pub fn preview(&self, set: &ChangeSet) -> Result<Planned, CommitError> {
        self.foresee(set).map(|(planned, _)| planned)
    }

    /// Checks `set`, and commits it unless it is a dry run.
    ///
    /// A commit that has begun is carried through even if the caller goes away.
    pub async fn commit(&self, set: ChangeSet) -> Result<Committed, CommitError> {
        if set.dry_run {
            return Ok(self.plan(&set).await?.committed);
        }
        let edits = parse_edits(&set, &self.replica.current())?;
        let this = self.clone();
        let work = self.tasks.spawn(async move { this.commit_parsed(set, edits).await }.in_current_span());
        let unavailable =
            |error: Box<dyn std::error::Error + Send + Sync>| CommitError::Store(StoreError::Unavailable(error));
        match tokio::time::timeout(COMMIT_DEADLINE, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(failed)) => Err(unavailable(failed.into())),
            Err(elapsed) => Err(unavailable(elapsed.into())),
        }
    }

    /// Checks `set` as [`Commit::commit`] does, and says what it would do.
    pub async fn plan(&self, set: &ChangeSet) -> Result<Planned, CommitError> {
        let (planned, questions) = self.foresee(set)?;
        self.hear(&mut Hearing::begin(), &questions).await?;
        Ok(planned)
    }

    /// What `set` would do, and what Envoy is to be asked about it.
    fn foresee(&self, set: &ChangeSet) -> Result<(Planned, Vec<Question>), CommitError> {
        let before = self.replica.current();
        let edits = parse_edits(set, &before)?;
        let Decided { checked, changes, questions } = self.decide(&before, set, edits, &set.place)?;
        Ok((Planned { committed: checked.committed, before, after: checked.next, changes }, questions))
    }

    async fn commit_parsed(&self, set: ChangeSet, edits: Vec<Parsed>) -> Result<Committed, CommitError> {
        let mut step = set.place.begin("commit");
        let place = step.place().clone();
        let result = self.commit_at(&place, &set, edits).await;
        match &result {
            Ok(committed) => step.says("chancery.revision", committed.revision.cast_signed()),
            Err(error) => step.failed(&telemetry::chain(error)),
        }
        result
    }

    async fn commit_at(&self, place: &Place, set: &ChangeSet, edits: Vec<Parsed>) -> Result<Committed, CommitError> {
        let mut hearing = Hearing::begin();
        if self.envoy.is_some() {
            let _step = place.begin("ask Envoy");
            // What is wrong is told of the newest catalog, below.
            let ahead = self.decide(&self.replica.current(), set, edits.clone(), &Place::nowhere());
            self.hear(&mut hearing, ahead.as_ref().map_or(&[], |decided| &decided.questions)).await?;
        }
        for _ in 0..HEARINGS {
            match self.take_turn(place, set, edits.clone(), &hearing).await? {
                Turn::Committed(committed) => return Ok(committed),
                Turn::GivenBack(questions) => {
                    let _step = place.begin("ask Envoy");
                    self.hear(&mut hearing, &questions).await?;
                }
            }
        }
        Err(CommitError::NoVerdict(NoVerdict::Overtaken))
    }

    async fn hear(&self, hearing: &mut Hearing, questions: &[Question]) -> Result<(), CommitError> {
        match &self.envoy {
            Some(envoy) => Ok(envoy.hear(hearing, questions).await?),
            None => Ok(()),
        }
    }

    async fn take_turn(
        &self,
        place: &Place,
        set: &ChangeSet,
        edits: Vec<Parsed>,
        hearing: &Hearing,
    ) -> Result<Turn, CommitError> {
        let transaction = place.begin("transaction");
        let locking = transaction.place().begin("lock");
        let _turn = self.turn.lock().await;
        let mut write = self.replica.store().begin().await?;
        drop(locking);
        let current = self.replica.catch_up_with(&mut *write).await?;
        if let Some(key) = &set.once
            && write.idempotency(key, now() - IDEMPOTENCY_KEPT_FOR).await?.is_some()
        {
            return Err(CommitError::MadeBefore(key.key.clone()));
        }
        let Decided { checked, changes, questions } = self.decide(&current, set, edits, transaction.place())?;
        if checked.committed.changed.is_empty() {
            if let Some(record) = once::record(set.once.as_deref(), &checked.committed, checked.at)? {
                write.keep(record, once::MOST_REMEMBERED).await?;
                write.end().await?;
            }
            return Ok(Turn::Committed(checked.committed));
        }
        if !hearing.covers(&questions) {
            return Ok(Turn::GivenBack(questions));
        }
        let Checked { mut committed, next, new_changes, at } = checked;
        committed.fleets = changes.fleets.keys().cloned().collect();
        committed.limiters = !changes.domains.is_empty();
        let (author, message, from) = (set.author.name.clone(), set.message.clone(), audit::shown(set.from));
        let revision = NewRevision { author, message, at, changes: new_changes, from };
        committed.revision = write.head() + 1;
        let writing = transaction.place().begin("write");
        if let Some(record) = once::record(set.once.as_deref(), &committed, at)? {
            write.keep(record, once::MOST_REMEMBERED).await?;
        }
        if let Some(traceparent) = place.traceparent() {
            write.traced(&traceparent).await?;
        }
        let summary = write.commit(revision).await?.summary;
        drop((writing, transaction));
        let revision = summary.number;
        let resources: Vec<_> = committed.changed.iter().take(LOGGED).map(|changed| changed.key.to_string()).collect();
        let (author, count, fleets) = (&set.author.name, committed.changed.len(), &committed.fleets);
        tracing::info!(revision, author, count, ?resources, ?fleets, "committed");
        committed.published = Instant::now();
        self.replica.advance(Prepared { revision, catalog: next, changes, place: place.clone() }, &summary).await;
        Ok(Turn::Committed(committed))
    }

    /// What `edits` mean for everybody, if they may be made and pass the first verdict, and what Envoy is to be asked about them.
    fn decide(
        &self,
        current: &Current,
        set: &ChangeSet,
        edits: Vec<Parsed>,
        place: &Place,
    ) -> Result<Decided, CommitError> {
        let checking = place.begin("check");
        let checked = check(current, set, with_pruned(edits, set, &current.catalog))?;
        drop(checking);
        let _translating = place.begin("translate");
        let keys: Vec<Key> = checked.committed.changed.iter().map(|changed| changed.key.clone()).collect();
        let changes = Changes::between(&current.catalog, &checked.next, &keys);
        let refused = constraints::refused(&checked.next, &changes.fleets);
        if !refused.is_empty() {
            return Err(CommitError::Problems(refused));
        }
        let asked = changes.fleets.iter().filter(|_| self.envoy.is_some());
        let questions =
            asked.map(|(fleet, changes)| Question::about(&checked.next, fleet, &changes.put, &keys)).collect();
        Ok(Decided { checked, changes, questions })
    }
}

/// What became of a turn.
enum Turn {
    Committed(Committed),
    /// Nothing was written: this is not judged yet.
    GivenBack(Vec<Question>),
}

/// A change that may be made.
struct Decided {
    checked: Checked,
    changes: Changes,
    questions: Vec<Question>,
}
