//! One cache of a fleet, and what proxies say of its resources: what one rejects is taken back for all.
//!
//! A resource that a revision sets is *on trial* until a proxy has acknowledged it. If a proxy rejects it before, it is
//! *quarantined*: the fleet is served the last good version again (nothing, if there was none) until a revision sets or removes
//! it. All else keeps flowing.
//!
//! - What somebody has acknowledged is not taken back: one odd proxy takes nothing away from the others. Nor does it by being
//!   quicker than they: what they had been sent and acknowledge after its rejection is served again.
//! - A proxy may reject a response whose culprit its words do not name, and Envoy may have stopped taking the response at the
//!   culprit. So all of it that was on trial is taken back, and offered again one by one; what was in it besides is sent again.
//! - A fleet has a second shelf, if it has proxies that take their routes in another form. A verdict on what is the same on both
//!   counts for both.
//! - The clusters that a last good version sends to come back with it, if the revision that is taken back removed them, and stay for
//!   as long as it is served.
//! - A cluster of which there was no good version stays where it is: streams keep back what refers to it.
//! - What was there when this process started is not on trial: proxies that have it acknowledge nothing again.
//!
//! Invariant: the cache holds, of every name, what the newest revision set, except for what is quarantined. Sequences only grow:
//! those of a revision, and the steps between it and the next ([`sequence_of`]).

mod state;
mod verdict;

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, OnceLock, Weak},
    time::{Duration, Instant},
};

use chancery_proto::type_url;
use chancery_xds::{Cache, Name, Resource, TypeUrl, Update, Version};
use parking_lot::Mutex;

use self::state::{State, Trial};
pub use verdict::{Cause, Quarantined, Rejected};

/// Bits of a sequence that count the steps within a revision.
const STEP_BITS: u32 = 32;

/// How long the verdict on a resource that is offered alone holds up the next.
const ALONE: Duration = Duration::from_secs(5);

/// The sequence of the cache at which a revision is published.
pub fn sequence_of(revision: u64) -> u64 {
    revision << STEP_BITS
}

/// The revision that a sequence of a cache stands for: the newest that had something for it.
pub fn revision_at(sequence: u64) -> u64 {
    sequence >> STEP_BITS
}

/// A cache with its trials.
#[derive(Debug, Default)]
pub struct Shelf {
    cache: Arc<Cache>,
    state: Mutex<State>,
    /// The fleet's other shelf. Never called with the lock.
    other: OnceLock<Weak<Shelf>>,
}

/// Type and name of a resource.
pub type Id = (TypeUrl, Name);

impl Shelf {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The cache, to be read.
    pub fn cache(&self) -> &Arc<Cache> {
        &self.cache
    }

    /// The shelf of the same fleet for another form of routes, filled with `update`. What is the same on both and on trial here is on
    /// trial there.
    pub fn beside(self: &Arc<Self>, update: Update) -> Arc<Self> {
        let other = Self::new();
        {
            let state = self.state.lock();
            let mut there = other.state.lock();
            let (at, tables) = (state.sequence, self.cache.snapshot());
            let on_trial = update.upserts().iter().filter_map(|(type_url, resource)| {
                let id = (type_url.clone(), resource.name().clone());
                tables.table(type_url).resource(resource.name()).filter(|here| here.version() == resource.version())?;
                let good = state.trials.get(&id)?.good.clone();
                Some((id, Trial { good, at }))
            });
            there.trials = on_trial.collect();
            there.sequence = at;
            other.cache.apply(at, update);
        }
        let other = Arc::new(other);
        // Each is set here alone, once.
        let _ = other.other.set(Arc::downgrade(self));
        let _ = self.other.set(Arc::downgrade(&other));
        other
    }

    /// Another that begins as this one is, by itself.
    pub fn fork(&self) -> Self {
        let state = self.state.lock();
        Self { cache: Arc::new(self.cache.fork()), state: Mutex::new(state.clone()), other: OnceLock::new() }
    }

    /// Fills an empty shelf with what has been served before, at `sequence`.
    pub fn fill(&self, sequence: u64, update: Update) {
        let mut state = self.state.lock();
        state.sequence = sequence;
        self.cache.apply(sequence, update);
    }

