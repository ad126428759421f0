//! Where cells are kept, as `--store` says, and whose task is whose.

use std::sync::Arc;

use anyhow::Context;
use chancery_runtime::Shutdown;

use crate::{
    settings::Settings,
    store::{Clock, Memory, SaltCell, Store, memory, redis},
};

/// The cells of a process.
#[derive(Clone)]
pub(super) enum Cells {
    /// Its own.
    Memory(Arc<Memory>),
    /// Those of all limiters on one Redis.
    Redis(Arc<redis::Shared>),
}

impl Cells {
    /// Opens them. Does not wait for Redis.
    pub(super) fn open(settings: &Settings, salt: &SaltCell, shutdown: &Shutdown) -> anyhow::Result<Self> {
        settings.redis_timeout()?;
        let own = Arc::new(Memory::new(settings.memory_cells, Clock::system()));
        let (tended, stop) = (own.clone(), shutdown.token());
        shutdown.spawn("cells", async move {
            tokio::select! {
                () = memory::tend(tended) => {}
                () = stop.cancelled() => {}
            }
        });
        let Some(redis) = settings.redis()? else { return Ok(Self::Memory(own)) };
        let shared = redis::Shared::start(redis, own, salt.clone()).context("cannot use Redis")?;
        Ok(Self::Redis(shared))
    }

    /// The store of one worker; to be made on its runtime.
    pub(super) fn for_worker(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(memory) => memory.clone(),
            Self::Redis(shared) => shared.store_for_worker(),
        }
    }

    /// How many limiters share the cells.
    pub(super) fn replicas(&self) -> Arc<dyn Fn() -> u32 + Send + Sync> {
        let cells = self.clone();
        Arc::new(move || match &cells {
            Self::Memory(_) => 1,
            Self::Redis(shared) => shared.replicas(),
        })
    }

    /// Gives back what is borrowed, when no more requests come.
    pub(super) async fn close(&self) {
        if let Self::Redis(shared) = self
            && let Err(error) = shared.close().await
        {
            let error = chancery_runtime::telemetry::chain(&error);
            tracing::warn!(error, "what was borrowed from Redis could not be given back");
        }
    }
}
