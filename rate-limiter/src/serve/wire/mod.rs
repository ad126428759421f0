//! `ShouldRateLimit` on the `h2` crate: the short way that nearly every request goes.
//!
//! A decision takes a tenth of a microsecond or so; what a call costs is HTTP/2, header maps and task switches. So
//! one task per connection does everything (`session`): it takes all calls that one read brought, decides each
//! on the spot, and flushes the answers together. No task is spawned and nothing is boxed for a call that is decided at once.
//!
//! The short way is for calls without surprises: a complete, uncompressed, well-formed message of moderate size. Everything else
//! (other services, other methods, compression, bad frames, several messages, errors of any kind) is handed,
//! unread or replayed, to the tonic services (`other`), so that both ways give the same answers by construction. What tonic's
//! server gives such calls besides is given here too: deadlines, keepalive, an orderly end.

mod call;
mod keepalive;
mod other;
mod protobuf;
pub mod request;
mod session;
mod timeout;

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::{Service, connection::Connection};

/// Calls at the same time on one connection; Envoy opens another connection beyond that.
const MAX_STREAMS: u32 = 1_024;

/// Bytes a client may send ahead, on one stream and on all of them. Ordinary requests are a few hundred bytes.
const WINDOWS: (u32, u32) = (64 << 10, 1 << 20);

/// The headers of a call in all, decoded, in bytes.
const MAX_HEADERS: u32 = 16 << 10;

/// What waits to be sent to a client that does not read, in bytes per stream.
const MAX_UNSENT: usize = 64 << 10;

/// How long a client may take to begin to speak HTTP/2.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves one connection until its client closes it, it fails, or `stop` is cancelled and what is under way has ended.
pub async fn serve(connection: Connection, service: Service, routes: Routes, stop: CancellationToken) {
    let peer = connection.peer().clone();
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buffer_size(MAX_UNSENT);
    let handshake = tokio::time::timeout(HANDSHAKE, builder.handshake(connection));
    let http2 = tokio::select! {
        http2 = handshake => http2,
        () = stop.cancelled() => return,
    };
    let ended = match http2 {
        Ok(Ok(http2)) => session::Session::new(http2, peer.clone(), service, routes, stop).await,
        Ok(Err(error)) => Err(session::Ended::Broken(error)),
        Err(_) => Err(session::Ended::Silent),
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %peer.address, error = chancery_runtime::telemetry::chain(&error), "connection ended");
    }
}
