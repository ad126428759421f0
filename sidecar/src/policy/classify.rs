//! What an outcome says of the endpoint it came from.
//!
//! A gRPC status decides where there is one, in headers or in trailers, and is read as the HTTP status that Envoy maps it to
//! (`Grpc::Utility::grpcToHttpStatus`); so both kinds of traffic meet the same rules.
//!
//! What never reached the endpoint for reasons of our own says nothing of it: a request that was shed or found the queue
//! full, a caller that hung up, a pooled connection that the server had closed before the request was written.

/// What an outcome means for its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered, be it that the caller was wrong.
    Success,
    /// It failed.
    Failure {
        /// Whether a gateway would have said so: 502, 503, 504, or no answer at all.
        gateway: bool,
    },
    /// It has more to do than it can: 429, RESOURCE_EXHAUSTED, a refused stream.
    RateLimited,
    /// It was not its doing.
    Ignored,
}

/// How one try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a response.
    Response {
        /// The HTTP status.
        status: u16,
        /// The gRPC status, from headers or trailers.
        grpc: Option<GrpcStatus>,
    },
    /// Without one, or with a broken one.
    Fault(Fault),
}

/// Why there was no whole response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection: refused, unreachable, no handshake, or not in time.
    Connect,
    /// The connection was closed before the request was written to it: a pooled one that the server had given up.
    Unsent,
    /// The server says that it did not look at the request: `REFUSED_STREAM`, or a `GOAWAY` that leaves the stream out.
    RefusedStream,
    /// The connection or stream ended after the request was sent.
    Reset,
    /// The response was no HTTP.
    Malformed,
    /// No answer within the time for one try.
    TryTimeout,
    /// This proxy had no room.
    LocalOverload,
    /// The caller went away, or its deadline came.
    Cancelled,
}

impl Outcome {
    /// A response without a gRPC status.
    pub const fn http(status: u16) -> Self {
        Self::Response { status, grpc: None }
    }

    /// What it says of the endpoint.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Response { .. } => match self.effective_status() {
                502..=504 => Verdict::Failure { gateway: true },
                500.. => Verdict::Failure { gateway: false },
                429 => Verdict::RateLimited,
                _ => Verdict::Success,
            },
            Self::Fault(Fault::Connect | Fault::Reset | Fault::Malformed | Fault::TryTimeout) => {
                Verdict::Failure { gateway: true }
            }
            Self::Fault(Fault::RefusedStream) => Verdict::RateLimited,
            Self::Fault(Fault::Unsent | Fault::LocalOverload | Fault::Cancelled) => Verdict::Ignored,
        }
    }

    /// Whether the application behind the endpoint certainly did not see the request, so that any request may be repeated.
    pub fn never_seen(self) -> bool {
        matches!(self, Self::Fault(Fault::Connect | Fault::Unsent | Fault::RefusedStream | Fault::LocalOverload))
    }

    /// The HTTP status that says it all: that of the gRPC status if there is one. 0 if there is no response.
    pub fn effective_status(self) -> u16 {
        match self {
            // A proxy's own 503 may carry no gRPC status, or one that says the same; an HTTP error stands as it is.
            Self::Response { status, grpc: Some(grpc) } if status < 400 => grpc.as_http(),
            Self::Response { status, .. } => status,
            Self::Fault(_) => 0,
        }
    }
}

/// A gRPC status code, 0 to 16 (`statuscodes.md` of gRPC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcStatus(u8);

impl GrpcStatus {
    /// OK.
    pub const OK: Self = Self(0);
    /// CANCELLED.
    pub const CANCELLED: Self = Self(1);
    /// UNKNOWN.
    pub const UNKNOWN: Self = Self(2);
    /// DEADLINE_EXCEEDED.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// RESOURCE_EXHAUSTED.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// INTERNAL.
    pub const INTERNAL: Self = Self(13);
    /// UNAVAILABLE.
    pub const UNAVAILABLE: Self = Self(14);

    /// The value of a `grpc-status`. What is no code is UNKNOWN, as gRPC has it.
    pub fn parse(value: &[u8]) -> Self {
        match value {
            [digit @ b'0'..=b'9'] => Self(digit - b'0'),
            [b'1', digit @ b'0'..=b'6'] => Self(10 + digit - b'0'),
            _ => Self::UNKNOWN,
        }
    }

    /// The code.
    pub fn code(self) -> u8 {
        self.0
    }

    /// The HTTP status that Envoy maps it to.
    pub fn as_http(self) -> u16 {
        match self.0 {
            0 => 200,
            1 => 499,
            3 | 9 | 11 => 400,
            4 => 504,
            5 => 404,
            6 | 10 => 409,
            7 => 403,
            8 => 429,
            12 => 501,
            14 => 503,
            16 => 401,
            _ => 500,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAILURE: Verdict = Verdict::Failure { gateway: false };
    const GATEWAY: Verdict = Verdict::Failure { gateway: true };

    #[test]
    fn an_http_status_says_what_it_says() {
        for (status, verdict) in [
            (200, Verdict::Success),
            (304, Verdict::Success),
            (404, Verdict::Success),
            (429, Verdict::RateLimited),
            (500, FAILURE),
            (501, FAILURE),
            (502, GATEWAY),
            (503, GATEWAY),
            (504, GATEWAY),
            (505, FAILURE),
        ] {
            assert_eq!(Outcome::http(status).verdict(), verdict, "{status}");
        }
    }

    #[test]
    fn a_grpc_status_decides_where_there_is_one() {
        for (text, verdict) in [
            ("0", Verdict::Success),
            ("1", Verdict::Success),
            ("2", FAILURE),
            ("4", GATEWAY),
            ("5", Verdict::Success),
            ("8", Verdict::RateLimited),
            ("12", FAILURE),
            ("13", FAILURE),
            ("14", GATEWAY),
            ("16", Verdict::Success),
            ("17", FAILURE),
            ("-1", FAILURE),
            ("", FAILURE),
        ] {
            let grpc = Some(GrpcStatus::parse(text.as_bytes()));
            assert_eq!(Outcome::Response { status: 200, grpc }.verdict(), verdict, "{text:?}");
            assert_eq!(Outcome::Response { status: 503, grpc }.verdict(), GATEWAY, "{text:?} under a 503");
        }
    }

    #[test]
    fn what_we_did_ourselves_is_not_held_against_the_endpoint() {
        for (fault, verdict, never_seen) in [
            (Fault::Connect, GATEWAY, true),
            (Fault::Unsent, Verdict::Ignored, true),
            (Fault::RefusedStream, Verdict::RateLimited, true),
            (Fault::Reset, GATEWAY, false),
            (Fault::Malformed, GATEWAY, false),
            (Fault::TryTimeout, GATEWAY, false),
            (Fault::LocalOverload, Verdict::Ignored, true),
            (Fault::Cancelled, Verdict::Ignored, false),
        ] {
            assert_eq!(Outcome::Fault(fault).verdict(), verdict, "{fault:?}");
            assert_eq!(Outcome::Fault(fault).never_seen(), never_seen, "{fault:?}");
        }
        assert!(!Outcome::http(503).never_seen());
    }

    proptest! {
        #[test]
        fn every_code_is_read_back(code in 0..17_u8) {
            prop_assert_eq!(GrpcStatus::parse(code.to_string().as_bytes()).code(), code);
        }
    }
}
