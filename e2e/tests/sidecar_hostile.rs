//! Strangers at both ports of a sidecar: bytes that could be read in two ways, frames that are none, floods, and callers that
//! take for ever. Each gets a clear answer; none makes the process long, and none makes it panic.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    client::{fetch, get},
    document::{route, service_with},
    door::{self, Bytes, Door},
    frames::{self, END, PREFACE, Said, WHOLE, block, field, frame, kind},
    malformed::{self, HOST},
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_be_read_in_two_ways_is_answered_and_passed_to_nobody() -> Result<()> {
    let scene = Scene::start(&["--insecure"]).await?;
    for (port, door) in scene.doors() {
        let before = scene.requests();
        for (what, bytes, wanted) in malformed::messages() {
            let answer = door.says(&bytes).await.with_context(|| format!("{port}: {what}"))?;
            let status = answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
            ensure!(status.is_some_and(|status| wanted.contains(&status)), "{port}: {what}: {answer}");
            ensure!(answer.matches("HTTP/1.1 ").count() == 1, "{port}: {what}: {answer}");
        }
        ensure!(scene.requests() == before, "{port}: {} requests reached a service", scene.requests() - before);
    }
    // The heads of these are fine, so that they may still be on their way to a service when they have been answered.
    for (port, door) in scene.doors() {
        // A head of two minds is answered as chunks alone, and nothing after it is read (RFC 9112, 6.1).
        for both in
            ["content-length: 3\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 3"]
        {
            let second = format!("GET /smuggled HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
            let bytes = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\n{both}\r\n\r\n3\r\nabc\r\n0\r\n\r\n{second}");
            let answer = door.says(bytes.as_bytes()).await.with_context(|| format!("{port}: {both}"))?;
            ensure!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("smuggled"), "{port}: {both}: {answer}");
        }
        for (what, chunks) in malformed::CHUNKS {
            let head = format!("POST / HTTP/1.1\r\nhost: {HOST}\r\ntransfer-encoding: chunked\r\n\r\n");
            let bytes = format!("{head}{chunks}GET /smuggled HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
            let answer = door.says(bytes.as_bytes()).await.with_context(|| format!("{port}: {what}"))?;
            ensure!(answer.starts_with("HTTP/1.1 400 "), "{port}: {what}: {answer}");
            ensure!(!answer.contains("smuggled"), "{port}: {what}: {answer}");
        }
    }
    scene.is_well().await
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
        for (what, bytes, wanted) in malformed::frames() {
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

/// What it is, the bytes of each time, how often, and the codes of the `GOAWAY` that it has to end with, if it has to.
type Flood<'a> = (&'a str, &'a dyn Fn(u32) -> Vec<u8>, u32, Option<&'a [u32]>);

/// Writes these bytes again and again, `times` at most; what is said in the end.
async fn flood(door: &Door, next: impl Fn(u32) -> Vec<u8>, times: u32) -> Result<(u32, Said)> {
    let stream = door.open().await?;
    let (mut read, mut write) = tokio::io::split(stream);
    write.write_all(&[PREFACE, &frame(kind::SETTINGS, 0, 0, &[])].concat()).await?;
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
        let floods: [Flood<'_>; 8] = [
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
            let (written, said) = flood(&door, next, times).await.with_context(|| format!("{port}: {what}"))?;
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
    for (what, bytes, wanted) in malformed::messages() {
        let answer = http1.says(&bytes).await.with_context(|| what.to_owned())?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
        ensure!(status.is_some_and(|status| wanted.contains(&status)), "{what}: {answer}");
    }
    ensure!(scene.requests() == before, "a request that can be misread reached a service");
    for (what, bytes, wanted) in malformed::frames() {
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
