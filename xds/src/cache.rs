//! What a group of clients is to have: the current resources, and a log of what changed.
//!
//! Every change is stamped with a sequence number given by the publisher (a revision of its
//! configuration, say). The log is compacted: each name stands in it once, at its last change. A stream
//! remembers the sequence it has seen and visits what was stamped since: work per change is
//! proportional to the change, never to the catalog.
//!
//! A removed resource leaves a tombstone with its last content, so that a removal can be held back until
//! nothing refers to it any more. Tombstones are bounded, except that those of the newest change all stay: a client
//! that is one change behind can always follow. A stream that has slept past one that was dropped is told to start
//! over ([`Table::changes_since`] returns `None`).
//!
//! The versions that a whole type has had lately are remembered too: a state-of-the-world client that
//! reconnects says only such a version, and what was removed since can still be held back for it.
//!
//! A stream works through one [`Tables`] while newer ones are made, so they never change once they are published:
//! persistent maps, which share what is the same. Looking takes no lock that a publisher could wait for.
//!
//! Invariant: sequences only grow, and all changes of one [`Cache::apply`] become visible at once.

mod watch;

use std::{collections::HashMap, ops::Bound, sync::Arc};

use imbl::{OrdMap, OrdSet, Vector};
use parking_lot::{Mutex, RwLock};

pub(crate) use self::watch::Watch;
use self::watch::Watches;
use crate::{
    names::NameSets,
    order::Place,
    resource::{Name, Resource, TypeUrl},
};

/// How many removed resources of one type are remembered, beside those of the newest change.
const MAX_TOMBSTONES: usize = 4096;

/// How many earlier versions of one type as a whole are remembered.
const MAX_PAST: usize = 1024;

/// The resources of one group of clients.
#[derive(Debug, Default)]
pub struct Cache {
    tables: RwLock<Arc<Tables>>,
    /// Held by the one who makes the next tables.
    applying: Mutex<()>,
    watches: Watches,
}

/// All types of a cache, at one sequence.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    head: u64,
    /// Of the types that have a place of their own: streams look at them all the time.
    placed: [Arc<Table>; Place::OWN],
    others: HashMap<TypeUrl, Arc<Table>>,
    none: Arc<Table>,
}

/// The resources of one type.
#[derive(Clone, Debug, Default)]
pub struct Table {
    live: OrdMap<Name, Entry>,
    tombstones: OrdMap<Name, Entry>,
    log: OrdMap<(u64, Name), Kept>,
    tombstone_log: OrdSet<(u64, Name)>,
    forgotten: u64,
    /// The sum of the fingerprints of all live resources.
    fingerprint: u64,
    /// What `fingerprint` was, and the sequence that made it so; the newest last.
    past: Vector<(u64, u64)>,
    /// The sequence of the newest: every stream looks at it with every change of any type.
    changed_at: u64,
    /// What clients have asked for by name.
    asked_for: Arc<NameSets>,
}

#[derive(Clone, Debug)]
struct Entry {
    resource: Resource,
    /// When it got this content, or was removed.
    at: u64,
    /// Since when it has been there, or from when on it was.
    since: u64,
    /// From when until when it was there the time before.
    before: Option<(u64, u64)>,
}

/// Whether a name in the log still has a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was set.
    Live,
    /// It was removed.
    Removed,
}

/// Changes to be applied together.
#[derive(Debug, Default)]
pub struct Update {
    upserts: Vec<(TypeUrl, Resource)>,
    removals: Vec<(TypeUrl, Name)>,
    renewals: Vec<(TypeUrl, Name)>,
}

impl Update {
    /// Sets a resource.
    pub fn upsert(&mut self, type_url: impl Into<TypeUrl>, resource: Resource) {
        self.upserts.push((type_url.into(), resource));
    }

    /// Removes a resource.
    pub fn remove(&mut self, type_url: impl Into<TypeUrl>, name: impl Into<Name>) {
        self.removals.push((type_url.into(), name.into()));
    }

    /// Has a resource sent once more as it is, to those who have it and to those who have not. One that is not there is
    /// let be.
    pub fn renew(&mut self, type_url: impl Into<TypeUrl>, name: impl Into<Name>) {
        self.renewals.push((type_url.into(), name.into()));
    }

    /// The resources to be set.
    pub fn upserts(&self) -> &[(TypeUrl, Resource)] {
        &self.upserts
    }

    /// The names to be removed.
    pub fn removals(&self) -> &[(TypeUrl, Name)] {
        &self.removals
    }

    /// Leaves out the names that are not to be removed.
    pub fn retain_removals(&mut self, keep: impl FnMut(&(TypeUrl, Name)) -> bool) {
        self.removals.retain(keep);
    }

