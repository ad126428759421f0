//! Fleets that get their revisions in stages: a second track, for the canaries.
//!
//! Of such a fleet, a revision changes nothing by itself. Whoever decides how far it has come ([`rollout`](crate::rollout)) moves
//! each of the two tracks to the revision that its proxies are to have, forward or back. What registers itself as an endpoint comes to both at
//! once, as to every other fleet.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use chancery_xds::{Name as ResourceName, TypeUrl};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Fleet, Known, Publisher, Track,
    endpoints::{self, Registered},
};
use crate::{
    model::{Catalog, Name},
    translate::snapshot::{self, FleetChanges, ResourceId},
};

/// What there is of a fleet besides, if it gets its revisions in stages.
pub(super) struct Staged {
    /// From the revision after this on.
    since: u64,
    pub(super) canary: Track,
    pub(super) canaries: Canaries,
    pub(super) rejections: Arc<Rejections>,
    pub(super) ended: CancellationToken,
}

/// The two parts of a fleet that can have different revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the canaries.
    Main,
    /// The canaries.
    Canary,
}

/// Who the canaries of a fleet are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Canaries {
    /// These.
    Named(BTreeSet<Name>),
    /// Those with all of these labels.
    Labelled(BTreeMap<String, String>),
}

/// A proxy of a fleet.
#[derive(Clone, Copy, Debug)]
pub struct Who<'w> {
    /// Its id.
    pub id: &'w Name,
    /// What it says of itself.
    pub labels: &'w BTreeMap<String, String>,
}

/// What the canaries of a fleet have rejected.
#[derive(Debug)]
pub struct Rejections {
    last: Mutex<Option<CanaryRejection>>,
    changed: Arc<Notify>,
}

/// A rejection by a canary.
#[derive(Clone, Debug, PartialEq)]
pub struct CanaryRejection {
    /// The proxy.
    pub proxy: Name,
    /// The type of the response.
    pub type_url: TypeUrl,
    /// The resources that its words are about, or all of the response.
    pub resources: Vec<ResourceName>,
    /// Its words.
    pub words: String,
    /// When it said them.
    pub at: SystemTime,
    /// The sequence that the response stands for.
    pub sequence: u64,
}

/// What a track is moved to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// What is different there.
    changes: FleetChanges,
    /// The services that take endpoints which register themselves.
    taking: HashSet<Name>,
}

/// Which of these fleets get their revisions in stages.
pub(super) fn staged<'a>(catalog: &Catalog, fleets: impl Iterator<Item = &'a Name>) -> BTreeSet<Name> {
    fleets.filter(|name| catalog.fleet(name).is_some_and(|fleet| fleet.rollout.is_some())).cloned().collect()
}

impl Canaries {
    /// Whether `proxy` is among them.
    pub fn are(&self, proxy: &Who<'_>) -> bool {
        match self {
            Self::Named(ids) => ids.contains(proxy.id),
            Self::Labelled(labels) => labels.iter().all(|(name, value)| proxy.labels.get(name) == Some(value)),
        }
    }
}

impl Rejections {
    /// Notes one, and tells who waits for it.
    pub fn note(&self, rejection: CanaryRejection) {
        *self.last.lock() = Some(rejection);
        self.changed.notify_one();
    }

    /// Tells who waits for them that a canary has acknowledged something, or has gone.
    pub fn tell(&self) {
        self.changed.notify_one();
    }
}

impl Target {
    /// Everything that `fleet` gets at `catalog`.
    pub fn full(catalog: &Catalog, fleet: &Name) -> Self {
        Self::between(&Catalog::empty(), catalog, fleet)
    }

    /// What is different for `fleet` at `to`, seen from `from`, of which one may be the older.
    pub fn between(from: &Catalog, to: &Catalog, fleet: &Name) -> Self {
        let mut fleets = snapshot::changes(from, to, &from.different(to));
        let taking = endpoints::all_taking(to).into_keys().collect();
        Self { changes: fleets.remove(fleet).unwrap_or_default(), taking }
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.changes.put.is_empty() && self.changes.removed.is_empty()
    }
}

impl Fleet {
    /// Its revisions come in stages from now on.
    pub(super) fn stage(&mut self, revision: u64, changed: &Arc<Notify>) {
        let Self { main, staged, ended } = self;
        staged.get_or_insert_with(|| Staged {
            since: revision,
            canary: main.fork(),
            canaries: Canaries::Named(BTreeSet::new()),
            rejections: Arc::new(Rejections { last: Mutex::default(), changed: changed.clone() }),
            ended: ended.child_token(),
        });
    }
}

