//! Writes that come at the same time, as one.
//!
//! A database commits a few hundred times a second, and takes thousands of rows each time. So writes are gathered for a
//! moment, and whoever wrote waits for the commit of all. While one batch is written, the next one gathers.
//!
//! Invariants: at most `MAX_WAITING` endpoints wait to be written; no endpoint stands twice in a batch, so what is written of it
//! later counts.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chancery_runtime::telemetry::chain;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Registry;
use crate::{
    model::{Name, endpoint::EndpointId},
    store::{LeaseWrite, StoreError},
};

/// How many endpoints may wait to be written; whoever comes then is told to try again.
const MAX_WAITING: usize = 50_000;

/// How many endpoints are written together, save that a request is not divided.
const MAX_BATCH: usize = 5000;

/// How long writes are gathered.
const GATHER: Duration = Duration::from_millis(3);

#[derive(Debug, thiserror::Error)]
#[error("more endpoints are waiting to be written than this control plane keeps")]
struct TooMany;

#[derive(Debug, thiserror::Error)]
#[error("this control plane is stopping")]
struct Stopping;

struct Request {
    writes: Vec<LeaseWrite>,
    answer: oneshot::Sender<Result<Vec<EndpointId>, StoreError>>,
    _waiting: OwnedSemaphorePermit,
}

/// Where writes are handed in.
pub(super) struct Sender {
    requests: mpsc::Sender<Request>,
    waiting: Arc<Semaphore>,
}

/// The writes that wait to be written.
pub struct Batches {
    requests: mpsc::Receiver<Request>,
    /// Taken from `requests`, but for the next batch.
    carried: Option<Request>,
}

pub(super) fn channel() -> (Sender, Batches) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    let sender = Sender { requests: sender, waiting: Arc::new(Semaphore::new(MAX_WAITING)) };
    (sender, Batches { requests: receiver, carried: None })
}

impl Sender {
    /// Waits until `writes` are written.
    pub(super) async fn write(&self, writes: Vec<LeaseWrite>) -> Result<Vec<EndpointId>, StoreError> {
        let count = u32::try_from(writes.len().max(1)).unwrap_or(u32::MAX);
        let waiting = self.waiting.clone().try_acquire_many_owned(count);
        let waiting = waiting.map_err(|_| StoreError::Unavailable(Box::new(TooMany)))?;
        let (answer, answered) = oneshot::channel();
        let stopping = || StoreError::Unavailable(Box::new(Stopping));
        self.requests.send(Request { writes, answer, _waiting: waiting }).await.map_err(|_| stopping())?;
        answered.await.unwrap_or_else(|_| Err(stopping()))
    }
}

impl Batches {
    /// Writes what is handed in, until `shutdown`; then what was handed in before.
    pub async fn run(mut self, registry: Arc<Registry>, shutdown: CancellationToken) {
        while let Some(batch) = self.next(&shutdown).await {
            write(&registry, batch).await;
        }
    }

    async fn next(&mut self, shutdown: &CancellationToken) -> Option<Vec<Request>> {
        let first = match self.carried.take() {
            Some(carried) => carried,
            None => {
                let first = tokio::select! {
                    biased;
                    request = self.requests.recv() => request?,
                    () = shutdown.cancelled() => {
                        self.requests.close();
                        self.requests.recv().await?
                    }
                };
                tokio::time::sleep(GATHER).await;
                first
            }
        };
        let mut seen: HashSet<_> = keys(&first).collect();
        let mut batch = vec![first];
        while seen.len() < MAX_BATCH
            && let Ok(next) = self.requests.try_recv()
        {
            if keys(&next).any(|key| seen.contains(&key)) {
                self.carried = Some(next);
                break;
            }
            seen.extend(keys(&next));
            batch.push(next);
        }
        Some(batch)
    }
}

fn keys(request: &Request) -> impl Iterator<Item = (Name, EndpointId)> {
    request.writes.iter().map(|write| (write.service.clone(), write.id.clone()))
}

async fn write(registry: &Registry, batch: Vec<Request>) {
    let writes: Vec<LeaseWrite> = batch.iter().flat_map(|request| &request.writes).cloned().collect();
    let written = registry.store.write_leases(&writes).await;
    let unknown: Result<HashSet<(Name, EndpointId)>, Arc<StoreError>> =
        written.map(|unknown| unknown.into_iter().collect()).map_err(Arc::new);
    if let Err(error) = &unknown {
        tracing::warn!(error = chain(error), count = writes.len(), "cannot write leases of endpoints");
        registry.was_unable();
    }
    for Request { writes, answer, _waiting } in batch {
        let result = match &unknown {
            Ok(unknown) => Ok(writes
                .into_iter()
                .map(|write| (write.service, write.id))
                .filter(|key| unknown.contains(key))
                .map(|(_, id)| id)
                .collect()),
            Err(error) => Err(shared(error.clone())),
        };
        // Whoever does not wait any more has gone away.
        let _ = answer.send(result);
    }
}

/// The error of a batch, for one of those who wrote.
fn shared(error: Arc<StoreError>) -> StoreError {
    match &*error {
        StoreError::Unavailable(_) => StoreError::Unavailable(Box::new(error)),
        _ => StoreError::Failed { context: "writing leases", source: Box::new(error) },
    }
}