    /// Leaves out the resources that are not to be set.
    pub fn retain_upserts(&mut self, keep: impl FnMut(&(TypeUrl, Resource)) -> bool) {
        self.upserts.retain(keep);
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty() && self.renewals.is_empty()
    }
}

impl Cache {
    /// An empty cache at sequence 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another cache that begins as this one is, and goes its own way from here.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { tables: RwLock::new(self.snapshot()), ..Self::default() }
    }

    /// Applies `update` as `sequence`, which must be above every earlier one that changed something.
    ///
    /// A resource that is set to the content it has, and the removal of one that is not there, change
    /// nothing. Returns whether anything changed; if not, no stream is woken.
    ///
    /// # Panics
    ///
    /// If `update` would change something and `sequence` is not above the last one: streams that have seen that
    /// sequence would never hear of it. Nothing is changed then.
    pub fn apply(&self, sequence: u64, update: Update) -> bool {
        let applying = self.applying.lock();
        let before = self.snapshot();
        let mut tables = Tables::clone(&before);
        if !tables.apply(sequence, update) {
            return false;
        }
        assert!(sequence > before.head, "sequence {sequence} does not follow {}", before.head);
        *self.tables.write() = Arc::new(tables);
        self.watches.tell();
        drop(applying);
        true
    }

    /// The sequence of the last change.
    pub fn head(&self) -> u64 {
        self.tables.read().head
    }

    /// Hears of every sequence that is applied from now on.
    pub(crate) fn watch(&self) -> Watch {
        self.watches.add()
    }

    /// All tables as they are now. They stay as they are, however long they are held.
    pub fn snapshot(&self) -> Arc<Tables> {
        self.tables.read().clone()
    }
}

impl Tables {
    /// The sequence of the last change.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Whether a type has ever had a resource.
    pub fn has(&self, type_url: &str) -> bool {
        !self.table(type_url).is_untouched()
    }

    /// The table of a type; an empty one if it never had a resource.
    pub fn table(&self, type_url: &str) -> &Table {
        self.table_at(Place::of(type_url), type_url)
    }

    /// The same, for one who knows its place.
    pub(crate) fn table_at(&self, place: Place, type_url: &str) -> &Table {
        match place {
            Place::Last => self.others.get(type_url).unwrap_or(&self.none),
            place => &self.placed[place as usize],
        }
    }

    fn table_mut(&mut self, type_url: &TypeUrl) -> &mut Table {
        let table = match Place::of(type_url) {
            Place::Last => self.others.entry(type_url.clone()).or_default(),
            place => &mut self.placed[place as usize],
        };
        Arc::make_mut(table)
    }

    /// Whether anything changed. What is both set and removed is set: its old owner gave it up, and a new one has it.
    fn apply(&mut self, at: u64, update: Update) -> bool {
        let mut changed = false;
        for (type_url, name) in update.removals {
            changed |= self.table_mut(&type_url).remove(at, &name);
        }
        for (type_url, resource) in update.upserts {
            changed |= self.table_mut(&type_url).upsert(at, resource);
        }
        for (type_url, name) in update.renewals {
            changed |= self.table_mut(&type_url).renew(at, &name);
        }
        if changed {
            self.head = at;
            let tables = self.placed.iter_mut().chain(self.others.values_mut());
            tables.filter(|table| table.forgets(at)).for_each(|table| Arc::make_mut(table).forget(at));
        }
        changed
    }
}

