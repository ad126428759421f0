//! The load: `chancery-bench load`, a process of its own so that it can have a core of its own.
//!
//! One thread per connection, blocking reads and writes: with everything that a read brought answered by one write, no
//! event loop costs less. In a **closed** loop each connection keeps a number of requests under way, which finds out how many
//! decisions a server makes. In an **open** loop requests start on a schedule that no answer can delay, and latency runs
//! from the scheduled time, so that a stall counts for every request that it held up.

use std::{
    collections::VecDeque,
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Barrier, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use chancery_e2e::usage;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{
    connection::{AUTHORITY, Answer, Connection, SILENCE},
    frames::Inbox,
    requests::{Cursor, Keys, Requests},
};
use crate::statistics::{histogram, recorded};

/// How requests are timed.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Pace {
    /// Each connection keeps so many under way.
    Closed { in_flight: usize },
    /// So many per second, over all connections, whatever comes back.
    Open { per_second: u32 },
}

/// What to load a server with.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Load {
    pub(super) to: SocketAddr,
    pub(super) connections: usize,
    pub(super) pace: Pace,
    pub(super) keys: Keys,
    pub(super) descriptors: usize,
    /// Loaded, but not counted.
    pub(super) warm_up: Duration,
    pub(super) measured: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Seen {
    /// Answers in the measured time.
    pub(super) admitted: u64,
    pub(super) refused: u64,
    pub(super) failed: u64,
    /// Answers at any time, warm-up included.
    pub(super) answered: u64,
    /// Scheduled, but not answered in the end.
    pub(super) unanswered: u64,
    /// Share of one core that the load itself used.
    pub(super) busy: f64,
    /// Latencies, as pairs of nanoseconds and how often.
    pub(super) latencies: Vec<(u64, u64)>,
}

/// When answers count.
#[derive(Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
}

/// What one connection saw.
struct Tally {
    window: Window,
    seen: Seen,
    latencies: Histogram<u64>,
}

impl Tally {
    fn new(window: Window) -> Self {
        Self { window, seen: Seen::default(), latencies: histogram() }
    }

    fn count(&mut self, answer: Answer, since: Instant, now: Instant) {
        self.seen.answered += 1;
        if now < self.window.begin || now >= self.window.end {
            return;
        }
        match answer {
            Answer::Admitted => self.seen.admitted += 1,
            Answer::Refused => self.seen.refused += 1,
            Answer::Failed => self.seen.failed += 1,
        }
        let nanoseconds = u64::try_from((now - since).as_nanos()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(nanoseconds);
    }
}

/// Loads, and writes what came of it to standard output.
pub(crate) fn run(load: &str) -> Result<()> {
    let load: Load = serde_json::from_str(load).context("the load is not understood")?;
    println!("{}", serde_json::to_string(&exert(&load)?)?);
    Ok(())
}

/// Loads.
fn exert(load: &Load) -> Result<Seen> {
    let opened: Vec<_> = (0..load.connections).map(|_| Connection::open(load.to)).collect::<Result<_>>()?;
    let remembers = opened.iter().all(|(connection, _)| connection.allowed.remembers);
    let requests = Requests::new(AUTHORITY, remembers, load.descriptors, load.keys);
    let (before, start) = (usage::cpu(std::process::id())?, Instant::now());
    let begin = start + load.warm_up;
    let window = Window { begin, end: begin + load.measured };
    let (tallies, unanswered) = match load.pace {
        Pace::Closed { in_flight } => (closed(opened, &requests, in_flight, window)?, 0),
        Pace::Open { per_second } => open(opened, &requests, per_second, start, window)?,
    };
    let busy = (usage::cpu(std::process::id())? - before).as_secs_f64() / start.elapsed().as_secs_f64();

    let (mut seen, mut latencies) = (Seen { unanswered, busy, ..Seen::default() }, histogram());
    for tally in tallies {
        seen.admitted += tally.seen.admitted;
        seen.refused += tally.seen.refused;
        seen.failed += tally.seen.failed;
        seen.answered += tally.seen.answered;
        latencies.add(&tally.latencies)?;
    }
    seen.latencies = recorded(&latencies);
    Ok(seen)
}

/// Joins all, and gives the first failure if there is one.
fn joined<T>(threads: Vec<thread::ScopedJoinHandle<'_, Result<T>>>) -> Result<Vec<T>> {
    threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a connection's thread panicked"))?).collect()
}

fn closed(
    opened: Vec<(Connection, Inbox)>,
    requests: &Requests,
    in_flight: usize,
    window: Window,
) -> Result<Vec<Tally>> {
    let connections = opened.len();
    let together = Barrier::new(connections);
    thread::scope(|scope| {
        let threads = opened.into_iter().enumerate().map(|(number, (mut connection, mut inbox))| {
            let (together, mut cursor) = (&together, Cursor::new(number, connections));
            scope.spawn(move || {
                together.wait();
                let (mut tally, mut now) = (Tally::new(window), Instant::now());
                let reader = connection.reader()?;
                loop {
                    while now < window.end
                        && connection.in_flight() < in_flight
                        && connection.has_room(requests)
                        && !requests.are_used_up(&cursor)
                    {
                        connection.send(requests, &mut cursor, now)?;
                    }
                    connection.flush()?;
                    if connection.in_flight() == 0 {
                        return Ok(tally);
                    }
                    inbox.fill(&reader).context("the server went silent")?;
                    now = Instant::now();
                    while let Some(frame) = inbox.next() {
                        if let Some((answer, since)) = connection.take(&frame)? {
                            tally.count(answer, since, now);
                        }
                    }
                }
            })
        });
        joined(threads.collect())
    })
}

/// A connection that the schedule and its own reader share.
struct Shared {
    connection: Connection,
    cursor: Cursor,
    /// Due, but the server has no room. No longer than the schedule.
    waiting: VecDeque<Instant>,
}

impl Shared {
    fn due(&mut self, requests: &Requests, at: Instant) -> Result<()> {
        self.waiting.push_back(at);
        self.start_waiting(requests)
    }

