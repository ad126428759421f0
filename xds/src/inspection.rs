//! Asking a stream what its client has.
//!
//! Only the task of a stream knows; it is asked through the stream's status, and answers between two things that it does.
//! Who asks has a deadline: a stream that has ended does not answer.

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
    asking: Mutex<Vec<oneshot::Sender<Vec<Inspected>>>>,
    wake: Notify,
}

impl Inspections {
    /// Returns when somebody asks. May be cancelled without loss.
    pub(crate) async fn asked(&self) {
        self.wake.notified().await;
    }

    /// Answers all who ask.
    pub(crate) fn answer(&self, inspect: impl FnOnce() -> Vec<Inspected>) {
        let asking = std::mem::take(&mut *self.asking.lock());
        if asking.is_empty() {
            return;
        }
        let inspected = inspect();
        for asking in asking {
            // Who is gone needs no answer.
            let _ = asking.send(inspected.clone());
        }
    }
}

impl StreamStatus {
    /// What the client has of each resource that it asked for; `None` if the stream does not say. Give it a deadline.
    pub async fn inspect(&self) -> Option<Vec<Inspected>> {
        let (sender, answer) = oneshot::channel();
        {
            let mut asking = self.inspections.asking.lock();
            asking.retain(|asking| !asking.is_closed());
            if asking.len() >= MOST_ASKING {
                return None;
            }
            asking.push(sender);
        }
        self.inspections.wake.notify_one();
        answer.await.ok()
    }
}
