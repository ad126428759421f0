//! The end of a program, and the owner of its tasks.
//!
//! A [`Shutdown`] is one token that says "stop" and one list of the tasks that must have stopped.
//! Every task of a program is spawned through it, so none is orphaned: its panic or error is
//! logged under its name, and the program ends only when all have ended, or when the deadline
//! passes, and then it says which ones it left behind.
//!
//! A task without which the program is of no use is *essential*: when it ends early, the program
//! shuts down and answers with an error, so that whoever supervises it starts it again.

use std::{collections::BTreeMap, future::Future, io, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

use crate::telemetry::chain;

/// Tells every task to stop, and waits until they have. Clones are the same shutdown.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// How many tasks run under each name.
    running: BTreeMap<&'static str, usize>,
    /// The first essential task that ended before it was told to.
    lost: Option<&'static str>,
}

/// Why a program did not end well.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrainError {
    /// An essential task ended although nobody had asked it to.
    #[error("{0} ended unexpectedly")]
    Lost(&'static str),
    /// These tasks were still running at the deadline.
    #[error("still running after {deadline:?}: {}", tasks.join(", "))]
    Deadline {
        /// How long the tasks were given.
        deadline: Duration,
        /// Their names.
        tasks: Vec<&'static str>,
    },
    /// A second signal asked to end at once.
    #[error("ended at once by a second signal")]
    Interrupted,
    /// Signals cannot be listened to.
    #[error("cannot listen to signals: {0}")]
    Signals(String),
}

/// What a task may return: nothing, or why it failed.
pub trait Outcome {
    /// The failure with its causes, if it is one.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> Outcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| chain(error.into().as_ref()))
    }
}

impl Shutdown {
    /// A shutdown that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// The token that is cancelled when the shutdown begins, for code that knows only tokens.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Tells every task to stop.
    pub fn begin(&self) {
        self.token.cancel();
    }

