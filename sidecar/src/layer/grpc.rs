//! What the layers know of gRPC: which messages are, where its status is, and when to come again.

use http::{HeaderMap, HeaderName, header::RETRY_AFTER};

use super::unix_time;
use crate::policy::{
    classify::GrpcStatus,
    pushback::{self, Pushback},
};

pub use crate::policy::grpc::is_grpc;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The status in headers or trailers.
pub fn status(headers: &HeaderMap) -> Option<GrpcStatus> {
    Some(GrpcStatus::parse(headers.get(STATUS)?.as_bytes()))
}

/// What headers or trailers say of when to come again: gRPC's word before HTTP's.
pub fn pushback(headers: &HeaderMap) -> Pushback {
    if let Some(value) = headers.get(PUSHBACK) {
        pushback::parse_grpc_pushback(value.as_bytes())
    } else if let Some(value) = headers.get(RETRY_AFTER) {
        pushback::parse_retry_after(value.as_bytes(), unix_time())
    } else {
        Pushback::Unsaid
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn the_word_of_grpc_comes_first() {
        let mut both = headers("retry-after", "7");
        assert_eq!(pushback(&both), Pushback::After(Duration::from_secs(7)));
        both.insert("grpc-retry-pushback-ms", "-1".parse().unwrap());
        assert_eq!(pushback(&both), Pushback::Never);
        assert_eq!(pushback(&HeaderMap::new()), Pushback::Unsaid);
    }
}
