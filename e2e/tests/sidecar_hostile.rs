//! Strangers at both ports of a sidecar: bytes that could be read in two ways, frames that are none, floods, and callers that
//! take for ever. Each gets a clear answer; none makes the process long, and none makes it panic.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    client::{fetch, get},
    document::{route, service_with},
    door::{self, Bytes, Door},
    frames::{self, END, PREFACE, Said, WHOLE, block, field, frame, kind, sized},
    process::allow_files,
    sidecar_scene::{SidecarScene, retried},
    upstream::Upstream,
    usage::memory,
    wait::{PATIENCE, until},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const HOST: &str = "shop.example.com";

/// So much more memory may a sidecar take while it is flooded, in bytes.
const MOST_MEMORY: u64 = 64 << 20;

/// What nothing is said to within this is taken to be passed over.
const SAID_WITHIN: Duration = Duration::from_secs(2);

/// A sidecar between two services: one that it stands beside, and one that it calls.
struct Scene {
    behind: Upstream,
    called: Upstream,
    sidecar: SidecarScene,
}

impl Scene {
    async fn start(flags: &[&str]) -> Result<Self> {
        let (behind, called) = (Upstream::start("behind").await?, Upstream::start("called").await?);
        let shop = service_with("shop", &[called.address], json!({}));
        let application = behind.address.to_string();
        let flags = [&["--app-addr", &application], flags].concat();
        let sidecar = SidecarScene::start(&[shop, route("shop", HOST, &retried("shop"))], &flags).await?;
        Ok(Self { behind, called, sidecar })
    }

