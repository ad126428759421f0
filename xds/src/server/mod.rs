//! The serving end: a tonic service, one task per stream, or per connection; and calls of services beside it, framed alike.

mod call;
mod service;
mod slot;
mod stream;
mod variant;
mod wire;

use std::{any::Any, sync::Arc, time::Duration};

use chancery_proto::envoy::core::Node;
use futures_util::future::BoxFuture;

pub use call::Call;
pub use service::XdsServer;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{cache::Cache, status::SharedStatus};

/// The variant of the protocol a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Incremental.
    Delta,
    /// State of the world.
    Sotw,
}

impl Protocol {
    /// `delta` or `sotw`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Delta => "delta",
            Protocol::Sotw => "sotw",
        }
    }
}

/// Who opens a stream.
#[derive(Debug)]
pub struct Hello<'a> {
    /// What the client says it is.
    pub node: &'a Node,
    /// What the transport knows of it: addresses, certificates.
    pub extensions: &'a http::Extensions,
    /// The variant it speaks.
    pub protocol: Protocol,
}

/// Put into the extensions of the requests of a connection: its streams end when the token is cancelled, with a status
/// that has the client open them again, elsewhere.
///
/// A server that ends its connections after a while needs it: streams do not end by themselves.
#[derive(Clone, Debug, Default)]
pub struct Retire(pub CancellationToken);

/// Put into the extensions of the requests of a connection: its streams and [calls](Call) are handed to this, which runs each to its
/// end. Without it each is a task of its own.
///
/// A stream has to do with nothing but its connection. In the same task as that they wake each other for less, and share what
/// they have in the cache of a core.
#[derive(Clone)]
pub struct RunStream(pub Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>);

/// Has `stream` run, counted by `tasks`, where `run` says.
fn start(run: Option<RunStream>, tasks: &TaskTracker, stream: impl Future<Output = ()> + Send + 'static) {
    let stream = tasks.track_future(stream);
    match run {
        Some(RunStream(run)) => run(Box::pin(stream)),
        None => drop(tokio::spawn(stream)),
    }
}

/// What an admitted stream is given.
pub struct Admission {
    /// The resources it is served from.
    pub cache: Arc<Cache>,
    /// Where it writes what it sends and hears.
    pub status: SharedStatus,
    /// Cancelled when the stream has to end: the fleet is gone, the certificate was revoked.
    pub ended: CancellationToken,
    /// Dropped when the stream ends.
    pub guard: Box<dyn Any + Send>,
}

/// Decides who is served, and from which cache.
///
/// Called once per stream, before anything is registered or sent. The node's id is not empty.
pub trait Admit: Send + Sync + 'static {
    /// Admits the stream, or refuses it with the status the client sees.
    fn admit(&self, hello: Hello<'_>) -> Result<Admission, tonic::Status>;
}

/// How streams are served.
#[derive(Clone, Copy, Debug)]
pub struct StreamSettings {
    /// How long the first request may take.
    pub hello_timeout: Duration,
    /// How long one type is held back for another to be acknowledged (make before break), and a change of
    /// an incremental stream for the answer to the one before it.
    pub order_timeout: Duration,
    /// How many types one stream may subscribe to.
    pub max_types: usize,
    /// How many names one stream may subscribe to, of all types together: what it asks for is remembered, be there such
    /// resources or not.
    pub max_names: usize,
    /// The largest request, in bytes.
    pub max_request_bytes: usize,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            hello_timeout: Duration::from_secs(10),
            order_timeout: Duration::from_secs(5),
            max_types: 32,
            // Endpoints, routes and virtual hosts of 100,000 services.
            max_names: 300_000,
            // 100,000 initial resource versions, with room.
            max_request_bytes: 32 << 20,
        }
    }
}
