//! The receiving end: a client of ADS that stays subscribed.
//!
//! [`run`] keeps one stream open and hands over what comes, one response at a time, to a function that takes it or says
//! what is wrong with it: that is what the server is told. What the client holds outlives the stream: after a reconnect
//! it says so, and is sent only what has changed.
//!
//! - `session`: what a response brought, and what is said to it. Pure.
//! - `delta`, `sotw`: the two variants of the protocol. Pure.
//! - `backoff`: when to try again. Pure.
//! - `stream`: the task that connects, receives, asks these and sends.
//!
//! The server decides how much is sent at a time; there is no queue here: the next response is read when the last one is
//! answered.
//!
//! What it does not do: time-to-live of resources, and subscriptions that change while it runs.

mod backoff;
mod delta;
mod session;
mod sotw;
mod stream;

use std::time::Duration;

use chancery_proto::envoy::core::Node;
use http::Uri;
use tonic::transport::Endpoint;

pub use self::{
    backoff::Backoff,
    session::{Batch, Interest, Received, Refused},
    stream::{BoxError, run},
};
use crate::resource::{Name, TypeUrl};

/// HTTP/2 keepalive: a dead server is noticed after the sum of both.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// What a client asks for, and how.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Who it says it is. The id must not be empty.
    pub node: Node,
    /// What it wants of each type.
    pub types: Vec<(TypeUrl, Interest)>,
    /// What it has from an earlier life: type, name and version. It is sent what differs, and told what is gone.
    pub held: Vec<(TypeUrl, Name, String)>,
    /// The variants of the protocol it speaks.
    pub variants: Variants,
    /// When to try again.
    pub backoff: Backoff,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a new stream may be silent, before it is given up for another.
    pub first_response_timeout: Duration,
    /// The largest response, in bytes.
    pub max_response_bytes: usize,
}

/// The variants of the protocol a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variants {
    /// Incremental, unless the server says that it does not know it: then state of the world.
    #[default]
    Either,
    /// Incremental only.
    Delta,
    /// State of the world only.
    Sotw,
}

impl ClientSettings {
    /// With the usual times and sizes.
    pub fn new(node: Node, types: Vec<(TypeUrl, Interest)>) -> Self {
        Self {
            node,
            types,
            held: Vec::new(),
            variants: Variants::default(),
            backoff: Backoff::default(),
            connect_timeout: Duration::from_secs(10),
            first_response_timeout: Duration::from_secs(15),
            max_response_bytes: 64 << 20,
        }
    }
}

/// Where a server is, with keepalive: a stream of configuration is silent for hours, and a connection that died meanwhile
/// has to be noticed.
pub fn endpoint(uri: Uri) -> Endpoint {
    Endpoint::from(uri)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
}

#[cfg(test)]
mod tests;
