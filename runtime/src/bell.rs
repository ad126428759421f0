//! A waker that can be held still while its own task runs.
//!
//! `h2` wakes the connection's task whenever a frame is queued, and it cannot know that the task itself queued it
//! and is about to flush. Every batch of answers would be followed by one poll for nothing. So `h2` gets this
//! waker: while held, it only remembers that it was rung. A task of several parts that gives each a bell of its own
//! knows which of them to poll.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Wake, Waker},
};

use futures_util::task::AtomicWaker;

/// The waker's inside.
#[derive(Default)]
pub struct Bell {
    task: AtomicWaker,
    held: AtomicBool,
    rung: AtomicBool,
}

impl Bell {
    /// From now on rings wake `task`, but not before [`release`](Self::release).
    pub fn hold(&self, task: &Waker) {
        self.task.register(task);
        self.held.store(true, SeqCst);
    }

    /// Forgets rings, as what they were about is seen to next. Whether there were any, while the task ran or before.
    pub fn forget(&self) -> bool {
        self.rung.swap(false, SeqCst)
    }

    /// Whether it was rung, and that is not forgotten.
    pub fn is_rung(&self) -> bool {
        self.rung.load(SeqCst)
    }

    /// Lets rings through again, and the one that was not forgotten.
    pub fn release(&self) {
        // In this order a ring from another thread is either seen here or goes through.
        self.held.store(false, SeqCst);
        if self.is_rung() {
            self.task.wake();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, SeqCst);
        if !self.held.load(SeqCst) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn rings_get_through_unless_held_and_forgotten() {
        let (bell, task) = (Arc::new(Bell::default()), Arc::new(Task::default()));
        let (ring, waker) = (Waker::from(bell.clone()), Waker::from(task.clone()));
        let woken = || task.0.swap(0, SeqCst);

        bell.hold(&waker);
        ring.wake_by_ref();
        bell.forget();
        bell.release();
        assert_eq!(woken(), 0);

        bell.hold(&waker);
        bell.forget();
        ring.wake_by_ref();
        assert_eq!(woken(), 0);
        bell.release();
        assert_eq!(woken(), 1);

        // A task is registered until it is woken, and finds why it was.
        bell.hold(&waker);
        bell.forget();
        bell.release();
        ring.wake_by_ref();
        ring.wake_by_ref();
        assert_eq!((woken(), bell.is_rung(), bell.forget(), bell.forget()), (1, true, true, false));
    }
}
