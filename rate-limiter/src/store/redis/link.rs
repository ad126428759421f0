//! A worker's way to Redis: one task, one connection.
//!
//! The task takes everything that is waiting and sends it in one call; while a few of them are under way the next lot
//! gathers. So under load a batch grows by itself, without load nobody waits for company, and the time that an answer takes
//! to travel is not lost. Redis takes the calls of a connection one after the other, so charges of a key stay in order. On
//! a cluster there is one call per slot, and they do not wait for each other.
//!
//! No caller ever waits for a connection: without one, [`Link::ask`] refuses at once. A charge that is not answered by its
//! deadline is given up, not taken back; that it may have counted makes a limit tighter, never looser.
//!
//! How a link ends: it is dropped. What still waits then is told so.

mod flight;
mod outage;
mod pipe;
mod serve;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use smallvec::SmallVec;
use tokio::{task::JoinHandle, time::Instant};

use super::{
    connect::Connector,
    metrics,
    queue::{Closed, Item, Queue},
    script::{Call, Reply},
    tended::tended,
    ticket::{Ticket, Wait},
};
use serve::Task;

/// Told what became of a noted call, which was sent (or given up) at the moment given.
pub(crate) type Settle = Arc<dyn Fn(&Call, Instant, Option<&Reply>) + Send + Sync>;

/// What a link needs besides the address.
#[derive(Clone)]
pub(crate) struct LinkOptions {
    /// How long a charge may take, counted from asking.
    pub(crate) timeout: Duration,
    /// Told what became of noted calls.
    pub(crate) settle: Settle,
    /// The time in ticks, instead of the server's. For tests.
    pub(crate) given_time: Option<Arc<AtomicU64>>,
}

/// A worker's way to Redis.
pub(crate) struct Link {
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

/// One charge to be sent, and whether what becomes of it is told to the leases.
pub(crate) struct Asked {
    pub(crate) call: Call,
    pub(crate) noted: bool,
}

impl Link {
    /// Starts the task on the current runtime.
    pub(crate) fn spawn(connector: Arc<Connector>, options: LinkOptions) -> Self {
        let queue = Arc::new(Queue::default());
        let waiting = queue.clone();
        let serve = move || Task::new(waiting.clone(), connector.clone(), options.clone()).run();
        Self { queue, task: tokio::spawn(tended("link to Redis", serve)) }
    }

    /// Sends charges; the answers come in the same order, by the deadline. `None`: Redis is away.
    pub(crate) fn ask(&self, asked: SmallVec<[Asked; 4]>, now: Instant) -> Option<Wait> {
        let ticket = Ticket::new(asked.len());
        let items = asked.into_iter().enumerate().map(|(slot, Asked { call, noted })| Item {
            call,
            ticket: Some((ticket.clone(), slot)),
            asked: now,
            noted,
        });
        self.is_taken(self.queue.put(items, now)).then_some(Wait(ticket))
    }

    /// Sends a charge that nobody waits for, after those that somebody waits for. Says whether it was taken.
    pub(crate) fn post(&self, call: Call, noted: bool, now: Instant) -> bool {
        self.is_taken(self.queue.put_behind(Item { call, ticket: None, asked: now, noted }))
    }

    /// Whether Redis answers.
    pub(crate) fn answers(&self) -> bool {
        self.queue.answers()
    }

    fn is_taken(&self, put: Result<(), Closed>) -> bool {
        match put {
            Ok(()) => true,
            Err(Closed::Away) => false,
            Err(Closed::Full) => {
                metrics::error("full");
                false
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}
