//! What no client may send: messages and chunks of HTTP/1.1 that could be read in two ways, and frames of HTTP/2 that are none.

use crate::frames::{END, Said, WHOLE, block, field, frame, kind, sized};

/// Whom all of it is for.
pub const HOST: &str = "shop.example.com";

/// Messages, and the status each is answered with; all that can be misread closes its connection, so that what follows is not read.
pub fn messages() -> Vec<(&'static str, Vec<u8>, &'static [u16])> {
    let post = "POST / HTTP/1.1\r\nhost: shop.example.com\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    let second = "GET /smuggled HTTP/1.1\r\nhost: shop.example.com\r\n\r\n";
    let text = |parts: &[&str]| parts.concat().into_bytes();
    vec![
        ("two lengths", text(&[post, "content-length: 4\r\ncontent-length: 5\r\n\r\nabcd", second]), &[400]),
        ("the same length twice", text(&[post, "content-length: 4, 4\r\n\r\nabcd", second]), &[400]),
        ("a length with a sign", text(&[post, "content-length: +4\r\n\r\nabcd", second]), &[400]),
        ("a negative length", text(&[post, "content-length: -4\r\n\r\nabcd", second]), &[400]),
        ("a length without end", text(&[post, "content-length: 99999999999999999999\r\n\r\n", second]), &[400]),
        ("an empty length", text(&[post, "content-length:\r\n\r\n", second]), &[400]),
        (
            "chunks, then something else",
            text(&[post, "transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n", second]),
            &[400],
        ),
        ("chunks that are none", text(&[post, "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", second]), &[400]),
        (
            "a vertical tab before chunked",
            text(&[post, "transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n", second]),
            &[400],
        ),
        (
            "chunks in HTTP/1.0",
            text(&["POST / HTTP/1.0\r\nhost: shop.example.com\r\n", chunked, "\r\n0\r\n\r\n", second]),
            &[400],
        ),
        ("a folded line", text(&[post, "x-a: b\r\n c\r\n\r\n", second]), &[400]),
        ("a folded chunked", text(&[post, "transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n", second]), &[400]),
        ("a blank before the colon", text(&[post, "content-length : 4\r\n\r\nabcd", second]), &[400]),
        ("a line without a colon", text(&[post, "content-length 4\r\n\r\n", second]), &[400]),
        ("an empty name", text(&[post, ": a\r\n\r\n", second]), &[400]),
        ("NUL in a name", text(&[post, "x\0y: a\r\n\r\n", second]), &[400]),
        ("NUL in a value", text(&[post, "x: a\0b\r\n\r\n", second]), &[400]),
        ("a bare CR in a value", text(&[post, "x: a\rtransfer-encoding: chunked\r\n\r\n", second]), &[400]),
        ("two hosts", text(&[post, "host: other\r\n\r\n", second]), &[400]),
        ("no host", text(&["GET / HTTP/1.1\r\n\r\n", second]), &[400]),
        ("a host that is none", text(&["GET / HTTP/1.1\r\nhost: a b\r\n\r\n", second]), &[400]),
        ("another version", text(&["GET / HTTP/1.2\r\nhost: shop.example.com\r\n\r\n", second]), &[400]),
        ("HTTP/0.9", text(&["GET /\r\n\r\n", second]), &[400]),
        (
            "CONNECT",
            text(&["CONNECT shop.example.com:80 HTTP/1.1\r\nhost: shop.example.com:80\r\n\r\n", second]),
            &[400],
        ),
        ("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on\r\n\r\n".to_vec(), &[400]),
        (
            "a long target",
            text(&["GET /", &"a".repeat(100_000), " HTTP/1.1\r\nhost: shop.example.com\r\n\r\n"]),
            &[414, 431],
        ),
        ("a long header", text(&[post, "x: ", &"a".repeat(200_000), "\r\n\r\n"]), &[431]),
        ("many headers", text(&[post, &"x: a\r\n".repeat(200), "\r\n"]), &[431]),
    ]
}