    /// Both ports, in plaintext.
    fn doors(&self) -> [(&'static str, Door); 2] {
        let sidecar = &self.sidecar.sidecar;
        [("inbound", Door::plain(sidecar.inbound)), ("outbound", Door::plain(sidecar.outbound))]
    }

    fn requests(&self) -> u64 {
        self.behind.requests() + self.called.requests()
    }

    fn memory(&self) -> Result<u64> {
        memory(self.sidecar.sidecar.pid())
    }

    /// It serves as ever, and has not panicked.
    async fn is_well(&self) -> Result<()> {
        let sidecar = &self.sidecar.sidecar;
        for address in [sidecar.inbound, sidecar.outbound] {
            let answer = fetch(address, get(HOST, "/")).await?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        }
        self.has_not_panicked()
    }

    fn has_not_panicked(&self) -> Result<()> {
        let log = self.sidecar.sidecar.log();
        ensure!(!log.contains("panicked"), "{log}");
        Ok(())
    }
}

/// A message of HTTP/1.1, and the status it is answered with; all that can be misread closes its connection.
fn messages() -> Vec<(&'static str, Vec<u8>, &'static [u16])> {
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
const CHUNKS: &[(&str, &str)] = &[
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_read_in_two_ways_is_answered_and_passed_to_nobody() -> Result<()> {
    let scene = Scene::start(&["--insecure"]).await?;
    for (port, door) in scene.doors() {
        let before = scene.requests();
        for (what, bytes, wanted) in messages() {
            let answer = door.says(&bytes).await.with_context(|| format!("{port}: {what}"))?;
            let status = answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
            ensure!(status.is_some_and(|status| wanted.contains(&status)), "{port}: {what}: {answer}");
            ensure!(answer.matches("HTTP/1.1 ").count() == 1, "{port}: {what}: {answer}");
        }
        ensure!(scene.requests() == before, "{port}: {} requests reached a service", scene.requests() - before);
        // A head of two minds is answered as chunks alone, and nothing after it is read (RFC 9112, 6.1).
        for both in
            ["content-length: 3\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 3"]
        {
            let second = format!("GET /smuggled HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
            let bytes = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\n{both}\r\n\r\n3\r\nabc\r\n0\r\n\r\n{second}");
            let answer = door.says(bytes.as_bytes()).await.with_context(|| format!("{port}: {both}"))?;
            ensure!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("smuggled"), "{port}: {both}: {answer}");
        }
        for (what, chunks) in CHUNKS {
            let head = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n");
            let bytes = format!("{head}{chunks}GET /smuggled HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
            let answer = door.says(bytes.as_bytes()).await.with_context(|| format!("{port}: {what}"))?;
            ensure!(answer.starts_with("HTTP/1.1 400 "), "{port}: {what}: {answer}");
            ensure!(!answer.contains("smuggled"), "{port}: {what}: {answer}");
        }
    }
    scene.is_well().await
}

/// Frames that no client may send, and what RFC 9113 has a server say to them.
fn malformed() -> Vec<(&'static str, Vec<u8>, &'static [Said])> {
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

/// What is said to these frames after a proper beginning.
async fn said_to(door: &Door, bytes: &[u8]) -> Result<Said> {
    let mut stream = door.open().await?;
    let begin = [PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat();
    // It may be closed before all is written.
    let _ = stream.write_all(&[&begin, bytes].concat()).await;
    Ok(frames::read(&mut stream, SAID_WITHIN).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_none_end_their_stream_or_connection_with_the_code_for_it() -> Result<()> {
    let scene = Scene::start(&["--insecure"]).await?;
    let mut wrong = Vec::new();
    for (port, door) in scene.doors() {
        for (what, bytes, wanted) in malformed() {
            let said = said_to(&door, &bytes).await.with_context(|| format!("{port}: {what}"))?;
            if !wanted.contains(&said) {
                wrong.push(format!("{port}: {what}: {said}, not one of {wanted:?}"));
            }
        }
        // No preface, or half of one.
        for bytes in [
            &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame at all, and long enough",
        ] {
            let answer = door.says(bytes).await.with_context(|| format!("{port}: {bytes:?}"))?;
            // In HTTP/1.1, or in HTTP/2 the server's SETTINGS and a GOAWAY.
            let goaway = answer.as_bytes().windows(4).any(|head| head == [8, kind::GOAWAY, 0, 0]);
            ensure!(answer.starts_with("HTTP/1.1 400 ") || goaway, "{port}: {bytes:?}: {answer:?}");
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    scene.is_well().await
}

/// What is written as fast as it is taken, until the server has had enough or does not take more for so long.
const FLOODED_FOR: Duration = Duration::from_secs(3);

/// Writes these bytes again and again, `times` at most; what is said in the end.
async fn flood(door: &Door, settings: &[u8], next: impl Fn(u32) -> Vec<u8>, times: u32) -> Result<(u32, Said)> {
    let stream = door.open().await?;
    let (mut read, mut write) = tokio::io::split(stream);
    write.write_all(&[PREFACE, &frame(kind::SETTINGS, 0, 0, settings)].concat()).await?;
    let mut written = 0;
    let writing = async {
        for time in 0..times {
            if write.write_all(&next(time)).await.is_err() {
                break;
            }
            written += 1;
        }
    };
    // Nobody reads meanwhile: what the server owes us has to have a bound, too.
    let _ = timeout(FLOODED_FOR, writing).await;
    let said = frames::read(&mut read, SAID_WITHIN).await;
    Ok((written, said))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_take_no_memory_and_nobody_elses_requests() -> Result<()> {
    let scene = Scene::start(&["--insecure"]).await?;
    scene.is_well().await?;
    let get = |stream: u32| frame(kind::HEADERS, WHOLE | END, stream, &block("GET", HOST, &[]));
    let id = |time: u32| time * 2 + 1;
    for (port, door) in scene.doors() {
        let before = scene.memory()?;
        let reset = |time| [get(id(time)), frame(kind::RST_STREAM, 0, id(time), &[0, 0, 0, 8])].concat();
        let more = |time| match time {
            0 => frame(kind::HEADERS, END, 1, &block("GET", HOST, &[])),
            _ => frame(kind::CONTINUATION, 0, 1, &field("x", &"a".repeat(8_000))),
        };
        let bomb = |time| {
            // One entry of the table, and then its index again and again.
            let mut bytes = block("GET", HOST, &[]);
            bytes.extend([&[0x40][..], &field("x", &"a".repeat(4_000))[1..]].concat());
            bytes.extend([0xbe; 12_000]);
            frame(kind::HEADERS, WHOLE | END, id(time), &bytes)
        };
        let empty = |time| match time {
            0 => frame(kind::HEADERS, WHOLE, 1, &block("POST", HOST, &[])),
            _ => frame(kind::DATA, 0, 1, &[]).repeat(100),
        };
        const GOES_AWAY: &[u32] = &[11, 1];
        let floods: [(&str, &dyn Fn(u32) -> Vec<u8>, u32, Option<&[u32]>); 8] = [
            ("rapid reset", &reset, 20_000, Some(GOES_AWAY)),
            ("CONTINUATION", &more, 10_000, Some(GOES_AWAY)),
            ("a bomb of HPACK", &bomb, 200, None),
            ("SETTINGS", &|_| frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]).repeat(100), 5_000, None),
            ("PING", &|_| frame(kind::PING, 0, 0, &[7; 8]).repeat(100), 5_000, None),
            ("PRIORITY", &|time| frame(kind::PRIORITY, 0, id(time), &[0, 0, 0, 0, 1]).repeat(100), 5_000, None),
            ("WINDOW_UPDATE", &|_| frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(100), 5_000, None),
            ("empty DATA", &empty, 5_000, None),
        ];
        for (what, next, times, code) in floods {
            let (written, said) = flood(&door, &[], next, times).await.with_context(|| format!("{port}: {what}"))?;
            let more = scene.memory()?.saturating_sub(before);
            println!("{port}: {what}: {said} after {written} of {times}, {} KiB more", more >> 10);
            if let Some(codes) = code {
                let ended = matches!(said, Said::GoAway(code) if codes.contains(&code)) || said == Said::Closed;
                ensure!(ended, "{port}: {what}: {said} after {written}");
                ensure!(written < times, "{port}: {what}: it took all of it");
            }
            ensure!(more < MOST_MEMORY, "{port}: {what}: {more} bytes");
            scene.is_well().await.with_context(|| format!("{port}: {what}"))?;
        }
    }
    Ok(())
}

/// A connection of HTTP/2 with as many streams as it may have, each of which asks for something and lets nothing in.
async fn without_a_window(door: &Door) -> Result<Box<dyn Bytes>> {
    let mut stream = door.open().await?;
    let nothing = frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let requests: Vec<u8> =
        (0..200).flat_map(|n| frame(kind::HEADERS, WHOLE | END, n * 2 + 1, &block("GET", HOST, &[]))).collect();
    stream.write_all(&[PREFACE, &nothing, &requests].concat()).await?;
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_stall_do_not_keep_others_out() -> Result<()> {
    let scene = Scene::start(&["--insecure", "--stall-seconds", "2"]).await?;
    scene.is_well().await?;
    let before = scene.memory()?;
    for (port, door) in scene.doors() {
        let mut stalled = vec![without_a_window(&door).await?];
        // As many bodies that do not go on; and heads that do not.
        for bytes in
            ["POST / HTTP/1.1\r\nhost: shop.example.com\r\ncontent-length: 9\r\n\r\nabc", "GET / HTTP/1.1\r\nhost:"]
        {
            for _ in 0..200 {
                let mut stream = door.open().await?;
                stream.write_all(bytes.as_bytes()).await?;
                stalled.push(stream);
            }
        }
        // Whoever finds no room meanwhile finds some soon.
        until(&format!("{port} is well"), PATIENCE, async || scene.is_well().await).await?;
        // All but the streams, which have a connection that answers pings, are closed in the end.
        for mut stream in stalled.into_iter().skip(1) {
            let mut answer = Vec::new();
            let closed = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
            closed.with_context(|| format!("{port}: left hanging"))?.ok();
        }
        let more = scene.memory()?.saturating_sub(before);
        println!("{port}: {} KiB more", more >> 10);
        ensure!(more < MOST_MEMORY, "{port}: {more} bytes");
    }
    Ok(())
}

/// Fewer than a port takes, so that others get in.
const IDLE: usize = 9_900;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_are_in_nobodys_way() -> Result<()> {
    allow_files(IDLE + 1_000)?;
    let scene = Scene::start(&["--insecure"]).await?;
    scene.is_well().await?;
    for (port, address) in [("inbound", scene.sidecar.sidecar.inbound), ("outbound", scene.sidecar.sidecar.outbound)] {
        let before = scene.memory()?;
        let mut open = Vec::new();
        for number in 0..IDLE {
            let mut stream = TcpStream::connect(address).await?;
            // Half of them have something to say.
            if number % 2 == 0 {
                stream.write_all(b"GET / HTTP/1.1\r\n").await?;
            }
            open.push(stream);
        }
        scene.is_well().await?;
        let more = scene.memory()?.saturating_sub(before);
        println!("{port}: {} bytes for each of {IDLE} connections", more / IDLE as u64);
        ensure!(more < 3 * MOST_MEMORY, "{port}: {more} bytes");
        for mut stream in open {
            let closed = timeout(door::PATIENCE, stream.read_to_end(&mut Vec::new())).await;
            ensure!(closed.is_ok(), "{port}: whoever says nothing is kept");
        }
        scene.is_well().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_mtls_it_is_the_same() -> Result<()> {
    let scene = Scene::start(&[]).await?;
    let inbound = scene.sidecar.sidecar.inbound;
    let caller = scene.sidecar.authority.proxy("edge", "caller")?;
    let (http1, http2) = (Door::tls(inbound, &caller, None)?, Door::tls(inbound, &caller, Some("h2"))?);
    let good = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
    let is_well = async || {
        let answer = http1.says(good.as_bytes()).await?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        scene.has_not_panicked()
    };
    is_well().await?;
    let before = scene.requests();
    for (what, bytes, wanted) in messages() {
        let answer = http1.says(&bytes).await.with_context(|| what.to_owned())?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
        ensure!(status.is_some_and(|status| wanted.contains(&status)), "{what}: {answer}");
    }
    ensure!(scene.requests() == before, "a request that can be misread reached a service");
    for (what, bytes, wanted) in malformed() {
        let said = said_to(&http2, &bytes).await.with_context(|| what.to_owned())?;
        ensure!(wanted.contains(&said), "{what}: {said}");
    }
    // Plaintext, a handshake that stops, and a port full of strangers.
    let plain = Door::plain(inbound);
    plain.says(good.as_bytes()).await?;
    let before = scene.memory()?;
    let mut strangers = Vec::new();
    for _ in 0..1_000 {
        let mut stream = plain.open().await?;
        stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await?;
        strangers.push(stream);
    }
    is_well().await?;
    for mut stream in strangers {
        let closed = timeout(door::PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        ensure!(closed.is_ok(), "a handshake that stops is kept");
    }
    let more = scene.memory()?.saturating_sub(before);
    ensure!(more < MOST_MEMORY, "{more} bytes");
    is_well().await
}
