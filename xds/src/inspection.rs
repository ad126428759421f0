//! Asking a stream what its client has.
//!
//! Only the task of a stream knows; it is asked through the stream's status, and answers between two things that it does.

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::{
    resource::{Name, Resource, TypeUrl},
    status::StreamStatus,
    subscription::Standing,
};

/// How many may ask a stream at once; more get no answer.
const MOST_ASKING: usize = 16;

/// What a client has of a resource that it asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspected {
    /// The type.
    pub type_url: TypeUrl,
    /// The name.
    pub name: Name,
    /// The newest version, if there is one.
    pub resource: Option<Resource>,
    /// What the client has of it.
    pub standing: Standing,
}

/// Those who ask, until they are answered.
#[derive(Debug, Default)]
pub(crate) struct Inspections {
    asking: Mutex<Asking>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Asking {
    waiting: Vec<oneshot::Sender<Vec<Inspected>>>,
    /// Nobody answers any more.
    over: bool,
}

impl Inspections {
    /// Returns when somebody asks. May be cancelled without loss.
    pub(crate) async fn asked(&self) {
        self.wake.notified().await;
    }

    /// Answers all who ask.
    pub(crate) fn answer(&self, inspect: impl FnOnce() -> Vec<Inspected>) {
        let waiting = std::mem::take(&mut self.asking.lock().waiting);
        if waiting.is_empty() {
            return;
        }
        let inspected = inspect();
        for waiting in waiting {
            // Who is gone needs no answer.
            let _ = waiting.send(inspected.clone());
        }
    }

    /// The stream has ended: who asks, or will, hears that at once.
    pub(crate) fn end(&self) {
        *self.asking.lock() = Asking { waiting: Vec::new(), over: true };
    }
}

impl StreamStatus {
    /// What the client has of each resource that it asked for. `None` if the stream has ended, or too many ask it. Give it a
    /// deadline: a stream that has not begun answers when it has.
    pub async fn inspect(&self) -> Option<Vec<Inspected>> {
        let (sender, answer) = oneshot::channel();
        {
            let mut asking = self.inspections.asking.lock();
            asking.waiting.retain(|waiting| !waiting.is_closed());
            if asking.over || asking.waiting.len() >= MOST_ASKING {
                return None;
            }
            asking.waiting.push(sender);
        }
        self.inspections.wake.notify_one();
        answer.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn all_who_ask_are_answered_until_the_stream_ends() {
        let status = Arc::new(StreamStatus::default());
        let ask = || {
            tokio::spawn({
                let status = status.clone();
                async move { status.inspect().await }
            })
        };
        let (one, two) = (ask(), ask());
        while status.inspections.asking.lock().waiting.len() < 2 {
            tokio::task::yield_now().await;
        }
        status.inspections.asked().await;
        status.inspections.answer(Vec::new);
        assert_eq!((one.await.unwrap(), two.await.unwrap()), (Some(Vec::new()), Some(Vec::new())));

        let many: Vec<_> = (0..=MOST_ASKING).map(|_| ask()).collect();
        while status.inspections.asking.lock().waiting.len() < MOST_ASKING {
            tokio::task::yield_now().await;
        }
        status.inspections.end();
        for asked in many {
            assert_eq!(asked.await.unwrap(), None);
        }
        assert_eq!(status.inspect().await, None);
    }
}
