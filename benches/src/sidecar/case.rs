//! What is sent: one case per protocol, the same for every subject.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// Bytes of each body: of every answer, and of the request of a gRPC call, which has one.
pub(super) const BODY: usize = 1_024;

/// What is spoken, on both sides of whoever is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Protocol {
    /// `GET` over HTTP/1.1.
    Http1,
    /// `GET` over HTTP/2.
    Http2,
    /// Unary calls: `POST` over HTTP/2, answered with trailers.
    Grpc,
}

impl Protocol {
    /// Whether it is HTTP/2 below.
    pub(super) fn is_http2(self) -> bool {
        self != Self::Http1
    }

    /// The host of requests, which chooses a cluster that is spoken to in the same protocol.
    pub(super) fn host(self) -> &'static str {
        if self.is_http2() { "http2.example.com" } else { "http1.example.com" }
    }
}

/// A load.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) protocol: Protocol,
    pub(super) connections: usize,
    /// Requests under way on each connection at the most.
    pub(super) streams: usize,
    /// Loaded, but not counted.
    #[serde(skip)]
    pub(super) warm_up: Duration,
    #[serde(skip)]
    pub(super) measured: Duration,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, streams, .. } = self;
        match self.protocol {
            Protocol::Http1 => write!(f, "GET over HTTP/1.1 on {connections} kept connections"),
            Protocol::Http2 => write!(f, "GET over HTTP/2 on {connections} connections with {streams} streams each"),
            Protocol::Grpc => write!(f, "unary gRPC calls on {connections} connections with {streams} streams each"),
        }
    }
}

/// All of them; `quick`: for a moment only.
pub(super) fn all(quick: bool) -> Vec<Case> {
    let case = |name, protocol, connections, streams| Case {
        name,
        protocol,
        connections,
        streams,
        warm_up: Duration::from_millis(if quick { 300 } else { 1_000 }),
        measured: Duration::from_secs(if quick { 1 } else { 5 }),
    };
    vec![
        case("http1", Protocol::Http1, 16, 1),
        case("http2", Protocol::Http2, 4, 8),
        case("grpc", Protocol::Grpc, 4, 8),
    ]
}
