//! What each fleet is served, and what rate limiters are: translated changes on their way into the caches.
//!
//! A cache is filled by revision: its sequence says which, so "this proxy has applied revision 7" needs no bookkeeping of its
//! own. Between two revisions there are steps, in which a fleet takes back what a proxy has rejected: see [`Shelf`].
//!
//! Routes are translated one virtual host at a time, and an Envoy that can take them so (VHDS) is sent
//! only the host that changed. For all others they are joined to the RouteConfiguration of their listener, from
//! encoded pieces; that second cache is filled when the first such client comes. Where a listener wants them whole, both
//! forms are in either cache under two names, and a proxy asks for one of them.
//!
//! Limiters share one cache with the domains of all fleets: a limiter may be asked by any of them. Those that are
//! envoyproxy/ratelimit share another (`peers`).

mod endpoints;
mod peers;
mod quarantine;
mod shelf;
mod staged;
mod track;
mod trails;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use chancery_proto::type_url;
use chancery_xds::{Cache, Resource, Update};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use quarantine::Place;
pub use shelf::{Cause, Id, Quarantined, Rejected, Shelf, revision_at, sequence_of};
pub use staged::{Canaries, CanaryRejection, Part, Rejections, Target, Who};
pub use trails::{Answer, Trails};

use self::{
    endpoints::Registered,
    peers::Peers,
    staged::Staged,
    track::{Known, Track},
};
use crate::{
    model::{Catalog, Key, Kind, Name},
    translate::{
        rate_limit,
        snapshot::{self, FleetChange, FleetChanges},
    },
};

/// The caches of all fleets, and that of the limiters.
#[derive(Default)]
pub struct Publisher {
    fleets: Mutex<HashMap<Name, Fleet>>,
    registered: Mutex<Registered>,
    limiters: Arc<Cache>,
    told: Mutex<Told>,
    /// The last that was published.
    revision: AtomicU64,
    quarantine_changed: Arc<Notify>,
    staged_changed: Arc<Notify>,
    trails: Arc<Trails>,
}

/// How far limiters are told of domains.
#[derive(Default)]
struct Told {
    sequence: u64,
    peers: Option<Peers>,
}

/// What a revision changes for those who are served.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// For the proxies of each fleet.
    pub fleets: BTreeMap<Name, FleetChanges>,
    /// Which services take endpoints that register themselves, of those that changed.
    pub taking: BTreeMap<Name, bool>,
    /// The fleets that get their revisions in stages, of those that changed.
    pub staged: BTreeSet<Name>,
    /// For limiters: the new content of a domain, or that it is gone.
    pub domains: BTreeMap<Name, Option<Bytes>>,
}

/// The form in which a client gets its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteForm {
    /// One virtual host at a time (VHDS).
    ByHost,
    /// One RouteConfiguration per listener, with everything in it.
    Whole,
}

/// What a stream is served from.
#[derive(Clone)]
pub struct Served {
    /// The resources.
    pub cache: Arc<Cache>,
    /// What hears of a proxy's verdicts on them; a limiter's are not asked for.
    pub shelf: Option<Arc<Shelf>>,
    /// What hears of what it rejects, if it is a canary.
    pub rejections: Option<Arc<Rejections>>,
    /// Cancelled when the fleet is deleted, or it is to be served from elsewhere. It is this stream's own.
    pub ended: CancellationToken,
}

#[derive(Default)]
struct Fleet {
    /// What all are served, unless its revisions are staged and they are canaries.
    main: Track,
    staged: Option<Staged>,
    ended: CancellationToken,
}

impl Fleet {
    fn tracks_mut(&mut self) -> impl Iterator<Item = &mut Track> {
        [&mut self.main].into_iter().chain(self.staged.as_mut().map(|staged| &mut staged.canary))
    }
}

impl Publisher {
    /// No fleets yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// No fleets yet, and what becomes of revisions is told of in `trails`.
    pub fn telling(trails: Trails) -> Self {
        Self { trails: Arc::new(trails), ..Self::default() }
    }

    /// Where it is told what becomes of revisions.
    pub fn trails(&self) -> &Arc<Trails> {
        &self.trails
    }

    /// What a stream of a proxy of `fleet` is served from, if there is such a fleet.
    pub fn serve(&self, fleet: &Name, form: RouteForm, proxy: &Who<'_>) -> Option<Served> {
        let mut fleets = self.fleets.lock();
        let Fleet { main, staged, ended } = fleets.get_mut(fleet)?;
        let canary = staged.as_mut().filter(|staged| staged.canaries.are(proxy));
        let rejections = canary.as_ref().map(|staged| staged.rejections.clone());
        let (track, ended) = match canary {
            Some(Staged { canary, ended, .. }) => (canary, &*ended),
            None => (main, &*ended),
        };
        let shelf = track.shelf(form);
        let ended = ended.child_token();
        Some(Served { cache: shelf.cache().clone(), shelf: Some(shelf), rejections, ended })
    }