    /// Brings the cache to `revision`. What is `known` to be bad is quarantined at once.
    pub fn publish(&self, revision: u64, mut update: Update, known: &BTreeMap<Id, Quarantined>) {
        let mut state = self.state.lock();
        let at = state.next(revision);
        let tables = self.cache.snapshot();
        let bad = state.keep_out(known, &tables, &mut update);
        let set: HashSet<(&TypeUrl, &Name)> = update.upserts().iter().map(|(of, set)| (of, set.name())).collect();
        for id in update.removals().iter().filter(|(of, name)| !set.contains(&(of, name))) {
            state.trials.remove(id);
            state.quarantined.remove(id);
        }
        // The same as what is quarantined is no reason to try it again.
        update.retain_upserts(|(type_url, resource)| {
            let quarantined = state.quarantined.get(&(type_url.clone(), resource.name().clone()));
            quarantined.is_none_or(|quarantined| quarantined.rejected.version() != resource.version())
        });
        for (type_url, resource) in update.upserts() {
            let id = (type_url.clone(), resource.name().clone());
            state.kept.remove(&id);
            let current = tables.table(type_url).resource(resource.name());
            let good = match (state.quarantined.remove(&id), state.trials.remove(&id)) {
                (Some(quarantined), _) => quarantined.good,
                (None, Some(trial)) => trial.good,
                (None, None) => current.cloned(),
            };
            if good.as_ref().map(Resource::version) != Some(resource.version()) {
                state.trials.insert(id, Trial { good, at });
            }
        }
        for (id, quarantined) in bad {
            state.trials.remove(&id);
            state.quarantined.insert(id, quarantined);
        }
        state.hold_on(&mut update);
        state.let_go(&mut update);
        self.cache.apply(at, update);
    }

    /// A proxy has applied a response. Returns whether that ended a quarantine.
    pub fn acknowledged(&self, type_url: &TypeUrl, sequence: u64, set: &[Name], now: Instant) -> bool {
        let (mut good, mut ended) = (Vec::new(), false);
        {
            let mut state = self.state.lock();
            if state.trials.is_empty() && state.quarantined.is_empty() {
                return false;
            }
            for name in set {
                let id = (type_url.clone(), name.clone());
                if state.quarantined.get(&id).is_some_and(|quarantined| quarantined.served.contains(&sequence)) {
                    // This crossed the rejection of another on the wire.
                    ended |= self.set_on_trial(&mut state, &id);
                } else if state.trials.get(&id).is_none_or(|trial| trial.at > sequence) {
                    continue;
                }
                ended |= self.pass(&mut state, &id, now);
                let tables = self.cache.snapshot();
                good.extend(tables.table(type_url).resource(name).map(|resource| (id, resource.version())));
            }
            self.let_go(&mut state);
        }
        if let Some(other) = self.other() {
            let mut state = other.state.lock();
            for (id, version) in good {
                ended |= other.pass_as(&mut state, &id, version, now);
            }
            other.let_go(&mut state);
        }
        ended
    }

    fn other(&self) -> Option<Arc<Self>> {
        self.other.get()?.upgrade()
    }

    /// Somebody has acknowledged what is on trial. Returns whether that ended a quarantine.
    fn pass(&self, state: &mut State, id: &Id, now: Instant) -> bool {
        state.trials.remove(id);
        let ended = state.alone.take_if(|(alone, _)| alone == id).is_some();
        if ended {
            self.offer(state, now);
        }
        ended
    }

    /// Somebody has acknowledged this version, as it was on the fleet's other shelf.
    fn pass_as(&self, state: &mut State, id: &Id, version: Version, now: Instant) -> bool {
        if state.quarantined.get(id).is_some_and(|quarantined| quarantined.rejected.version() == version) {
            self.set_on_trial(state, id);
            state.trials.remove(id);
            return true;
        }
        let tables = self.cache.snapshot();
        let same = tables.table(&id.0).resource(&id.1).is_some_and(|resource| resource.version() == version);
        same && self.pass(state, id, now)
    }

    /// A proxy has rejected a response. Returns the names that are quarantined for it.
    pub fn rejected(&self, rejected: &Rejected<'_>, now: Instant) -> Vec<Name> {
        let found = self.take_back(rejected, now);
        if let Some(other) = self.other() {
            for (id, Quarantined { rejected, good, cause, .. }) in found.clone() {
                other.quarantine(id, &rejected.version().to_string(), good, cause);
            }
        }
        found.into_iter().map(|((_, name), _)| name).collect()
    }