/// Chunks that are read in one way by some and in another by others. The head before them is fine.
pub const CHUNKS: &[(&str, &str)] = &[
    ("a size in another notation", "0x3\r\nabc\r\n0\r\n\r\n"),
    ("a size with a sign", "+3\r\nabc\r\n0\r\n\r\n"),
    ("a negative size", "-3\r\nabc\r\n0\r\n\r\n"),
    ("a blank before the size", " 3\r\nabc\r\n0\r\n\r\n"),
    ("a size without end", "fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    ("no size", "\r\nabc\r\n0\r\n\r\n"),
    ("a bare LF after the size", "3\nabc\r\n0\r\n\r\n"),
    ("a bare LF in an extension", "3;x\n0\r\n\r\nabc\r\n0\r\n\r\n"),
    ("a bare CR in an extension", "3;x\ry\r\nabc\r\n0\r\n\r\n"),
    ("a longer chunk than it says", "3\r\nabcd\r\n0\r\n\r\n"),
    ("a bare LF after a chunk", "3\r\nabc\n0\r\n\r\n"),
];

/// Frames that no client may send, and what RFC 9113 has a server say to them.
pub fn frames() -> Vec<(&'static str, Vec<u8>, &'static [Said])> {
    const PROTOCOL: u32 = 1;
    const FLOW: u32 = 3;
    const CLOSED: u32 = 5;
    const SIZE: u32 = 6;
    const COMPRESSION: u32 = 9;
    const PROTOCOL_ERROR: &[Said] = &[Said::GoAway(PROTOCOL)];
    const MALFORMED: &[Said] = &[Said::Reset(PROTOCOL), Said::GoAway(PROTOCOL)];
    // PROTOCOL_ERROR is right wherever a more precise code is.
    const SIZE_ERROR: &[Said] = &[Said::GoAway(SIZE), Said::GoAway(PROTOCOL)];
    const COMPRESSION_ERROR: &[Said] = &[Said::GoAway(COMPRESSION), Said::GoAway(PROTOCOL)];
    // Pseudo-header fields go no further than this server.
    const PASSED_OVER: &[Said] = &[Said::Response(200)];
    let get = |fields: &[(&str, &str)]| frame(kind::HEADERS, WHOLE | END, 1, &block("GET", HOST, fields));
    let raw = |fields: &[(&str, &str)]| {
        let block: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
        frame(kind::HEADERS, WHOLE | END, 1, &block)
    };
    let post = |length: &str| frame(kind::HEADERS, WHOLE, 1, &block("POST", HOST, &[("content-length", length)]));
    vec![
        ("a frame that is too large", frame(kind::DATA, 0, 1, &[0; 16_385]), SIZE_ERROR),
        ("SETTINGS of a wrong size", frame(kind::SETTINGS, 0, 0, &[0; 5]), SIZE_ERROR),
        ("SETTINGS of a stream", frame(kind::SETTINGS, 0, 1, &[]), PROTOCOL_ERROR),
        ("an acknowledgement with something in it", frame(kind::SETTINGS, END, 0, &[0; 6]), SIZE_ERROR),
        ("ENABLE_PUSH of 2", frame(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), PROTOCOL_ERROR),
        (
            "a window of 2^31",
            frame(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
            &[Said::GoAway(FLOW), Said::GoAway(PROTOCOL)],
        ),
        ("frames of 1 byte", frame(kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]), PROTOCOL_ERROR),
        ("PING of a wrong size", frame(kind::PING, 0, 0, &[0; 7]), SIZE_ERROR),
        ("PING of a stream", frame(kind::PING, 0, 1, &[0; 8]), PROTOCOL_ERROR),
        ("DATA of no stream", frame(kind::DATA, 0, 0, b"abc"), PROTOCOL_ERROR),
        ("DATA of an idle stream", frame(kind::DATA, 0, 1, b"abc"), PROTOCOL_ERROR),
        ("HEADERS of no stream", frame(kind::HEADERS, WHOLE | END, 0, &block("GET", HOST, &[])), PROTOCOL_ERROR),
        (
            "HEADERS of a stream of the server's",
            frame(kind::HEADERS, WHOLE | END, 2, &block("GET", HOST, &[])),
            PROTOCOL_ERROR,
        ),
        ("padding longer than its frame", frame(kind::HEADERS, WHOLE | END | 8, 1, &[200, 1, 2]), PROTOCOL_ERROR),
        ("a stream that depends on itself", frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 1, 0]), MALFORMED),
        ("RST_STREAM of an idle stream", frame(kind::RST_STREAM, 0, 1, &[0, 0, 0, 8]), PROTOCOL_ERROR),
        ("RST_STREAM of a wrong size", [get(&[]), frame(kind::RST_STREAM, 0, 1, &[0; 3])].concat(), SIZE_ERROR),
        ("a promise", frame(kind::PUSH_PROMISE, WHOLE, 1, &[0, 0, 0, 2]), PROTOCOL_ERROR),
        ("a window of nothing more", frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4]), PROTOCOL_ERROR),
        ("a window that overflows", frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), &[Said::GoAway(FLOW)]),
        ("GOAWAY of a stream", frame(kind::GOAWAY, 0, 1, &[0; 8]), PROTOCOL_ERROR),
        ("CONTINUATION of nothing", frame(kind::CONTINUATION, WHOLE, 1, &[]), PROTOCOL_ERROR),
        (
            "something else before CONTINUATION",
            [frame(kind::HEADERS, END, 1, &block("GET", HOST, &[])), frame(kind::PING, 0, 0, &[0; 8])].concat(),
            PROTOCOL_ERROR,
        ),
        (
            "a stream older than the last",
            [frame(kind::HEADERS, WHOLE | END, 3, &block("GET", HOST, &[])), get(&[])].concat(),
            &[Said::GoAway(PROTOCOL), Said::GoAway(CLOSED), Said::Reset(CLOSED)],
        ),
        ("an index of nothing", frame(kind::HEADERS, WHOLE | END, 1, &[0xff, 0xff, 0xff, 0x0f]), COMPRESSION_ERROR),
        (
            "a table larger than allowed",
            frame(kind::HEADERS, WHOLE | END, 1, &[0x3f, 0xff, 0xff, 0x7f, 0x82]),
            COMPRESSION_ERROR,
        ),
        ("a name in capitals", get(&[("X-Name", "a")]), MALFORMED),
        ("a connection-specific field", get(&[("connection", "close")]), MALFORMED),
        ("transfer-encoding", get(&[("transfer-encoding", "chunked")]), MALFORMED),
        ("TE with more than trailers", get(&[("te", "gzip")]), MALFORMED),
        (
            "an unknown pseudo-header field",
            raw(&[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":who", "me")]),
            MALFORMED,
        ),
        (
            "a pseudo-header field at the end",
            raw(&[(":method", "GET"), (":scheme", "http"), ("x", "y"), (":path", "/")]),
            MALFORMED,
        ),
        ("no path", raw(&[(":method", "GET"), (":scheme", "http"), (":authority", HOST)]), MALFORMED),
        ("no method", raw(&[(":scheme", "http"), (":path", "/"), (":authority", HOST)]), MALFORMED),
        ("two methods", raw(&[(":method", "GET"), (":method", "PUT"), (":scheme", "http"), (":path", "/")]), MALFORMED),
        ("CR and LF in a value", get(&[("x", "a\r\nhost: other")]), MALFORMED),
        ("more than its content-length", [post("3"), frame(kind::DATA, END, 1, b"abcd")].concat(), MALFORMED),
        ("less than its content-length", [post("3"), frame(kind::DATA, END, 1, b"ab")].concat(), MALFORMED),
        ("a content-length that is none", [post("+3"), frame(kind::DATA, END, 1, b"abc")].concat(), MALFORMED),
        (
            "trailers with pseudo-header fields",
            [post("3"), frame(kind::DATA, 0, 1, b"abc"), get(&[])].concat(),
            PASSED_OVER,
        ),
        ("a frame that ends early", sized(100, kind::HEADERS, WHOLE | END, 1, b"abc"), &[Said::Nothing, Said::Closed]),
    ]
}
