//! Who waits for a cache to change.
//!
//! Thousands of streams do, and each waits anew after each change. So each has a flag of its own that it registers once: to wait,
//! and to cease to, touches nothing that others share.

use std::{
    future::poll_fn,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// Hears of every change of a cache from when it was made: see [`Cache::watch`](super::Cache::watch). One task may wait for it.
#[derive(Debug)]
pub(crate) struct Watch(Arc<Flag>);

#[derive(Debug, Default)]
struct Flag {
    changed: AtomicBool,
    waker: AtomicWaker,
}

impl Watch {
    /// Returns when there was a change that was not heard of. May be cancelled without loss.
    pub(crate) async fn changed(&mut self) {
        poll_fn(|context| self.poll_changed(context)).await;
    }

    fn poll_changed(&self, context: &Context<'_>) -> Poll<()> {
        self.0.waker.register(context.waker());
        if self.0.changed.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// All changes until now count as heard of. Who looks at the cache afterwards finds them.
    pub(crate) fn mark_unchanged(&mut self) {
        self.0.changed.swap(false, Ordering::AcqRel);
    }
}

/// Those who are to hear of changes. Who is gone is forgotten in time.
#[derive(Debug, Default)]
pub(super) struct Watches(Mutex<Vec<Weak<Flag>>>);

impl Watches {
    pub(super) fn add(&self) -> Watch {
        let flag = Arc::default();
        let mut flags = self.0.lock();
        if flags.len() == flags.capacity() {
            flags.retain(|flag| flag.strong_count() > 0);
            // So that as many come before it is gone through again.
            let left = flags.len();
            flags.reserve(left.max(1));
        }
        flags.push(Arc::downgrade(&flag));
        Watch(flag)
    }

    /// There was a change, and it can be seen.
    pub(super) fn tell(&self) {
        self.0.lock().retain(|flag| {
            let Some(flag) = flag.upgrade() else { return false };
            flag.changed.store(true, Ordering::Release);
            flag.waker.wake();
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn each_hears_of_every_change_until_it_looked() {
        let watches = Watches::default();
        let [mut a, mut b] = [watches.add(), watches.add()];
        assert!(a.changed().now_or_never().is_none());
        watches.tell();
        assert!(a.changed().now_or_never().is_some());
        assert!(a.changed().now_or_never().is_none(), "it was heard of");
        watches.tell();
        a.mark_unchanged();
        assert!(a.changed().now_or_never().is_none());
        assert!(b.changed().now_or_never().is_some(), "what others have heard of is news to it");
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let watches = Arc::new(Watches::default());
        let mut watch = watches.add();
        let waiting = tokio::spawn(async move { watch.changed().await });
        tokio::task::yield_now().await;
        watches.tell();
        tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await.unwrap().unwrap();
    }

    #[test]
    fn who_is_gone_is_forgotten_without_a_change_too() {
        let watches = Watches::default();
        let stay: Vec<_> = (0..10).map(|_| watches.add()).collect();
        for _ in 0..1_000 {
            drop(watches.add());
        }
        assert!(watches.0.lock().len() < 50);
        watches.tell();
        assert_eq!(watches.0.lock().len(), stay.len());
    }
}