    fn take_back(&self, rejected: &Rejected<'_>, now: Instant) -> Vec<(Id, Quarantined)> {
        let Rejected { type_url, sequence, set, blamed: _, proxy, words, at } = *rejected;
        let mut state = self.state.lock();
        let on_trial = |state: &State, name: &Name| {
            state.trials.get(&(type_url.clone(), name.clone())).is_some_and(|trial| trial.at <= sequence)
        };
        let culprits = rejected.culprits(|name| on_trial(&state, name));
        let (mut update, tables) = (Update::default(), self.cache.snapshot());
        let mut quarantined = Vec::new();
        for name in culprits {
            let id = (type_url.clone(), name.clone());
            let (Some(trial), Some(resource)) = (state.trials.remove(&id), tables.table(type_url).resource(name))
            else {
                continue;
            };
            state.alone.take_if(|(alone, _)| *alone == id);
            match &trial.good {
                Some(good) => state.bring_back(&tables, type_url, good, &mut update),
                None if **type_url == *type_url::CLUSTER => continue,
                None => update.remove(type_url.clone(), name.clone()),
            }
            let cause = Cause { proxy: proxy.to_owned(), words: words.to_owned(), at, revision: revision_at(trial.at) };
            let served = trial.at..state.sequence + 1;
            let what = Quarantined { rejected: resource.clone(), good: trial.good, cause, served };
            state.quarantined.insert(id.clone(), what.clone());
            quarantined.push((id, what));
        }
        if quarantined.is_empty() {
            return quarantined;
        }
        if ![type_url::CLUSTER, type_url::LISTENER].contains(&&**type_url) {
            // Those it takes one by one, whatever is beside them.
            for name in set.iter().filter(|name| !quarantined.iter().any(|((_, taken), _)| taken == *name)) {
                update.renew(type_url.clone(), name.clone());
            }
        }
        if quarantined.len() > 1 {
            state.suspects.extend(quarantined.iter().map(|(id, _)| id.clone()));
        }
        let step = state.step();
        self.cache.apply(step, update);
        self.offer(&mut state, now);
        quarantined
    }

    /// Whether all that was rejected is good: it is served, and neither on trial nor quarantined.
    pub fn is_good(&self, rejected: &Rejected<'_>) -> bool {
        let (state, tables) = (self.state.lock(), self.cache.snapshot());
        let good = |name: &Name| {
            let id = (rejected.type_url.clone(), name.clone());
            let served = tables.table(rejected.type_url).resource(name).is_some();
            served && !state.trials.contains_key(&id) && !state.quarantined.contains_key(&id)
        };
        let culprits = rejected.culprits(|_| true);
        !culprits.is_empty() && culprits.into_iter().all(good)
    }

    /// Goes on to the next suspect if nobody says anything of the last. Returns whether a quarantine ended.
    pub fn tick(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let late = state.alone.take_if(|(_, since)| now >= *since + ALONE).is_some();
        if late {
            self.offer(&mut state, now);
        }
        late
    }

    /// What is quarantined.
    pub fn quarantined(&self) -> BTreeMap<Id, Quarantined> {
        self.state.lock().quarantined.clone()
    }

    /// Takes over what another replica has quarantined, or this one before it was started. Returns whether the fleet was to be served
    /// the rejected version; if it was not, there is nothing to be kept from it.
    pub fn quarantine(&self, id: Id, version: &str, good: Option<Resource>, cause: Cause) -> bool {
        let mut state = self.state.lock();
        let tables = self.cache.snapshot();
        let current = tables.table(&id.0).resource(&id.1).filter(|current| current.version().to_string() == version);
        let Some(rejected) = current.cloned() else { return false };
        let trial = state.trials.remove(&id);
        let mut update = Update::default();
        match &good {
            Some(good) => state.bring_back(&tables, &id.0, good, &mut update),
            None => update.remove(id.0.clone(), id.1.clone()),
        }
        let step = state.step();
        let served = trial.map_or(step, |trial| trial.at)..step;
        state.quarantined.insert(id, Quarantined { rejected, good, cause, served });
        self.cache.apply(step, update);
        true
    }

    /// Serves what was quarantined, on trial again. Returns whether it was.
    pub fn release(&self, id: &Id) -> bool {
        self.set_on_trial(&mut self.state.lock(), id)
    }

    /// Removes what was kept for last good versions that are needed no more.
    fn let_go(&self, state: &mut State) {
        let mut update = Update::default();
        state.let_go(&mut update);
        if !update.is_empty() {
            let step = state.step();
            self.cache.apply(step, update);
        }
    }

    /// Offers the next suspect.
    fn offer(&self, state: &mut State, now: Instant) {
        while state.alone.is_none()
            && let Some(id) = state.suspects.pop_front()
        {
            if self.set_on_trial(state, &id) {
                state.alone = Some((id, now));
            }
        }
    }

    fn set_on_trial(&self, state: &mut State, id: &Id) -> bool {
        let Some(Quarantined { rejected, good, .. }) = state.quarantined.remove(id) else { return false };
        let at = state.step();
        state.trials.insert(id.clone(), Trial { good, at });
        let mut update = Update::default();
        update.upsert(id.0.clone(), rejected);
        // What the last good version needs stays while this is on trial: it may come back.
        self.cache.apply(at, update);
        true
    }
}

#[cfg(test)]
mod tests;
