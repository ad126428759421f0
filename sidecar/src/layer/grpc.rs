//! What the layers know of gRPC: whether a message is, and where its status is.

use http::{HeaderMap, header::CONTENT_TYPE};

use super::unix_time;
use crate::policy::{
    classify::GrpcStatus,
    pushback::{self, Pushback},
};

/// Whether a request or response with these headers is gRPC.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let rest = headers.get(CONTENT_TYPE).and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"));
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The status in headers or trailers.
pub fn status(headers: &HeaderMap) -> Option<GrpcStatus> {
    Some(GrpcStatus::parse(headers.get("grpc-status")?.as_bytes()))
}

/// What headers or trailers say of when to come again: gRPC's word before HTTP's.
pub fn pushback(headers: &HeaderMap) -> Pushback {
    if let Some(value) = headers.get("grpc-retry-pushback-ms") {
        pushback::parse_grpc_pushback(value.as_bytes())
    } else if let Some(value) = headers.get(http::header::RETRY_AFTER) {
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
    fn grpc_is_told_by_its_content_type() {
        for (value, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;v=1", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            assert_eq!(is_grpc(&headers("content-type", value)), grpc, "{value}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
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