impl Table {
    /// The resource called `name`.
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.live.get(name).map(|entry| &entry.resource)
    }

    /// The last content of a removed resource, as long as it is remembered.
    pub fn removed(&self, name: &str) -> Option<&Resource> {
        self.tombstones.get(name).map(|entry| &entry.resource)
    }

    /// The last content of every removed resource that is remembered, by name.
    pub fn removed_resources(&self) -> impl Iterator<Item = &Resource> {
        self.tombstones.values().map(|entry| &entry.resource)
    }

    /// The sum of the fingerprints of all resources.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// `name` as everyone who reads this table shares it.
    pub(crate) fn shared(&self, name: &str) -> Name {
        let known = self.live.get_key_value(name).or_else(|| self.tombstones.get_key_value(name));
        known.map_or_else(|| Name::from(name), |(known, _)| known.clone())
    }

    /// The sets of names that clients have asked for.
    pub(crate) fn asked_for(&self) -> &NameSets {
        &self.asked_for
    }

    /// Whether there was a resource called `name` at `sequence`; none if that is not remembered.
    pub(crate) fn had(&self, name: &str, sequence: u64) -> Option<bool> {
        let gone = || self.tombstones.get(name).filter(|entry| sequence < entry.at);
        let Some(entry) = self.live.get(name).or_else(gone) else { return Some(false) };
        match entry.before {
            _ if sequence >= entry.since => Some(true),
            Some((from, _)) if sequence < from => None,
            Some((_, until)) => Some(sequence < until),
            None => Some(false),
        }
    }

    /// The newest sequence at which the fingerprints of all resources had this sum, if it is remembered.
    pub(crate) fn sequence_of(&self, fingerprint: u64) -> Option<u64> {
        self.past.iter().rev().find(|(past, _)| *past == fingerprint).map(|(_, at)| *at)
    }

    /// Every resource, by name.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.live.values().map(|entry| &entry.resource)
    }

    /// The resources whose names start with `name` and a slash.
    pub fn resources_below(&self, name: &str) -> impl Iterator<Item = &Resource> {
        let prefix = format!("{name}/");
        let from = Bound::Included(Name::from(prefix.as_str()));
        let rest = self.live.range((from, Bound::Unbounded));
        rest.take_while(move |(name, _)| name.starts_with(&prefix)).map(|(_, entry)| &entry.resource)
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there is no resource.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// The sequence of the last change; 0 if there was none.
    pub(crate) fn changed_at(&self) -> u64 {
        self.changed_at
    }

    /// Whether it never had a resource.
    fn is_untouched(&self) -> bool {
        self.past.is_empty()
    }

    /// The names that changed after `sequence`, each once, or `None` if removals since then
    /// have been forgotten.
    pub fn changes_since(&self, sequence: u64) -> Option<impl Iterator<Item = (&Name, Kept)>> {
        (sequence >= self.forgotten).then(|| {
            let after = match sequence.checked_add(1) {
                Some(next) => Bound::Included((next, Name::from(""))),
                None => Bound::Excluded((u64::MAX, Name::from(""))),
            };
            self.log.range((after, Bound::Unbounded)).map(|((_, name), kept)| (name, *kept))
        })
    }

    fn upsert(&mut self, at: u64, resource: Resource) -> bool {
        let name = self.shared(resource.name());
        let resource = resource.named(name.clone());
        let mut fingerprint = self.fingerprint.wrapping_add(resource.fingerprint());
        if let Some(old) = self.live.get(&name) {
            if old.resource.version() == resource.version() {
                return false;
            }
            fingerprint = fingerprint.wrapping_sub(old.resource.fingerprint());
            self.log.remove(&(old.at, name.clone()));
            let entry = Entry { resource, at, ..*old };
            self.live.insert(name.clone(), entry);
        } else {
            let before = self.forget_tombstone(&name).map(|gone| (gone.since, gone.at));
            self.live.insert(name.clone(), Entry { resource, at, since: at, before });
        }
        self.log.insert((at, name), Kept::Live);
        self.become_version(at, fingerprint);
        true
    }

    fn remove(&mut self, at: u64, name: &Name) -> bool {
        let Some((name, entry)) = self.live.remove_with_key(name) else { return false };
        self.become_version(at, self.fingerprint.wrapping_sub(entry.resource.fingerprint()));
        self.log.remove(&(entry.at, name.clone()));
        self.log.insert((at, name.clone()), Kept::Removed);
        self.tombstone_log.insert((at, name.clone()));
        self.tombstones.insert(name, Entry { at, ..entry });
        true
    }

    /// Whether there are removals before `at` that are too many to be remembered.
    fn forgets(&self, at: u64) -> bool {
        self.tombstones.len() > MAX_TOMBSTONES && self.tombstone_log.get_min().is_some_and(|(oldest, _)| *oldest < at)
    }

    /// Forgets the oldest removals before `at`, as far as there are too many.
    fn forget(&mut self, at: u64) {
        while self.forgets(at) {
            let Some((then, name)) = self.tombstone_log.remove_min() else { return };
            self.tombstones.remove(&name);
            self.log.remove(&(then, name));
            self.forgotten = then;
        }
    }

    fn renew(&mut self, at: u64, name: &Name) -> bool {
        let Some((name, entry)) = self.live.get_key_value(name).map(|(name, entry)| (name.clone(), entry.clone()))
        else {
            return false;
        };
        self.log.remove(&(entry.at, name.clone()));
        self.log.insert((at, name.clone()), Kept::Live);
        self.live.insert(name, Entry { at, ..entry });
        self.become_version(at, self.fingerprint);
        true
    }

    fn become_version(&mut self, at: u64, fingerprint: u64) {
        self.fingerprint = fingerprint;
        self.changed_at = at;
        match self.past.back_mut() {
            Some(last) if last.1 == at => last.0 = fingerprint,
            _ => self.past.push_back((fingerprint, at)),
        }
        if self.past.len() > MAX_PAST {
            self.past.pop_front();
        }
    }

    fn forget_tombstone(&mut self, name: &Name) -> Option<Entry> {
        let entry = self.tombstones.remove(name)?;
        let key = (entry.at, name.clone());
        self.tombstone_log.remove(&key);
        self.log.remove(&key);
        Some(entry)
    }
}

#[cfg(test)]
mod tests;
