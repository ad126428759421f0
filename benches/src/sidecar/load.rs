//! The load: `chancery-bench load-http`, a process of its own so that it can have a core of its own.
//!
//! What has a request under way is a *lane*: a connection of HTTP/1.1, or one of the streams that a connection of HTTP/2 has at a time.
//! In a **closed** loop each lane sends when it has its answer, which finds out how much a subject carries. In an **open** loop
//! requests are due on a schedule that no answer can delay. A lane that is free takes the next; if none is, it waits, and
//! its latency runs from when it was due, so that a stall counts for every request that it held up.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use chancery_e2e::usage;
use hdrhistogram::Histogram;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet};

use super::{
    case::{BODY, Protocol},
    serve::message_of,
};
use crate::statistics::{histogram, recorded};

/// How long after the end answers are waited for.
const SILENCE: Duration = Duration::from_secs(5);

/// So many due requests may wait for a lane; more are counted as unanswered.
const MOST_DUE: usize = 1 << 16;

/// How requests are timed.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Pace {
    /// Each lane at once again.
    Closed,
    /// So many per second, over all lanes, whatever comes back.
    Open { per_second: u32 },
}

/// What to load a subject with.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Load {
    pub(super) to: SocketAddr,
    pub(super) protocol: Protocol,
    pub(super) connections: usize,
    /// Lanes of a connection.
    pub(super) streams: usize,
    pub(super) pace: Pace,
    pub(super) warm_up: Duration,
    pub(super) measured: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Seen {
    /// Good answers that count: in a closed loop those that came in the measured time, in an open one those that were due in it.
    pub(super) counted: u64,
    /// Good answers at any time.
    pub(super) answered: u64,
    /// Answers that are not what was asked for, at any time.
    pub(super) failed: u64,
    /// Due or sent, but not answered in the end.
    pub(super) unanswered: u64,
    /// Share of one core that the load itself used.
    pub(super) busy: f64,
    /// Latencies of what was counted, as pairs of nanoseconds and how often.
    pub(super) latencies: Vec<(u64, u64)>,
}

/// Loads, and writes what came of it to standard output.
pub(crate) fn run(load: &str) -> Result<()> {
    let load: Load = serde_json::from_str(load).context("the load is not understood")?;
    // One thread: it has a part of one core.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = runtime.block_on(exert(&load))?;
    println!("{}", serde_json::to_string(&seen)?);
    Ok(())
}

/// What all lanes saw.
struct Tally {
    begin: Instant,
    end: Instant,
    seen: Seen,
    latencies: Histogram<u64>,
}

