//! Who asks, for services that see only a request.

use super::connection::Peer;
use crate::decide::Caller;

/// Who sent the request with these extensions, by the connection that it came on.
pub fn caller_of(extensions: &http::Extensions) -> Caller {
    extensions.get::<Peer>().map_or(Caller::Anonymous, |peer| peer.caller.clone())
}