    fn start_waiting(&mut self, requests: &Requests) -> Result<()> {
        while self.connection.has_room(requests) {
            let Some(since) = self.waiting.pop_front() else { break };
            self.connection.send(requests, &mut self.cursor, since)?;
        }
        Ok(self.connection.flush()?)
    }

    fn outstanding(&self) -> usize {
        self.connection.in_flight() + self.waiting.len()
    }
}

fn locked(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(
    opened: Vec<(Connection, Inbox)>,
    requests: &Requests,
    per_second: u32,
    start: Instant,
    window: Window,
) -> Result<(Vec<Tally>, u64)> {
    let connections = opened.len();
    let (mut inboxes, mut shared, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
    for (number, (connection, inbox)) in opened.into_iter().enumerate() {
        sockets.push((connection.reader()?, connection.reader()?));
        let cursor = Cursor::new(number, connections);
        shared.push(Mutex::new(Shared { connection, cursor, waiting: VecDeque::new() }));
        inboxes.push(inbox);
    }
    let (readers, enders): (Vec<TcpStream>, Vec<TcpStream>) = sockets.into_iter().unzip();
    thread::scope(|scope| {
        let threads = inboxes.into_iter().zip(readers).zip(&shared).map(|((mut inbox, reader), shared)| {
            scope.spawn(move || {
                let mut tally = Tally::new(window);
                // The end of the load closes the socket, with nothing under way.
                while inbox.fill(&reader).is_ok() {
                    let now = Instant::now();
                    let mut shared = locked(shared);
                    while let Some(frame) = inbox.next() {
                        if let Some((answer, since)) = shared.connection.take(&frame)? {
                            tally.count(answer, since, now);
                        }
                    }
                    shared.start_waiting(requests)?;
                }
                Ok(tally)
            })
        });
        let threads = threads.collect();
        let kept = keep_schedule(&shared, requests, Duration::from_secs(1) / per_second, start, window.end);
        let unanswered = kept.map(|()| drain(&shared));
        for socket in enders {
            // It may be closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
        let tallies = joined(threads)?;
        Ok((tallies, unanswered?))
    })
}

fn keep_schedule(
    shared: &[Mutex<Shared>],
    requests: &Requests,
    interval: Duration,
    start: Instant,
    end: Instant,
) -> Result<()> {
    let mut due = start;
    for turn in shared.iter().cycle() {
        if due >= end {
            return Ok(());
        }
        loop {
            let early = due.saturating_duration_since(Instant::now());
            if early.is_zero() {
                break;
            }
            // Nobody unparks it. Spinning instead would take the core from Redis, which shares it.
            thread::park_timeout(early);
        }
        locked(turn).due(requests, due)?;
        due += interval;
    }
    bail!("no connection")
}

/// Waits until everything is answered, or the server is given up; how much is not.
fn drain(shared: &[Mutex<Shared>]) -> u64 {
    let deadline = Instant::now() + SILENCE / 2;
    loop {
        let outstanding: usize = shared.iter().map(|shared| locked(shared).outstanding()).sum();
        if outstanding == 0 || Instant::now() > deadline {
            return outstanding as u64;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

    use super::*;
    use crate::ratelimit::peers::{Limitador, limitador_on};

    /// Serves until the test ends.
    fn limiter(quota: &str) -> (SocketAddr, tokio::runtime::Runtime) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let limiter = Limitador::new(2, quota.parse().unwrap()).unwrap();
        let address = runtime.block_on(limitador_on(limiter)).unwrap();
        (address, runtime)
    }

    fn load(to: SocketAddr, pace: Pace, keys: Keys) -> Seen {
        let (warm_up, measured) = (Duration::ZERO, Duration::from_millis(300));
        exert(&Load { to, connections: 3, pace, keys, descriptors: 2, warm_up, measured }).unwrap()
    }

    #[test]
    fn a_closed_loop_counts_what_was_admitted_and_what_was_not() {
        let (to, _runtime) = limiter("5/3600");
        let seen = load(to, Pace::Closed { in_flight: 4 }, Keys::Uniform(1));
        assert_eq!((seen.admitted, seen.failed), (5, 0));
        assert!(seen.refused > 10, "{seen:?}");
        let recorded: u64 = seen.latencies.iter().map(|(_, count)| count).sum();
        assert_eq!(recorded, seen.admitted + seen.refused);
    }

    #[test]
    fn each_key_is_asked_for_once() {
        let (to, _runtime) = limiter("1/3600");
        let seen = load(to, Pace::Closed { in_flight: 4 }, Keys::Each(30));
        // A request takes two keys, one per descriptor.
        assert_eq!((seen.admitted, seen.refused, seen.answered), (15, 0, 15));
    }

    #[test]
    fn an_open_loop_keeps_its_schedule() {
        let (to, _runtime) = limiter("1000000/1");
        let seen = load(to, Pace::Open { per_second: 1_000 }, Keys::Zipf(100));
        assert_eq!((seen.answered, seen.unanswered, seen.failed), (300, 0, 0));
    }
}
