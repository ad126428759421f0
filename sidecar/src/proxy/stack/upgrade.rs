//! A request that changes the protocol of its connection, such as a WebSocket's first.

use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, UPGRADE},
};
use hyper::upgrade::OnUpgrade;
use tokio_util::task::TaskTracker;

use crate::{
    config::snapshot::Protocol,
    proxy::{body::Body, failure::Failure, message, pool::Place, tunnel},
};

/// What the caller wants to change to, and its connection once it has.
pub(super) struct Tunnel {
    wanted: HeaderValue,
    caller: OnUpgrade,
}

/// Takes note of the change that `request` asks for, if it does.
///
/// # Errors
/// The cluster speaks a protocol that has no such change.
pub(super) fn begin<B>(request: &mut Request<B>, protocol: Protocol) -> Result<Option<Tunnel>, Failure> {
    let Some(wanted) = message::upgrade(request) else { return Ok(None) };
    // HTTP/2 in the clear is asked for so by some; whoever goes on in HTTP/1.1 is right as well.
    if wanted.as_bytes().eq_ignore_ascii_case(b"h2c") {
        return Ok(None);
    }
    match protocol {
        Protocol::Http1 => Ok(Some(Tunnel { wanted, caller: hyper::upgrade::on(request) })),
        Protocol::Http2 => Err(Failure::NoUpgrade),
    }
}

impl Tunnel {
    /// Asks the next one for it.
    pub(super) fn ask<B>(&self, request: &mut Request<B>) {
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        request.headers_mut().insert(UPGRADE, self.wanted.clone());
    }

    /// Joins both connections if the answer is that the protocol changes. `tasks` owns what passes bytes on.
    pub(super) fn finish(self, response: &mut Response<Body>, tasks: &TaskTracker) {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return message::strip(response.headers_mut());
        }
        let granted = response.headers().get(UPGRADE).cloned();
        message::strip(response.headers_mut());
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(UPGRADE, granted.unwrap_or(self.wanted));
        let place = response.extensions_mut().remove::<Place>();
        tasks.spawn(tunnel::join_upgraded(self.caller, hyper::upgrade::on(response), place));
    }
}
