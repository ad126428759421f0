//! Which proxies have changed since others were last told of them.
//!
//! A set, not a list of changes: what is told is how the proxy is then. Who came, went or refused something is told
//! first, and within these two sorts who has waited longest. There are never more in it than proxies that are known.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::ProxyId;

/// From here on are the places of those who can wait.
const CAN_WAIT: u64 = 1 << 63;

/// The proxies that have changed.
#[derive(Debug, Default)]
pub(super) struct Changed {
    inner: Mutex<Inner>,
    /// How often something was taken out.
    takes: AtomicU64,
}

/// When one proxy was marked last: until something is taken out, it is still marked, and the lock that all share
/// need not be asked.
#[derive(Debug)]
pub(super) struct Marked(AtomicU64);

impl Default for Marked {
    fn default() -> Self {
        Self(AtomicU64::new(u64::MAX))
    }
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    places: HashMap<Arc<ProxyId>, u64>,
    order: BTreeMap<u64, Arc<ProxyId>>,
}

impl Changed {
    /// `proxy`, which was marked last when `marked` says, has changed.
    pub(super) fn mark_unless(&self, marked: &Marked, proxy: &Arc<ProxyId>) {
        // Whoever takes it out counts that first and looks at the proxy afterwards, so finds this change as well.
        let takes = self.takes.load(Ordering::Acquire);
        if marked.0.swap(takes, Ordering::Relaxed) != takes {
            self.mark(proxy);
        }
    }

    /// `proxy` has changed.
    pub(super) fn mark(&self, proxy: &Arc<ProxyId>) {
        let mut inner = self.inner.lock();
        if !inner.places.contains_key(proxy) {
            inner.place(proxy, CAN_WAIT);
        }
    }

    /// `proxy` has changed in a way that is to be told before others.
    pub(super) fn mark_first(&self, proxy: &Arc<ProxyId>) {
        let mut inner = self.inner.lock();
        match inner.places.get(proxy).copied() {
            Some(place) if place < CAN_WAIT => return,
            Some(place) => drop(inner.order.remove(&place)),
            None => {}
        }
        inner.place(proxy, 0);
    }

    /// Nothing is to be told of `proxy` any more.
    pub(super) fn forget(&self, proxy: &ProxyId) {
        let mut inner = self.inner.lock();
        self.takes.fetch_add(1, Ordering::AcqRel);
        if let Some(place) = inner.places.remove(proxy) {
            inner.order.remove(&place);
        }
    }

    /// Takes out those whose turn it is, `most` of them.
    pub(super) fn take(&self, most: usize) -> Vec<Arc<ProxyId>> {
        let mut inner = self.inner.lock();
        self.takes.fetch_add(1, Ordering::AcqRel);
        let Inner { places, order, .. } = &mut *inner;
        let taken: Vec<_> = std::iter::from_fn(|| order.pop_first()).take(most).map(|(_, proxy)| proxy).collect();
        for proxy in &taken {
            places.remove(proxy);
        }
        taken
    }
}

impl Inner {
    fn place(&mut self, proxy: &Arc<ProxyId>, from: u64) {
        self.places.insert(proxy.clone(), from + self.next);
        self.order.insert(from + self.next, proxy.clone());
        self.next += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_wait_goes_first_and_each_goes_once() {
        let changed = Changed::default();
        let proxy = |id: &str| Arc::new(ProxyId { fleet: None, id: id.parse().unwrap() });
        for id in ["a", "b", "a", "c", "d"] {
            changed.mark(&proxy(id));
        }
        changed.mark_first(&proxy("c"));
        changed.mark_first(&proxy("e"));
        changed.mark(&proxy("c"));
        changed.forget(&proxy("b"));
        let take = |most| changed.take(most).iter().map(|proxy| proxy.id.to_string()).collect::<Vec<_>>();
        assert_eq!(take(3), ["c", "e", "a"]);
        changed.mark(&proxy("a"));
        assert_eq!(take(9), ["d", "a"]);
        assert!(take(1).is_empty());
    }

    #[test]
    fn who_is_marked_is_marked_again_once_it_was_taken_or_forgotten() {
        let (changed, marked) = (Changed::default(), Marked::default());
        let proxy = Arc::new(ProxyId { fleet: None, id: "a".parse().unwrap() });
        for _ in 0..2 {
            changed.mark_unless(&marked, &proxy);
            changed.mark_unless(&marked, &proxy);
            assert_eq!(changed.take(9).len(), 1);
        }
        changed.mark_unless(&marked, &proxy);
        changed.forget(&proxy);
        changed.mark_unless(&marked, &proxy);
        assert_eq!(changed.take(9).len(), 1);
    }
}
