//! Rollouts at work: sees how canaries fare, agrees with other replicas on what follows, and moves the parts of fleets there.
//!
//! What is agreed on is a row in the database, written by whoever sees first that something follows; each replica moves what
//! it serves itself to where the row says. Without the database everything stays where it is, but that what a canary rejects is taken back for
//! the canaries at once ([`Shelf`](crate::publish::Shelf)), whoever knows of it.

mod moves;
mod sight;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use chancery_runtime::telemetry::chain;
use time::OffsetDateTime;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use self::moves::{Place, canaries};
use super::{
    Failure, Phase, Rollout, Tried, Undecidable,
    table::{self, Row},
};
use crate::{
    feed::{Event, Feed},
    load::Loads,
    metrics as m,
    model::{Name, fleet::RolloutPolicy},
    proxies::Proxies,
    publish::{Part, Publisher, Target},
    replica::{Current, Replica, ReplicaError},
    store::StoreError,
    translate::rate_limit,
};

/// How often is looked, whatever is told.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long what happens is gathered.
const GATHER: Duration = Duration::from_millis(20);

/// How many revisions without anything for a fleet are passed over before that is written down.
const SETTLE_AFTER: u64 = 100;

/// Moves fleets that get their revisions in stages.
pub struct Stages {
    replica: Arc<Replica>,
    publisher: Arc<Publisher>,
    proxies: Arc<Proxies>,
    loads: Arc<Loads>,
    feed: Arc<Feed>,
    fleets: Mutex<BTreeMap<Name, Place>>,
}

/// A rollout as the API shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Whose.
    pub fleet: Name,
    /// How far it has come.
    pub rollout: Rollout,
    /// The newest revision with something for the fleet, if it waits for what is tried.
    pub waiting: Option<u64>,
}

/// What somebody decides about what is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// All get it.
    Promote,
    /// The canaries get back what the others have.
    Return,
}

