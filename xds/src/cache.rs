//! What a group of clients is to have: the current resources, and a log of what changed.
//!
//! Every change is stamped with a sequence number given by the publisher (a revision of its
//! configuration, say). The log is compacted: each name stands in it once, at its last change. A stream
//! remembers the sequence it has seen and visits what was stamped since: work per change is
//! proportional to the change, never to the catalog.
//!
//! A removed resource leaves a tombstone with its last content, so that a removal can be held back until
//! nothing refers to it any more. Tombstones are bounded; a stream that has slept past one that was
//! dropped is told to start over ([`Table::changes_since`] returns `None`).
//!
//! The versions that a whole type has had lately are remembered too: a state-of-the-world client that
//! reconnects says only such a version, and what was removed since can still be held back for it.
//!
//! Invariant: sequences only grow, and all changes of one [`Cache::apply`] become visible at once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::Bound,
};

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::watch;

use crate::resource::{Name, Resource, TypeUrl};

/// How many removed resources of one type are remembered.
const MAX_TOMBSTONES: usize = 4096;

/// How many earlier versions of one type as a whole are remembered.
const MAX_PAST: usize = 1024;

/// The resources of one group of clients.
#[derive(Debug)]
pub struct Cache {
    tables: RwLock<Tables>,
    head: watch::Sender<u64>,
}

/// All types of a cache, at one sequence.
#[derive(Debug, Default)]
pub struct Tables {
    head: u64,
    by_type: HashMap<TypeUrl, Table>,
    none: Table,
}

/// The resources of one type.
#[derive(Debug, Default)]
pub struct Table {
    live: BTreeMap<Name, Entry>,
    tombstones: HashMap<Name, Entry>,
    log: BTreeMap<(u64, Name), Kept>,
    tombstone_log: BTreeSet<(u64, Name)>,
    forgotten: u64,
    /// The sum of the fingerprints of all live resources.
    fingerprint: u64,
    /// What `fingerprint` was, and the sequence that made it so; the newest last.
    past: VecDeque<(u64, u64)>,
}

#[derive(Debug)]
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

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self { tables: RwLock::default(), head: watch::Sender::new(0) }
    }
}

impl Cache {
    /// An empty cache at sequence 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies `update` as `sequence`, which must be above every earlier one that changed something.
    ///
    /// A resource that is set to the content it has, and the removal of one that is not there, change
    /// nothing. Returns whether anything changed; if not, no stream is woken.
    pub fn apply(&self, sequence: u64, update: Update) -> bool {
        let mut tables = self.tables.write();
        debug_assert!(sequence > tables.head || update.is_empty(), "sequences grow");
        let mut changed = false;
        for (type_url, resource) in update.upserts {
            changed |= tables.by_type.entry(type_url).or_default().upsert(sequence, resource);
        }
        for (type_url, name) in update.removals {
            if let Some(table) = tables.by_type.get_mut(&type_url) {
                changed |= table.remove(sequence, name);
            }
        }
        if changed {
            tables.head = sequence;
            drop(tables);
            // Never back: another writer may have been quicker since the lock was given up.
            self.head.send_if_modified(|head| sequence > *head && std::mem::replace(head, sequence) != sequence);
        }
        changed
    }

    /// The sequence of the last change.
    pub fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Marked changed with every sequence that is applied.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// All tables at one instant. Nothing may be awaited, or sent, while it is held.
    pub fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read()
    }
}

impl Tables {
    /// The sequence of the last change.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Whether a type has ever had a resource.
    pub fn has(&self, type_url: &str) -> bool {
        self.by_type.contains_key(type_url)
    }

    /// The table of a type; an empty one if it never had a resource.
    pub fn table(&self, type_url: &str) -> &Table {
        self.by_type.get(type_url).unwrap_or(&self.none)
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

    /// Whether there was a resource called `name` at `sequence`. Where that is not remembered, it says yes.
    pub(crate) fn had(&self, name: &str, sequence: u64) -> bool {
        let gone = self.tombstones.get(name);
        if gone.is_some_and(|entry| sequence >= entry.at) {
            return false;
        }
        let Some(entry) = self.live.get(name).or(gone) else { return false };
        match entry.before {
            _ if sequence >= entry.since => true,
            Some((from, until)) => sequence < from || sequence < until,
            None => false,
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
        let name = resource.name().clone();
        let mut fingerprint = self.fingerprint.wrapping_add(resource.fingerprint());
        if let Some(entry) = self.live.get_mut(&name) {
            if entry.resource.version() == resource.version() {
                return false;
            }
            fingerprint = fingerprint.wrapping_sub(entry.resource.fingerprint());
            self.log.remove(&(entry.at, name.clone()));
            *entry = Entry { resource, at, ..*entry };
        } else {
            let before = self.forget_tombstone(&name).map(|gone| (gone.since, gone.at));
            self.live.insert(name.clone(), Entry { resource, at, since: at, before });
        }
        self.log.insert((at, name), Kept::Live);
        self.become_version(at, fingerprint);
        true
    }

    fn remove(&mut self, at: u64, name: Name) -> bool {
        let Some(entry) = self.live.remove(&name) else { return false };
        self.become_version(at, self.fingerprint.wrapping_sub(entry.resource.fingerprint()));
        self.log.remove(&(entry.at, name.clone()));
        self.log.insert((at, name.clone()), Kept::Removed);
        self.tombstone_log.insert((at, name.clone()));
        self.tombstones.insert(name, Entry { at, ..entry });
        if self.tombstones.len() > MAX_TOMBSTONES
            && let Some((at, oldest)) = self.tombstone_log.pop_first()
        {
            self.tombstones.remove(&oldest);
            self.log.remove(&(at, oldest));
            self.forgotten = at;
        }
        true
    }

    fn become_version(&mut self, at: u64, fingerprint: u64) {
        self.fingerprint = fingerprint;
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
