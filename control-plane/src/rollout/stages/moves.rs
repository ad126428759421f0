//! Where fleets are, here, and how they are brought to where they should be.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chancery_runtime::telemetry::chain;

use super::{GATHER, Stages};
use crate::{
    load::Counts,
    model::{
        Catalog, Name,
        fleet::{CanaryChoice, RolloutPolicy},
    },
    proxies::Connection,
    publish::{Canaries, Part, Target, Who},
    replica::{Current, ReplicaError},
    rollout::Rollout,
    store::StoreError,
    translate::rate_limit,
};

/// How long streams that are to be opened anew may take to end before a revision goes to the canaries without them.
const STRAYS_END_WITHIN: Duration = Duration::from_secs(2);

/// Where a fleet is, here.
pub(super) struct Place {
    /// The revision after which its revisions began to come in stages, or this process.
    pub(super) since: u64,
    pub(super) main: Position,
    pub(super) canary: Position,
    /// What limiters were told last of its limits.
    pub(super) domain: Option<Bytes>,
    /// The newest revision that was looked at, and whether it has something new for the fleet.
    pub(super) looked_at: (u64, bool),
    /// The revision that is tried, and what was counted through the canaries before.
    pub(super) before: (u64, Counts),
    /// The canaries that were connected here when last looked.
    pub(super) here: BTreeSet<Name>,
}

#[derive(Clone)]
pub(super) struct Position {
    pub(super) revision: u64,
    pub(super) catalog: Catalog,
}

impl Stages {
    /// As [`Stages::position`], or the newest if that cannot be read any more.
    pub(super) async fn loaded(
        &self,
        fleet: &Name,
        revision: u64,
        current: &Arc<Current>,
    ) -> Result<Position, StoreError> {
        match self.position(revision, &[]).await {
            Ok(position) => Ok(position),
            Err(ReplicaError::Store(error)) => Err(error),
            Err(error @ ReplicaError::Unreadable { .. }) => {
                tracing::error!(%fleet, revision, error = chain(&error), "the newest revision is served instead");
                Ok(Position { revision: current.revision, catalog: current.catalog.clone() })
            }
        }
    }

    /// All resources at `revision`, which may be one of `known`.
    pub(super) async fn position(&self, revision: u64, known: &[&Position]) -> Result<Position, ReplicaError> {
        if let Some(known) = known.iter().find(|known| known.revision == revision) {
            return Ok((*known).clone());
        }
        if self.replica.current().revision < revision {
            self.replica.catch_up().await?;
        }
        let current = self.replica.current();
        let catalog = match current.revision == revision {
            true => current.catalog.clone(),
            false => self.replica.catalog_at(revision).await?,
        };
        Ok(Position { revision, catalog })
    }

    /// Brings what is served to where `rollout` says.
    pub(super) async fn bring(
        &self,
        fleet: &Name,
        place: &mut Place,
        rollout: &Rollout,
        policy: &RolloutPolicy,
    ) -> Result<(), ReplicaError> {
        let canaries = canaries(policy, rollout);
        self.publisher.choose(fleet, canaries.clone());
        self.end_strays(fleet, &canaries).await;
        for (part, revision) in [(Part::Canary, rollout.canary()), (Part::Main, rollout.main())] {
            let at = match part {
                Part::Main => place.main.revision,
                Part::Canary => place.canary.revision,
            };
            if at != revision {
                let position = self.position(revision, &[&place.main, &place.canary]).await?;
                self.move_to(fleet, place, part, position);
            }
        }
        self.tell_limiters(fleet, place);
        Ok(())
    }

    pub(super) fn move_to(&self, fleet: &Name, place: &mut Place, part: Part, position: Position) {
        let at = match part {
            Part::Main => &mut place.main,
            Part::Canary => &mut place.canary,
        };
        let target = Target::between(&at.catalog, &position.catalog, fleet);
        tracing::info!(%fleet, ?part, from = at.revision, to = position.revision, "moved");
        self.publisher.move_part(fleet, part, position.revision, target);
        *at = position;
    }

    pub(super) fn tell_limiters(&self, fleet: &Name, place: &mut Place) {
        let domain = rate_limit::on_the_way(&place.main.catalog, &place.canary.catalog, fleet);
        if domain != place.domain {
            self.publisher.tell_domain(fleet, domain.clone());
            place.domain = domain;
        }
    }

    /// Has those of `fleet` open their streams anew that are canaries and should not be, or should be.
    pub(super) async fn end_strays(&self, fleet: &Name, canaries: &Canaries) {
        let is_stray = |connection: &Connection| {
            let Connection { proxy, canary, labels, .. } = connection;
            proxy.fleet.as_ref() == Some(fleet) && canaries.are(&Who { id: &proxy.id, labels }) != *canary
        };
        let deadline = Instant::now() + STRAYS_END_WITHIN;
        loop {
            let strays = self.proxies.connections(is_stray);
            strays.iter().for_each(|stray| stray.ended.cancel());
            if strays.is_empty() || Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    /// The fleet is to get revisions as they come.
    pub(super) async fn unstage(&self, fleet: &Name, place: &mut Place) -> Result<(), ReplicaError> {
        let current = self.replica.current();
        if current.catalog.fleet(fleet).is_none_or(|fleet| fleet.rollout.is_none()) {
            let target = Target::between(&place.main.catalog, &current.catalog, fleet);
            if self.publisher.unstage(fleet, current.revision, target) {
                let domain = rate_limit::on_the_way(&current.catalog, &current.catalog, fleet);
                self.publisher.tell_domain(fleet, domain);
                self.replica.store().forget_rollout(fleet.as_str()).await?;
            }
        }
        Ok(())
    }
}

impl Place {
    pub(super) fn at(position: Position, since: u64) -> Self {
        Self {
            since,
            main: position.clone(),
            canary: position,
            domain: None,
            looked_at: (0, false),
            before: (0, Counts::default()),
            here: BTreeSet::new(),
        }
    }
}

/// Who is served first, with this done so far.
pub(super) fn canaries(policy: &RolloutPolicy, rollout: &Rollout) -> Canaries {
    match &policy.canaries {
        CanaryChoice::Labels(labels) => Canaries::Labelled(labels.clone()),
        CanaryChoice::Percent(_) => {
            Canaries::Named(rollout.last.iter().flat_map(|last| last.canaries.keys()).cloned().collect())
        }
    }
}
