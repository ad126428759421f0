//! Which messages are gRPC.

use http::{HeaderMap, header::CONTENT_TYPE};

const GRPC: &[u8] = b"application/grpc";

/// Whether a request or response with these headers is gRPC: `application/grpc`, whatever its messages are (`+proto`) and whatever
/// parameters follow; gRPC-Web is something else.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let said = headers.get(CONTENT_TYPE).map(|value| value.as_bytes()).unwrap_or_default();
    let kind = said.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    kind.split_at_checked(GRPC.len()).is_some_and(|(kind, rest)| {
        // Case means nothing in a media type (RFC 9110, section 8.3.1).
        kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+'))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (value, grpc) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;v=1", true),
            ("application/grpc;charset", true),
            ("application/grpc ; charset=utf-8", true),
            ("Application/gRPC+json; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grpcx", false),
            ("application/json", false),
            ("application/json;application/grpc", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))]);
            assert_eq!(is_grpc(&headers), grpc, "{value}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }
}
