//! HTTP/1.1: a connection for each request that is under way.

use std::{sync::Arc, time::Duration};

use http::{Request, StatusCode};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{MAX_HEAD, Received, Sent, Shared, no_connection, unsent};
use crate::{
    layer::Failed,
    proxy::body::{Body, End, OnEnd, Watched, boxed},
};

/// The connections.
pub(super) struct Http1 {
    /// Those used last at the end.
    idle: Arc<Mutex<Vec<Idle>>>,
    /// One permit for each request under way.
    room: Arc<Semaphore>,
}

struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

/// A connection in use. It goes back when the response has been read to its end, and is closed otherwise.
pub struct Lease {
    sender: SendRequest<Body>,
    idle: Arc<Mutex<Vec<Idle>>>,
    _room: OwnedSemaphorePermit,
}

/// In the extensions of a response that changes the protocol: the place of its connection, which is still in use.
#[derive(Clone, Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

impl OnEnd for Lease {
    fn end(self, end: End) {
        if end == End::Whole {
            // It may not be ready yet: the rest of the request may still be under way. Whoever takes it looks.
            self.idle.lock().push(Idle { sender: self.sender, since: Instant::now() });
        }
    }
}

impl Http1 {
    pub(super) fn new(max_connections: u32) -> Self {
        let room = usize::try_from(max_connections).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self { idle: Arc::default(), room: Arc::new(Semaphore::new(room)) }
    }

    pub(super) async fn send(&self, shared: &Shared, request: Request<Body>) -> Result<Sent, Failed> {
        // The semaphore is never closed.
        let permit = self.room.clone().acquire_owned().await;
        let permit = permit.map_err(no_connection)?;
        let mut sender = loop {
            // In a box: few requests connect, and none of the others is to be as large as that takes.
            let Some(sender) = self.take(shared.settings.idle_timeout) else {
                break Box::pin(Self::open(shared)).await?;
            };
            // Whatever has arrived on it meanwhile is read first, its end among it: once the request is written, nobody
            // can say any more whether the server has seen it.
            tokio::task::yield_now().await;
            if sender.is_ready() {
                break sender;
            }
        };
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            Err(error) => return unsent(error),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let mut response = response.map(boxed).map(Received::Other);
            response.extensions_mut().insert(Place(Arc::new(permit)));
            return Ok(Sent::Response(response));
        }
        let lease = Lease { sender, idle: self.idle.clone(), _room: permit };
        Ok(Sent::Response(response.map(|body| Received::Http1(Watched::new(body, lease)))))
    }

    /// The connection used last, of those that can be used at once.
    fn take(&self, idle_timeout: Duration) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock();
        let ready = idle.iter().rposition(|one| one.sender.is_ready())?;
        if idle[ready].since.elapsed() >= idle_timeout {
            // Nor may those that were used before it.
            idle.drain(..=ready);
            return None;
        }
        Some(idle.remove(ready).sender)
    }

    async fn open(shared: &Shared) -> Result<SendRequest<Body>, Failed> {
        let stream = shared.connect().await?;
        let mut builder = http1::Builder::new();
        // 100 headers at most, as hyper and Envoy have it.
        builder.max_buf_size(MAX_HEAD);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(no_connection)?;
        shared.drive(connection.with_upgrades());
        Ok(sender)
    }

    pub(super) fn sweep(&self, idle_timeout: Duration) {
        self.idle.lock().retain(|one| !one.sender.is_closed() && one.since.elapsed() < idle_timeout);
    }

    pub(super) fn idle(&self) -> usize {
        self.idle.lock().len()
    }
}