    /// The revision that is published.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Whether there is such a fleet.
    pub fn has(&self, fleet: &Name) -> bool {
        self.fleets.lock().contains_key(fleet)
    }

    /// What is cancelled when the fleet is deleted, if there is such a fleet.
    pub fn ended(&self, fleet: &Name) -> Option<CancellationToken> {
        self.fleets.lock().get(fleet).map(|fleet| fleet.ended.clone())
    }

    /// What a limiter is served from.
    pub fn serve_limiter(&self) -> Served {
        Served::limiter(self.limiters.clone())
    }

    /// What a limiter is served from that is envoyproxy/ratelimit.
    pub fn serve_peer(&self) -> Served {
        let mut told = self.told.lock();
        let peers = told.peers.get_or_insert_with(|| Peers::new(&self.limiters));
        Served::limiter(peers.cache())
    }

    /// Fills the caches with what has been served before, at `revision`.
    pub fn load(&self, revision: u64, changes: Changes) {
        self.bring(revision, changes, Known::Good);
    }

    /// Brings the caches to `revision`, with what is new on trial. Limiters come first, so that they know a limit when proxies
    /// begin to ask about it.
    pub fn publish(&self, revision: u64, changes: Changes) {
        self.bring(revision, changes, Known::Nothing);
    }

    fn bring(&self, revision: u64, mut changes: Changes, known: Known<'_>) {
        let mut fleets = self.fleets.lock();
        if matches!(known, Known::Good) {
            // What these are served is filled in by whoever knows how far they are.
            for name in std::mem::take(&mut changes.staged) {
                fleets.entry(name).or_default().stage(revision, &self.staged_changed);
            }
        }
        let deleted = |name: &Name| changes.fleets.get(name).is_some_and(|fleet| fleet.fleet == FleetChange::Deleted);
        changes.domains.retain(|name, _| deleted(name) || fleets.get(name).is_none_or(|fleet| fleet.staged.is_none()));
        if !changes.domains.is_empty() {
            let _step = self.trails.publish(revision, None);
            self.tell(revision, changes.domains);
        }
        let mut registered = self.registered.lock();
        let different = registered.take(changes.taking);
        for (name, changes) in changes.fleets {
            match changes.fleet {
                FleetChange::Created | FleetChange::Kept => {
                    let fleet = fleets.entry(name.clone()).or_default();
                    if fleet.staged.is_none() {
                        let _step = self.trails.publish(revision, Some(&name));
                        fleet.main.publish(revision, changes, known, &registered);
                    }
                }
                FleetChange::Deleted => {
                    if let Some(fleet) = fleets.remove(&name) {
                        fleet.ended.cancel();
                    }
                }
            }
        }
        for name in changes.staged {
            if let Some(fleet) = fleets.get_mut(&name) {
                fleet.stage(revision, &self.staged_changed);
            }
        }
        endpoints::reassign(fleets.values_mut().flat_map(Fleet::tracks_mut), revision, &different, &registered);
        self.revision.store(revision, Ordering::Release);
        self.staged_changed.notify_one();
    }

    /// Tells limiters of domains.
    fn tell(&self, revision: u64, domains: BTreeMap<Name, Option<Bytes>>) {
        let mut told = self.told.lock();
        told.sequence = sequence_of(revision).max(told.sequence + 1);
        let sequence = told.sequence;
        if let Some(peers) = &mut told.peers {
            peers.publish(sequence, &domains);
        }
        let mut update = Update::default();
        for (name, bytes) in domains {
            match bytes {
                Some(bytes) => {
                    let resource = Resource::new(type_url::RATE_LIMIT_DOMAIN, name.as_str(), &bytes);
                    update.upsert(type_url::RATE_LIMIT_DOMAIN, resource);
                }
                None => update.remove(type_url::RATE_LIMIT_DOMAIN, name.as_str()),
            }
        }
        self.limiters.apply(sequence, update);
    }
}

impl Served {
    fn limiter(cache: Arc<Cache>) -> Self {
        Self { cache, shelf: None, rejections: None, ended: CancellationToken::new() }
    }
}

impl Changes {
    /// Everything, for a start.
    pub fn full(catalog: &Catalog) -> Self {
        let domains = rate_limit::all(catalog).into_iter().map(|(name, bytes)| (name, Some(bytes))).collect();
        Self {
            fleets: snapshot::full(catalog),
            taking: endpoints::all_taking(catalog),
            staged: staged::staged(catalog, catalog.fleets().map(|fleet| &fleet.name)),
            domains,
        }
    }

    /// What the changes to the resources `changed`, which lead from `before` to `after`, mean for everybody.
    pub fn between(before: &Catalog, after: &Catalog, changed: &[Key]) -> Self {
        Self {
            fleets: snapshot::changes(before, after, changed),
            taking: endpoints::taking(after, changed),
            staged: staged::staged(after, changed.iter().filter(|key| key.kind == Kind::Fleet).map(|key| &key.name)),
            domains: rate_limit::changes(before, after, changed),
        }
    }
}

#[cfg(test)]
mod tests;
