//! HTTP/1.1: a connection for each request that is under way.
//!
//! The task of a request [drives](Driven) its connection. What is left of the request's body when its response begins moves in a task of
//! its own, whether or not the response is read; such a connection is not used again. Once the response is over, nobody is sent the
//! rest; so does Envoy.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    MAX_HEAD, Received, Sent, Shared,
    driven::{Driven, Unanswered},
    failed, no_connection,
};
use crate::{
    layer::Failed,
    proxy::body::{Body, boxed},
};

/// The connections.
pub(super) struct Http1 {
    /// Those used last at the end.
    idle: Arc<Mutex<Vec<Idle>>>,
    /// One permit for each request under way.
    room: Arc<Semaphore>,
}

struct Idle {
    connection: Box<Driven>,
    since: Instant,
}

/// In the extensions of a response that changes the protocol: the place of its connection, which is still in use.
#[derive(Clone, Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

impl Http1 {
    pub(super) fn new(max_connections: u32) -> Self {
        let room = usize::try_from(max_connections).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self { idle: Arc::default(), room: Arc::new(Semaphore::new(room)) }
    }

    pub(super) async fn send(&self, shared: &Shared, request: Request<Body>) -> Result<Sent, Failed> {
        // The semaphore is never closed.
        let room = self.room.clone().acquire_owned().await;
        let room = room.map_err(no_connection)?;
        let mut connection = match self.take(shared.settings.idle_timeout) {
            Some(connection) => connection,
            // In a box: few requests connect, and none of the others is to be as large as that takes.
            None => Box::pin(Self::open(shared)).await?,
        };
        let response = match connection.send(request).await {
            Ok(response) => response,
            Err(Unanswered::Unsent(request)) => return Ok(Sent::Not(request)),
            Err(Unanswered::Failed(error)) => return Err(failed(error)),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            shared.tasks.spawn(connection.run());
            let mut response = response.map(boxed).map(Received::Other);
            response.extensions_mut().insert(Place(Arc::new(room)));
            return Ok(Sent::Response(response));
        }
        let by = if connection.is_sending() {
            By::Task { _driver: AbortOnDropHandle::new(shared.tasks.spawn(connection.run())), _room: room }
        } else {
            By::Reader(Lease { connection, idle: self.idle.clone(), _room: room })
        };
        Ok(Sent::Response(response.map(|body| Received::Http1(Download::new(body, by)))))
    }

    /// The connection used last, of those that can be used at once.
    fn take(&self, idle_timeout: Duration) -> Option<Box<Driven>> {
        loop {
            let last = {
                let mut idle = self.idle.lock();
                let last = idle.pop()?;
                if last.since.elapsed() >= idle_timeout {
                    // Nor may those that were used before it.
                    idle.clear();
                    return None;
                }
                last
            };
            let mut connection = last.connection;
            if connection.is_usable() {
                return Some(connection);
            }
        }
    }

    async fn open(shared: &Shared) -> Result<Box<Driven>, Failed> {
        Driven::begin(shared.connect().await?, MAX_HEAD).await.map_err(no_connection)
    }

    pub(super) fn sweep(&self, idle_timeout: Duration) {
        self.idle.lock().retain_mut(|one| !one.connection.is_over() && one.since.elapsed() < idle_timeout);
    }

    pub(super) fn idle(&self) -> usize {
        self.idle.lock().len()
    }
}

/// A connection in use. It goes back when the response has been read to its end, and is closed otherwise.
struct Lease {
    connection: Box<Driven>,
    idle: Arc<Mutex<Vec<Idle>>>,
    _room: OwnedSemaphorePermit,
}

impl Lease {
    fn give_back(mut self) {
        if !self.connection.is_over() {
            self.connection.rest();
            self.idle.lock().push(Idle { connection: self.connection, since: Instant::now() });
        }
    }
}

/// The body of a response.
pub struct Download {
    body: Incoming,
    by: By,
}

/// Who drives the connection of a response.
enum By {
    /// Who reads the response.
    Reader(Lease),
    /// A task, since the request is not at its end.
    Task { _driver: AbortOnDropHandle<()>, _room: OwnedSemaphorePermit },
    /// Nobody: the response is.
    Nobody,
}

impl Download {
    fn new(body: Incoming, by: By) -> Self {
        let mut download = Self { body, by };
        download.look();
        download
    }

    /// Whether this is the end that the body itself announces; nobody asks for what comes after it.
    fn look(&mut self) {
        if self.body.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let By::Reader(lease) = mem::replace(&mut self.by, By::Nobody) {
            lease.give_back();
        }
    }
}

impl HttpBody for Download {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let polled = match &mut this.by {
            By::Reader(lease) => lease.connection.drive(cx, |quiet| Pin::new(&mut this.body).poll_frame(quiet)),
            By::Task { .. } | By::Nobody => Pin::new(&mut this.body).poll_frame(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(_))) => this.look(),
            // What broke off is not used again.
            Poll::Ready(Some(Err(_))) => this.by = By::Nobody,
            Poll::Ready(None) => this.end(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