impl Tally {
    /// `at` decides whether it counts.
    fn count(&mut self, good: bool, at: Instant, took: Duration) {
        if !good {
            self.seen.failed += 1;
            return;
        }
        self.seen.answered += 1;
        if self.begin <= at && at < self.end {
            self.seen.counted += 1;
            self.latencies.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

fn locked(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn exert(load: &Load) -> Result<Seen> {
    let lanes = open_lanes(load).await?;
    let (before, start) = (usage::cpu(std::process::id())?, Instant::now());
    let begin = start + load.warm_up;
    let end = begin + load.measured;
    let tally = Arc::new(Mutex::new(Tally { begin, end, seen: Seen::default(), latencies: histogram() }));
    let mut running = JoinSet::new();
    let mut schedule = None;
    match load.pace {
        Pace::Closed => {
            for lane in lanes {
                running.spawn(closed(lane, end, tally.clone()));
            }
        }
        Pace::Open { per_second } => {
            ensure!(per_second > 0, "no requests");
            let (send, due) = mpsc::channel(MOST_DUE);
            let due = Arc::new(tokio::sync::Mutex::new(due));
            for lane in lanes {
                running.spawn(open(lane, due.clone(), tally.clone()));
            }
            schedule = Some(thread::spawn(move || keep_schedule(&send, per_second, start, end)));
        }
    }
    // How many a closed loop sent in vain is how many lanes hang.
    let in_vain = running.len();
    let mut ended = 0;
    let deadline = tokio::time::Instant::from_std(end + SILENCE);
    while let Ok(Some(lane)) = tokio::time::timeout_at(deadline, running.join_next()).await {
        lane??;
        ended += 1;
    }
    let busy = (usage::cpu(std::process::id())? - before).as_secs_f64() / start.elapsed().as_secs_f64();
    let mut tally = locked(&tally);
    tally.seen.unanswered = match schedule.map(thread::JoinHandle::join) {
        Some(due) => due.unwrap_or_default().saturating_sub(tally.seen.answered + tally.seen.failed),
        None => (in_vain - ended) as u64,
    };
    Ok(Seen { busy, latencies: recorded(&tally.latencies), ..tally.seen.clone() })
}

async fn closed(mut lane: Lane, end: Instant, tally: Arc<Mutex<Tally>>) -> Result<()> {
    let mut since = Instant::now();
    while since < end {
        let good = lane.ask().await?;
        let now = Instant::now();
        locked(&tally).count(good, now, now - since);
        since = now;
    }
    Ok(())
}

async fn open(
    mut lane: Lane,
    due: Arc<tokio::sync::Mutex<mpsc::Receiver<Instant>>>,
    tally: Arc<Mutex<Tally>>,
) -> Result<()> {
    loop {
        let next = due.lock().await.recv().await;
        let Some(since) = next else { return Ok(()) };
        let good = lane.ask().await?;
        locked(&tally).count(good, since, since.elapsed());
    }
}

/// Says when each request is due, and how many were. A thread of its own: the runtime's timers are too coarse.
fn keep_schedule(due: &mpsc::Sender<Instant>, per_second: u32, start: Instant, end: Instant) -> u64 {
    let mut number = 0;
    loop {
        let at = start + Duration::from_secs(1) * number / per_second;
        if at >= end {
            return number.into();
        }
        number += 1;
        loop {
            let early = at.saturating_duration_since(Instant::now());
            if early.is_zero() {
                break;
            }
            // Nobody unparks it. Spinning instead would take the core from the upstream, which shares it.
            thread::park_timeout(early);
        }
        // What there is no room for is missed in the end, and counted as unanswered.
        let _ = due.try_send(at);
    }
}

async fn open_lanes(load: &Load) -> Result<Vec<Lane>> {
    ensure!(load.connections > 0 && load.streams > 0, "no connection");
    ensure!(load.streams == 1 || load.protocol.is_http2(), "HTTP/1.1 has one request at a time");
    let request = request(load.protocol)?;
    let mut lanes = Vec::new();
    for _ in 0..load.connections {
        let stream = TcpStream::connect(load.to).await?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        // Connections end with their senders, which the lanes have.
        if load.protocol.is_http2() {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            let lane = || Lane { sender: Sender::Http2(sender.clone()), request: request.clone() };
            lanes.extend(std::iter::repeat_with(lane).take(load.streams));
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            lanes.push(Lane { sender: Sender::Http1(sender), request: request.clone() });
        }
    }
    Ok(lanes)
}

/// What a lane sends.
fn request(protocol: Protocol) -> Result<Request<Full<Bytes>>> {
    let host = protocol.host();
    let builder = Request::builder().header(header::USER_AGENT, "chancery-bench");
    Ok(match protocol {
        Protocol::Http1 => builder.uri("/items/7").header(header::HOST, host).body(Full::default())?,
        Protocol::Http2 => builder.uri(format!("http://{host}/items/7")).body(Full::default())?,
        Protocol::Grpc => builder
            .method(Method::POST)
            .uri(format!("http://{host}/shop.Items/Find"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(Full::new(message_of(BODY)))?,
    })
}

/// Whoever has one request under way at a time.
struct Lane {
    sender: Sender,
    request: Request<Full<Bytes>>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Lane {
    /// Sends a request and reads its answer to the end; whether it is the right one.
    ///
    /// # Errors
    /// The connection broke.
    async fn ask(&mut self) -> Result<bool> {
        let request = self.request.clone();
        let grpc = request.method() == Method::POST;
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let (status, mut body) = (response.status(), response.into_body());
        let (mut bytes, mut grpc_ok) = (0, false);
        while let Some(frame) = body.frame().await {
            let frame = frame?;
            bytes += frame.data_ref().map_or(0, Bytes::len);
            grpc_ok |=
                frame.trailers_ref().is_some_and(|trailers| trailers.get("grpc-status").is_some_and(|s| s == "0"));
        }
        Ok(status == StatusCode::OK && bytes == BODY && grpc_ok == grpc)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

    use chancery_e2e::port::free_port;

    use super::*;
    use crate::sidecar::serve;

    /// The upstream, and a floor before it, until the test ends.
    async fn floor(http2: bool) -> (SocketAddr, JoinSet<Result<()>>) {
        let [upstream, floor] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let mut serving = JoinSet::new();
        serving.spawn(serve::upstream(upstream));
        serving.spawn(serve::floor(floor, upstream, http2));
        for address in [upstream, floor] {
            while TcpStream::connect(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        }
        (floor, serving)
    }

    fn load(to: SocketAddr, protocol: Protocol, pace: Pace) -> Load {
        let streams = if protocol.is_http2() { 3 } else { 1 };
        let (warm_up, measured) = (Duration::ZERO, Duration::from_millis(300));
        Load { to, protocol, connections: 2, streams, pace, warm_up, measured }
    }

    #[tokio::test]
    async fn a_closed_loop_counts_good_answers_through_the_floor() {
        for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Grpc] {
            let (to, _serving) = floor(protocol.is_http2()).await;
            let seen = exert(&load(to, protocol, Pace::Closed)).await.unwrap();
            assert!(seen.counted > 10 && seen.failed == 0 && seen.unanswered == 0, "{protocol:?}: {seen:?}");
            let recorded: u64 = seen.latencies.iter().map(|(_, count)| count).sum();
            assert_eq!(recorded, seen.counted);
        }
    }

    #[tokio::test]
    async fn an_open_loop_keeps_its_schedule() {
        let (to, _serving) = floor(false).await;
        let seen = exert(&load(to, Protocol::Http1, Pace::Open { per_second: 500 })).await.unwrap();
        assert_eq!((seen.counted, seen.unanswered, seen.failed), (150, 0, 0));
    }

    #[tokio::test]
    async fn a_stall_counts_for_every_request_that_it_held_up() {
        // Answers nothing for as long as the load takes, and then everything.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let stall = tokio::time::Instant::now() + Duration::from_millis(300);
            serve::accept(listener, move |request| async move {
                tokio::time::sleep_until(stall).await;
                serve::answer(request).await
            })
            .await
        });
        let seen = exert(&load(to, Protocol::Http1, Pace::Open { per_second: 500 })).await.unwrap();
        let late = seen.latencies.iter().filter(|(nanoseconds, _)| *nanoseconds > 100_000_000);
        let late: u64 = late.map(|(_, count)| count).sum();
        // Two lanes alone sent a request before the stall was over.
        assert!(late > 80 && seen.counted == 150, "{late} of {}", seen.counted);
    }

    #[tokio::test]
    async fn answers_that_are_not_what_was_asked_for_are_failures() {
        // Nobody listens there.
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut serving = JoinSet::new();
        serving.spawn(serve::floor(address, SocketAddr::from(([127, 0, 0, 1], free_port())), false));
        while TcpStream::connect(address).await.is_err() {
            tokio::task::yield_now().await;
        }
        let seen = exert(&load(address, Protocol::Http1, Pace::Closed)).await.unwrap();
        assert!(seen.failed > 0 && seen.answered == 0, "{seen:?}");
    }
}
