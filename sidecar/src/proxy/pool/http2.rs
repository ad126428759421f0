//! HTTP/2: one connection, opened when it is needed, by one of those who need it.

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Body as _;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{MAX_HEAD, Sent, Shared, failed, gone_away, no_connection, timer};
use crate::{
    layer::{Failed, held::Held},
    proxy::body::{Body, Loan, boxed, empty, lend},
};

/// Pings tell when a connection is dead; the sum of both is how long that may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Flow control of a stream and of the connection.
const WINDOWS: (u32, u32) = (256 * 1024, 1024 * 1024);

/// The connection.
#[derive(Default)]
pub(super) struct Http2 {
    current: Mutex<Option<Current>>,
    /// Held by who connects.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Current {
    sender: SendRequest<Body>,
    /// How many hold it: one here, and one for each request under way.
    uses: Arc<()>,
    last_used: Instant,
}

impl Http2 {
    pub(super) async fn send(&self, shared: &Shared, request: Request<Body>) -> Result<Sent, Failed> {
        let mut current = match self.take() {
            Some(current) => current,
            None => {
                // In a box: few requests connect, and none of the others is to be as large as that takes.
                let opening = Box::pin(self.open(shared));
                let opened = tokio::time::timeout(shared.settings.connect_timeout, opening).await;
                opened.map_err(no_connection)??
            }
        };
        let (head, body) = request.into_parts();
        // Nothing can be had back by itself.
        let (going, loan) = if body.is_end_stream() {
            (body, None)
        } else {
            let (lent, loan) = lend(body);
            (boxed(lent), Some(loan))
        };
        // Of the head only what goes out is there twice.
        let mut going = Request::new(going);
        *going.method_mut() = head.method.clone();
        *going.uri_mut() = head.uri.clone();
        *going.version_mut() = head.version;
        *going.headers_mut() = head.headers.clone();
        let sent = current.sender.try_send_request(going).await;
        let response: Response<hyper::body::Incoming> = match sent {
            Ok(response) => response,
            Err(mut error) => {
                // Not sent at all, or not looked at.
                if error.take_message().is_some() || gone_away(error.error()) {
                    self.leave(&current);
                    if let Some(body) = loan.map_or_else(|| Some(empty()), Loan::back) {
                        return Ok(Sent::Not(Box::new(Request::from_parts(head, body))));
                    }
                }
                return Err(failed(error.into_error()));
            }
        };
        Ok(Sent::Response(response.map(|body| boxed(Held::new(body, current.uses)))))
    }

    /// Does not use this connection for others.
    fn leave(&self, failed: &Current) {
        let mut current = self.current.lock();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.uses, &failed.uses)) {
            *current = None;
        }
    }

    fn take(&self) -> Option<Current> {
        let mut current = self.current.lock();
        let current = current.as_mut().filter(|current| !current.sender.is_closed())?;
        current.last_used = Instant::now();
        Some(current.clone())
    }

    async fn open(&self, shared: &Shared) -> Result<Current, Failed> {
        let _connecting = self.connecting.lock().await;
        if let Some(opened_meanwhile) = self.take() {
            return Ok(opened_meanwhile);
        }
        let stream = shared.connect().await?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(timer())
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_header_list_size(MAX_HEAD as u32)
            .keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(no_connection)?;
        shared.drive(connection);
        let current = Current { sender, uses: Arc::default(), last_used: Instant::now() };
        *self.current.lock() = Some(current.clone());
        Ok(current)
    }

    pub(super) fn sweep(&self, idle_timeout: Duration) {
        let mut current = self.current.lock();
        let unused = |one: &Current| Arc::strong_count(&one.uses) == 1 && one.last_used.elapsed() >= idle_timeout;
        if current.as_ref().is_some_and(|one| one.sender.is_closed() || unused(one)) {
            *current = None;
        }
    }

    pub(super) fn idle(&self) -> usize {
        usize::from(self.current.lock().as_ref().is_some_and(|current| Arc::strong_count(&current.uses) == 1))
    }
}