/// Why a decision was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum DecisionError {
    /// There is no such fleet, or it does not get its revisions in stages.
    #[error("there is no fleet {0} that gets its revisions in stages")]
    NotStaged(Name),
    /// There is nothing to be decided.
    #[error(transparent)]
    Undecidable(#[from] Undecidable),
    /// Others decide at the same time.
    #[error("the rollout has moved on meanwhile; look at it again")]
    Overtaken,
    /// The store does not answer, or holds what this program cannot read.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

impl From<StoreError> for DecisionError {
    fn from(error: StoreError) -> Self {
        Self::Replica(error.into())
    }
}

impl Stages {
    /// Fills the parts of each such fleet with what they are to have.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn load(
        replica: Arc<Replica>,
        publisher: Arc<Publisher>,
        proxies: Arc<Proxies>,
        loads: Arc<Loads>,
        feed: Arc<Feed>,
    ) -> Result<Self, StoreError> {
        let this = Self { replica, publisher, proxies, loads, feed, fleets: Mutex::default() };
        let rows = table::read(&**this.replica.store()).await?;
        let current = this.replica.current();
        let mut fleets = this.fleets.lock().await;
        for (name, since) in this.publisher.staged() {
            let rollout = rows.get(&name).map_or_else(|| Rollout::new(current.revision), |row| row.rollout.clone());
            let main = this.loaded(&name, rollout.main(), &current).await?;
            let canary = this.loaded(&name, rollout.canary(), &current).await?;
            this.publisher.fill(&name, main.revision, Target::full(&main.catalog, &name));
            let mut place = Place::at(main, since);
            this.move_to(&name, &mut place, Part::Canary, canary);
            this.tell_limiters(&name, &mut place);
            if let Some(policy) = this.policy(&name) {
                this.publisher.choose(&name, canaries(&policy, &rollout));
            }
            fleets.insert(name, place);
        }
        drop(fleets);
        Ok(this)
    }

    /// Moves them on until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let changed = self.publisher.staged_changed();
        let mut wakeups = self.replica.store().rollout_wakeups();
        let mut away = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = changed.notified() => {}
                woken = wakeups.changed() => if woken.is_err() { return },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            match self.step().await {
                Ok(()) => away = false,
                Err(error) if !away => {
                    away = true;
                    tracing::warn!(error = chain(&error), "cannot move rollouts on; fleets stay at what they have");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(GATHER) => {}
            }
        }
    }

    /// What there is, of all fleets that get their revisions in stages.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn list(&self) -> Result<Vec<Shown>, StoreError> {
        let rows = table::read(&**self.replica.store()).await?;
        let staged = self.publisher.staged();
        let mut shown = Vec::with_capacity(staged.len());
        for (fleet, since) in staged {
            let rollout = rows.get(&fleet).map_or_else(|| Rollout::new(since), |row| row.rollout.clone());
            shown.push(self.shown(fleet, rollout).await);
        }
        Ok(shown)
    }

    /// Carries out what `by` has decided about what is tried on `fleet`.
    ///
    /// # Errors
    /// There is nothing to be decided, or others decide at the same time, or the store does not answer.
    pub async fn decide(&self, fleet: &Name, decision: Decision, by: &str) -> Result<Shown, DecisionError> {
        let not_staged = || DecisionError::NotStaged(fleet.clone());
        let row = table::read(&**self.replica.store()).await?.remove(fleet);
        let policy = self.policy(fleet).ok_or_else(not_staged)?;
        let row = row.ok_or(Undecidable::Nothing)?;
        let next = match decision {
            Decision::Promote => row.rollout.promote(by, now())?,
            Decision::Return => row.rollout.give_back(by, now())?,
        };
        let row = self.write(fleet, row.step, next).await?.ok_or(DecisionError::Overtaken)?;
        {
            let mut fleets = self.fleets.lock().await;
            let place = fleets.get_mut(fleet).ok_or_else(not_staged)?;
            self.bring(fleet, place, &row.rollout, &policy).await?;
        }
        Ok(self.shown(fleet.clone(), row.rollout).await)
    }

    async fn shown(&self, fleet: Name, rollout: Rollout) -> Shown {
        let waiting = match self.fleets.lock().await.get(&fleet) {
            Some(Place { looked_at: (revision, true), .. }) if *revision > rollout.tried() => Some(*revision),
            _ => None,
        };
        Shown { fleet, rollout, waiting }
    }

    fn policy(&self, fleet: &Name) -> Option<RolloutPolicy> {
        self.replica.current().catalog.fleet(fleet)?.rollout.clone()
    }

    async fn step(&self) -> Result<(), ReplicaError> {
        let staged = self.publisher.staged();
        let mut fleets = self.fleets.lock().await;
        if staged.is_empty() && fleets.is_empty() {
            return Ok(());
        }
        let mut rows = table::read(&**self.replica.store()).await?;
        let gone: Vec<Name> = fleets.keys().filter(|fleet| !staged.contains_key(*fleet)).cloned().collect();
        for fleet in gone {
            self.replica.store().forget_rollout(fleet.as_str()).await?;
            fleets.remove(&fleet);
        }
        // What stops one of them stops no other.
        let mut stopped = Ok(());
        for (fleet, since) in staged {
            let row = rows.remove(&fleet);
            stopped = stopped.and(self.step_one(&mut fleets, fleet, since, row).await);
        }
        stopped
    }

    async fn step_one(
        &self,
        fleets: &mut BTreeMap<Name, Place>,
        fleet: Name,
        since: u64,
        row: Option<Row>,
    ) -> Result<(), ReplicaError> {
        let is_new = fleets.get(&fleet).is_none_or(|place| place.since != since);
        if is_new {
            fleets.insert(fleet.clone(), Place::at(self.position(since, &[]).await?, since));
        }
        let Some(place) = fleets.get_mut(&fleet) else { return Ok(()) };
        let Some(policy) = self.policy(&fleet) else { return self.unstage(&fleet, place).await };
        let row = match row {
            // From the last time that its revisions came in stages.
            Some(row) if is_new && row.rollout.main() < since => {
                self.write(&fleet, row.step, Rollout::new(since)).await?
            }
            None => self.write(&fleet, 0, Rollout::new(place.main.revision)).await?,
            row => row,
        };
        match row {
            Some(row) => self.move_on(&fleet, place, row, &policy).await,
            None => Ok(()),
        }
    }

    /// Moves one fleet on as far as it goes now.
    async fn move_on(
        &self,
        fleet: &Name,
        place: &mut Place,
        mut row: Row,
        policy: &RolloutPolicy,
    ) -> Result<(), ReplicaError> {
        loop {
            self.bring(fleet, place, &row.rollout, policy).await?;
            let current = self.replica.current();
            let newer = self.is_newer(fleet, place, &row.rollout, &current).await?;
            let next = match row.rollout.under_way() {
                Some(tried) => {
                    let seen = self.seen(fleet, place, tried, policy);
                    row.rollout.go_on(policy, seen, now())
                }
                None if newer => Some(self.begin(fleet, place, &row.rollout, policy, current.revision).await),
                None if current.revision >= row.rollout.tried() + SETTLE_AFTER => row.rollout.settle(current.revision),
                None => None,
            };
            let Some(next) = next else { return Ok(()) };
            // Whoever was first, it is looked at again soon.
            let Some(written) = self.write(fleet, row.step, next).await? else { return Ok(()) };
            row = written;
        }
    }

    /// Whether the newest revision has something for the fleet that nobody has tried.
    async fn is_newer(
        &self,
        fleet: &Name,
        place: &mut Place,
        rollout: &Rollout,
        current: &Current,
    ) -> Result<bool, ReplicaError> {
        let tried = rollout.tried();
        if current.revision <= tried {
            return Ok(false);
        }
        if place.looked_at.0 != current.revision {
            let from = self.position(tried, &[&place.main, &place.canary]).await?;
            let target = Target::between(&from.catalog, &current.catalog, fleet);
            let limits = rate_limit::domain(&from.catalog, fleet) != rate_limit::domain(&current.catalog, fleet);
            place.looked_at = (current.revision, !target.is_empty() || limits);
        }
        Ok(place.looked_at.1)
    }

    /// Writes what follows, and tells of it. None if somebody else was first.
    async fn write(&self, fleet: &Name, step: u64, rollout: Rollout) -> Result<Option<Row>, StoreError> {
        let written = table::write(&**self.replica.store(), fleet, step, rollout).await?;
        if let Some(Row { rollout: Rollout { last: Some(tried), .. }, .. }) = &written {
            self.tell(fleet, tried);
        }
        Ok(written)
    }

    fn tell(&self, fleet: &Name, Tried { revision, phase, .. }: &Tried) {
        let (name, failure) = match phase {
            Phase::Applying => ("applying", None),
            Phase::Soaking { .. } => ("soaking", None),
            Phase::Held { failure } => ("held", Some(failure)),
            Phase::Returned { failure } => ("returned", Some(failure)),
            Phase::Promoted { .. } => ("promoted", None),
        };
        match failure {
            Some(Failure { reason, proxy, resources, .. }) => {
                tracing::warn!(%fleet, revision, phase = name, reason, proxy, ?resources, "a rollout has failed");
            }
            None => tracing::info!(%fleet, revision, phase = name, "a rollout goes on"),
        }
        if !matches!(phase, Phase::Applying | Phase::Soaking { .. }) {
            metrics::counter!(m::ROLLOUTS, "outcome" => name).increment(1);
        }
        self.feed.tell(|| Event::Rollout {
            fleet: fleet.to_string(),
            revision: *revision,
            phase: name.to_owned(),
            reason: failure.map(|failure| failure.reason.clone()),
        });
    }
}

fn now() -> OffsetDateTime {
    SystemTime::now().into()
}

#[cfg(test)]
mod tests;
