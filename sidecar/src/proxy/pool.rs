//! The connections to one endpoint.
//!
//! HTTP/1.1: one request at a time on each; one that is done goes back and is used again, the one used last first, so that those
//! that are not needed grow old. HTTP/2: one connection for all, and more when its server takes no more streams.
//!
//! A connection that was idle may have been closed by the server at the very moment at which it is used. If nothing of the
//! request was written, it goes to another connection, and nobody hears of it. If something was, only the retry policy may
//! decide. The race is rare because connections that were idle for as long as the cluster allows are closed here first.
//! An HTTP/2 server that ends says which requests it has not looked at: these go to another connection, too, as far as nothing of
//! their bodies is gone.

mod driven;
mod exchange;
mod http1;
mod http2;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::task::TaskTracker;

pub(super) use self::http1::Place;
use self::{
    http1::Http1,
    http2::{Http2, UnderWay},
};
use super::{
    body::{Body, BoxError},
    connect::{Connector, Stream},
    stall::{self, Patience},
};
use crate::{
    config::snapshot::Protocol,
    layer::{Failed, held::Held},
    policy::classify::Fault,
};

/// The largest head of a response.
const MAX_HEAD: usize = 64 * 1024;

/// How many connections may turn out to be dead before a request is given up.
const MOST_DEAD: usize = 3;

/// What a pool needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a connection may lie idle.
    pub idle_timeout: Duration,
    /// Connections at the same time.
    pub max_connections: u32,
}

/// The connections to one endpoint.
pub struct Pool {
    shared: Arc<Shared>,
    kind: Kind,
}

enum Kind {
    Http1(Http1),
    Http2(Http2),
}

/// What both kinds need.
struct Shared {
    connector: Connector,
    settings: PoolSettings,
    /// How long the callers of its requests may do nothing.
    patience: Patience,
    /// Owns the tasks that drive connections.
    tasks: TaskTracker,
}

impl Pool {
    /// Without connections, which will speak `protocol`. `tasks` owns what drives them; whose requests they carry may do nothing for as
    /// long as `patience`.
    pub fn new(
        connector: Connector,
        protocol: Protocol,
        settings: PoolSettings,
        patience: Patience,
        tasks: TaskTracker,
    ) -> Self {
        let shared = Arc::new(Shared { connector, settings, patience, tasks });
        let kind = match protocol {
            Protocol::Http1 => Kind::Http1(Http1::new(settings.max_connections)),
            Protocol::Http2 => Kind::Http2(Http2::new(settings.max_connections)),
        };
        Self { shared, kind }
    }

    /// Sends a request; the connection is in use until the body of the response is over.
    ///
    /// # Errors
    /// There is no response.
    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<Received>, Failed>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let (head, body) = request.into_parts();
        let (body, arrival) = stall::arriving(body, self.shared.patience);
        let sent = self.send_arriving(Request::from_parts(head, body)).await;
        arrival.answered();
        sent.map_err(|failed| arrival.judge(failed))
    }

    async fn send_arriving(&self, mut request: Request<Body>) -> Result<Response<Received>, Failed> {
        for _ in 0..MOST_DEAD {
            let sent = match &self.kind {
                Kind::Http1(pool) => pool.send(&self.shared, request).await?,
                Kind::Http2(pool) => pool.send(&self.shared, request).await?,
            };
            match sent {
                Sent::Response(response) => return Ok(response),
                Sent::Not(unsent) => request = *unsent,
            }
        }
        Err(Failed::upstream(Fault::Unsent))
    }

    /// Closes what has been idle for too long.
    pub fn sweep(&self) {
        match &self.kind {
            Kind::Http1(pool) => pool.sweep(self.shared.settings.idle_timeout),
            Kind::Http2(pool) => pool.sweep(self.shared.settings.idle_timeout),
        }
    }

    /// Connections that are idle; for show.
    pub fn idle(&self) -> usize {
        match &self.kind {
            Kind::Http1(pool) => pool.idle(),
            Kind::Http2(pool) => pool.idle(),
        }
    }
}

/// The body of a response.
pub enum Received {
    /// Over HTTP/1.1; the connection is used again after it.
    Http1(http1::Download),
    /// Over HTTP/2.
    Http2(Held<exchange::Download, UnderWay>),
    /// As it is.
    Other(Body),
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Http2(body) => Pin::new(body).poll_frame(cx),
            Self::Other(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Other(body) => body.size_hint(),
        }
    }
}

/// What became of a request.
enum Sent {
    Response(Response<Received>),
    /// Nothing of it was written.
    Not(Box<Request<Body>>),
}

impl Shared {
    /// A new connection, in time.
    async fn connect(&self) -> Result<Stream, Failed> {
        self.connector.connect(self.settings.connect_timeout).await.map_err(no_connection)
    }
}

/// What an error of hyper's means, for a request of which something was sent.
fn failed(error: hyper::Error) -> Failed {
    let fault = if error.is_parse() { Fault::Malformed } else { Fault::Reset };
    Failed::Upstream { fault, source: Some(error.into()) }
}

fn no_connection(error: impl Into<BoxError>) -> Failed {
    Failed::Upstream { fault: Fault::Connect, source: Some(error.into()) }
}