impl Publisher {
    /// What a proxy is served that nothing is known of.
    #[cfg(test)]
    pub(crate) fn serve_anybody(&self, fleet: &Name, form: super::RouteForm) -> Option<super::Served> {
        let id = "anybody".parse().expect("a name");
        self.serve(fleet, form, &Who { id: &id, labels: &BTreeMap::new() })
    }

    /// Told when something happens to a fleet that gets its revisions in stages: a revision, or what canaries say of one.
    pub fn staged_changed(&self) -> Arc<Notify> {
        self.staged_changed.clone()
    }

    /// The fleets that get their revisions in stages, and after which revision that began.
    pub fn staged(&self) -> BTreeMap<Name, u64> {
        let fleets = self.fleets.lock();
        let staged = fleets.iter().filter_map(|(name, fleet)| Some((name.clone(), fleet.staged.as_ref()?.since)));
        staged.collect()
    }

    /// Fills both parts of `fleet` with what they were served before, at `revision`.
    pub fn fill(&self, fleet: &Name, revision: u64, target: Target) {
        let mut fleets = self.fleets.lock();
        let registered = self.registered.lock();
        let Some(Fleet { main, staged: Some(staged), .. }) = fleets.get_mut(fleet) else { return };
        main.taking = Some(target.taking);
        main.publish(revision, target.changes, Known::Good, &registered);
        staged.canary = main.fork();
    }

    /// Moves a part of `fleet` to what it has at `revision`. What it has there already, or has been served before, is not on trial.
    pub fn move_part(&self, fleet: &Name, part: Part, revision: u64, target: Target) {
        let mut fleets = self.fleets.lock();
        let registered = self.registered.lock();
        let Some(Fleet { main, staged: Some(staged), .. }) = fleets.get_mut(fleet) else { return };
        match part {
            Part::Main => main.move_to(revision, target, Known::Nothing, &registered),
            Part::Canary => staged.canary.move_to(revision, target, Known::As(main), &registered),
        }
    }

    /// Who of `fleet` gets revisions first, of those that connect from now on.
    pub fn choose(&self, fleet: &Name, canaries: Canaries) {
        if let Some(staged) = self.fleets.lock().get_mut(fleet).and_then(|fleet| fleet.staged.as_mut()) {
            staged.canaries = canaries;
        }
    }

    /// What a canary of `fleet` has rejected last, if it was of `sequence` or later.
    pub fn rejection(&self, fleet: &Name, sequence: u64) -> Option<CanaryRejection> {
        let fleets = self.fleets.lock();
        let last = fleets.get(fleet)?.staged.as_ref()?.rejections.last.lock().clone();
        last.filter(|rejection| rejection.sequence >= sequence)
    }

    /// Tells limiters of the limits of `fleet`.
    pub fn tell_domain(&self, fleet: &Name, domain: Option<Bytes>) {
        let fleets = self.fleets.lock();
        self.tell(self.revision(), [(fleet.clone(), domain)].into());
        drop(fleets);
    }

    /// Gives all of `fleet` what it has at `revision`, if that is the newest, and revisions as they come from then on. Canaries
    /// have to open their streams anew. Returns whether it was the newest.
    pub fn unstage(&self, fleet: &Name, revision: u64, main: Target) -> bool {
        let mut fleets = self.fleets.lock();
        let registered = self.registered.lock();
        let Some(fleet) = fleets.get_mut(fleet) else { return true };
        if self.revision() != revision {
            return false;
        }
        fleet.main.move_to(revision, main, Known::Nothing, &registered);
        fleet.main.taking = None;
        if let Some(staged) = fleet.staged.take() {
            staged.ended.cancel();
        }
        true
    }
}

impl Track {
    fn move_to(&mut self, revision: u64, target: Target, known: Known<'_>, registered: &Registered) {
        let Target { mut changes, taking } = target;
        let before = self.taking.replace(taking).unwrap_or_default();
        let after = self.taking.as_ref().into_iter().flatten();
        let other: Vec<&Name> = after.filter(|service| !before.contains(*service)).collect();
        for service in other.into_iter().chain(before.iter()) {
            let id = ResourceId::Endpoints(service.clone());
            if let Some(assignment) = self.assignments.get(service)
                && !changes.removed.contains(&id)
            {
                changes.put.entry(id).or_insert_with(|| assignment.clone());
            }
        }
        self.publish(revision, changes, known, registered);
    }
}
