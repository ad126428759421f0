//! Sets of names, each kept once however many ask for it.
//!
//! The proxies of a fleet ask for the endpoints of the same clusters, thousands of names each. A set is found again by its
//! digest, the sum of keyed hashes of the names, which is known for the next set before that is made: a proxy that asks
//! for what others have asked for costs a look and no memory. The key is drawn by each process, so nobody who
//! chooses names can choose where the digests of two sets meet.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, LazyLock, Weak},
};

use imbl::OrdSet;
use parking_lot::Mutex;

use crate::resource::Name;

/// How many sets are remembered before those are looked for that nobody has any more.
const LEAST_SWEEP: usize = 64;

/// Of the hashes.
static KEY: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one("names"));

/// A set of names. Cloning shares what is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NameSet {
    names: OrdSet<Name>,
    digest: u128,
}

impl NameSet {
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// In order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Name> {
        self.names.iter()
    }

    fn insert(&mut self, name: Name) {
        let digest = digest(&name);
        if self.names.insert(name).is_none() {
            self.digest = self.digest.wrapping_add(digest);
        }
    }

    fn remove(&mut self, name: &str) {
        if self.names.remove(name).is_some() {
            self.digest = self.digest.wrapping_sub(digest(name));
        }
    }
}

fn digest(name: &str) -> u128 {
    xxhash_rust::xxh3::xxh3_128_with_seed(name.as_bytes(), *KEY)
}

/// The sets that somebody has.
#[derive(Debug, Default)]
pub(crate) struct NameSets {
    sets: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_digest: HashMap<u128, Weak<NameSet>>,
    /// At how many those are left out that nobody has any more.
    sweep_at: usize,
}

impl NameSets {
    /// `set` with `names` as well, each as `shared` makes it.
    pub(crate) fn with<'n>(
        &self,
        set: &Arc<NameSet>,
        names: impl Iterator<Item = &'n str> + Clone,
        shared: impl Fn(&str) -> Name,
    ) -> Arc<NameSet> {
        let new = names.filter(|name| !set.contains(name));
        let next = new.clone().fold(set.digest, |sum, name| sum.wrapping_add(digest(name)));
        // A name that is said twice makes another digest; then the set is made, and found by its own.
        if let Some(known) = self.known(next) {
            return known;
        }
        let mut made = NameSet::clone(set);
        new.for_each(|name| made.insert(shared(name)));
        self.kept(made)
    }

    /// `set` without `names`.
    pub(crate) fn without<'n>(&self, set: &NameSet, names: impl Iterator<Item = &'n str>) -> Arc<NameSet> {
        let mut made = set.clone();
        names.for_each(|name| made.remove(name));
        self.kept(made)
    }

    fn known(&self, digest: u128) -> Option<Arc<NameSet>> {
        self.sets.lock().by_digest.get(&digest)?.upgrade()
    }

    /// The one set that is as `made` is.
    fn kept(&self, made: NameSet) -> Arc<NameSet> {
        let mut sets = self.sets.lock();
        if let Some(known) = sets.by_digest.get(&made.digest).and_then(Weak::upgrade) {
            return known;
        }
        if sets.by_digest.len() >= sets.sweep_at.max(LEAST_SWEEP) {
            sets.by_digest.retain(|_, set| set.strong_count() > 0);
            sets.sweep_at = 2 * sets.by_digest.len();
        }
        let made = Arc::new(made);
        sets.by_digest.insert(made.digest, Arc::downgrade(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(sets: &NameSets, set: &Arc<NameSet>, names: &[&str]) -> Arc<NameSet> {
        sets.with(set, names.iter().copied(), |name| name.into())
    }

    fn names(set: &NameSet) -> Vec<&str> {
        set.iter().map(|name| &**name).collect()
    }

    #[test]
    fn who_asks_for_the_same_has_the_same_set_however_it_came_to_it() {
        let (sets, none) = (NameSets::default(), Arc::default());
        let both = with(&sets, &none, &["b", "a"]);
        assert_eq!(names(&both), ["a", "b"]);
        let one_by_one = with(&sets, &with(&sets, &none, &["a"]), &["b"]);
        let said_twice = with(&sets, &with(&sets, &none, &["a", "b", "a"]), &["b"]);
        let given_up = sets.without(&with(&sets, &none, &["c", "a", "b"]), ["c", "c", "d"].into_iter());
        for other in [one_by_one, said_twice, given_up] {
            assert!(Arc::ptr_eq(&both, &other), "{other:?}");
        }
        assert_eq!(names(&with(&sets, &both, &["c"])), ["a", "b", "c"]);
        assert_eq!(names(&both), ["a", "b"], "what others have stays as it is");
    }

    #[test]
    fn a_set_that_nobody_has_is_forgotten() {
        let sets = NameSets::default();
        let kept: Vec<_> = (0..10).map(|one| with(&sets, &Arc::default(), &[&format!("kept-{one}")])).collect();
        for one in 0..100 * LEAST_SWEEP {
            with(&sets, &kept[0], &[&one.to_string()]);
        }
        assert!(sets.sets.lock().by_digest.len() <= LEAST_SWEEP + kept.len());
        assert!(Arc::ptr_eq(&kept[9], &with(&sets, &Arc::default(), &["kept-9"])));
    }
}