    /// Whether the tasks have been told to stop.
    pub fn has_begun(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until the tasks are told to stop.
    pub async fn begun(&self) {
        self.token.cancelled().await;
    }

    /// Runs `task`, which should end soon after [`begun`](Self::begun). Its panic or error is logged under `name`.
    pub fn spawn<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future + Send + 'static,
        F::Output: Outcome + Send,
    {
        self.run(name, false, task)
    }

    /// Like [`spawn`](Self::spawn), for a task without which the program should not go on: its end begins the shutdown.
    pub fn spawn_essential<F>(&self, name: &'static str, task: F) -> JoinHandle<()>
    where
        F: Future + Send + 'static,
        F::Output: Outcome + Send,
    {
        self.run(name, true, task)
    }

    fn run<F>(&self, name: &'static str, essential: bool, task: F) -> JoinHandle<()>
    where
        F: Future + Send + 'static,
        F::Output: Outcome + Send,
    {
        let running = Running::enter(name, self.shared.clone());
        let shutdown = self.clone();
        self.tasks.spawn(async move {
            let _running = running;
            // A panic is reported, not resumed: the task's state dies with it.
            match catch_panic(task).await {
                Ok(outcome) => {
                    if let Some(reason) = outcome.failure() {
                        error!(task = name, error = reason, "task failed");
                    }
                }
                Err(panic) => error!(task = name, error = panic, "task panicked"),
            }
            if essential && !shutdown.has_begun() {
                shutdown.shared.lock().lost.get_or_insert(name);
                shutdown.begin();
            }
        })
    }

    /// Waits for SIGINT, SIGTERM or [`begin`](Self::begin), then gives the tasks until `deadline` to end.
    ///
    /// A second signal ends the wait.
    ///
    /// # Errors
    /// An essential task was lost, the deadline passed, or a second signal came.
    pub async fn run_until_drained(&self, deadline: Duration) -> Result<(), DrainError> {
        let mut signals = Signals::listen().map_err(|error| DrainError::Signals(error.to_string()))?;
        tokio::select! {
            () = self.begun() => {}
            signal = signals.received() => info!(signal, "shutting down"),
        }
        self.begin();
        tokio::select! {
            drained = self.drained(deadline) => drained,
            _ = signals.received() => Err(DrainError::Interrupted),
        }
    }

    /// Begins the shutdown and gives the tasks until `deadline` to end, without regard to signals.
    ///
    /// # Errors
    /// An essential task was lost, or the deadline passed.
    pub async fn drained(&self, deadline: Duration) -> Result<(), DrainError> {
        self.begin();
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_err() {
            let tasks: Vec<_> = self.shared.lock().running.keys().copied().collect();
            warn!(within = ?deadline, ?tasks, "tasks did not end in time");
            return Err(DrainError::Deadline { deadline, tasks });
        }
        match self.shared.lock().lost {
            Some(task) => Err(DrainError::Lost(task)),
            None => Ok(()),
        }
    }
}

/// The signals that ask a process to end. While this exists, they no longer end it by themselves.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens to SIGINT and SIGTERM from now on.
    ///
    /// # Errors
    /// The system does not allow it.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for the next one, and says which it was.
    pub async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// Keeps the task's name in the list while it runs, also when it is aborted.
struct Running {
    name: &'static str,
    shared: Arc<Mutex<Shared>>,
}

impl Running {
    fn enter(name: &'static str, shared: Arc<Mutex<Shared>>) -> Self {
        *shared.lock().running.entry(name).or_default() += 1;
        Self { name, shared }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut shared = self.shared.lock();
        if let Some(count) = shared.running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                shared.running.remove(self.name);
            }
        }
    }
}

async fn catch_panic<F: Future>(task: F) -> Result<F::Output, String> {
    let mut task = Box::pin(task);
    std::future::poll_fn(move |context| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => std::task::Poll::Ready(Err(panic_text(panic.as_ref()))),
        }
    })
    .await
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let literal = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    literal.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "not a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    async fn buggy() {
        panic!("a bug");
    }

    #[tokio::test]
    async fn drains_when_every_task_has_ended() {
        let shutdown = Shutdown::new();
        let stop = shutdown.token();
        shutdown.spawn("worker", async move { stop.cancelled().await });
        assert_eq!(shutdown.drained(SOON).await, Ok(()));
    }

    #[tokio::test]
    async fn names_the_tasks_that_do_not_end() {
        let shutdown = Shutdown::new();
        shutdown.spawn("stuck", std::future::pending::<()>());
        let deadline = Duration::from_millis(20);
        assert_eq!(shutdown.drained(deadline).await, Err(DrainError::Deadline { deadline, tasks: vec!["stuck"] }));
    }

    #[tokio::test]
    async fn the_end_of_an_essential_task_ends_the_program() {
        let shutdown = Shutdown::new();
        shutdown.spawn_essential("server", async { Err::<(), _>("address in use") });
        assert_eq!(shutdown.run_until_drained(SOON).await, Err(DrainError::Lost("server")));
    }

    #[tokio::test]
    async fn a_panic_of_an_essential_task_is_its_end() {
        let shutdown = Shutdown::new();
        shutdown.spawn_essential("server", buggy());
        assert_eq!(shutdown.run_until_drained(SOON).await, Err(DrainError::Lost("server")));
    }

    #[tokio::test]
    async fn the_end_of_another_task_does_not() {
        let shutdown = Shutdown::new();
        shutdown.spawn("job", buggy()).await.unwrap();
        assert!(!shutdown.has_begun());
        assert_eq!(shutdown.drained(SOON).await, Ok(()));
    }

    #[tokio::test]
    async fn an_aborted_task_leaves_the_list() {
        let shutdown = Shutdown::new();
        shutdown.spawn("job", std::future::pending::<()>()).abort();
        assert_eq!(shutdown.drained(SOON).await, Ok(()));
    }
}
