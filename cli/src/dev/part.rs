//! A program of ours inside this process: it ends when it is told to, and may end by itself.

use anyhow::{Context as _, Error, Result, anyhow};
use chancery_runtime::{Running, Shutdown};

/// A running program that serves at addresses `A`.
pub(super) struct Part<A> {
    what: &'static str,
    running: Running<A>,
    shutdown: Shutdown,
}

impl<A: Copy> Part<A> {
    /// Starts it; `what` is its name in messages: "the rate limiter".
    pub(super) async fn start(
        what: &'static str,
        start: impl AsyncFnOnce(Shutdown) -> Result<Running<A>>,
    ) -> Result<Self> {
        let shutdown = Shutdown::new();
        let running = start(shutdown.clone()).await.with_context(|| format!("{what} cannot start"))?;
        Ok(Self { what, running, shutdown })
    }

    /// Waits until it ends although nobody asked it to. [`stop`](Self::stop) says which task was lost.
    pub(super) async fn lost(&self) -> Error {
        self.shutdown.begun().await;
        anyhow!("{} ended by itself", self.what)
    }

    /// Ends it, and waits until it has.
    pub(super) async fn stop(self) -> Result<()> {
        let Self { what, running, shutdown: _ } = self;
        running.stop().await.with_context(|| format!("{what} did not end well"))
    }
}
