//! `ratelimit`: decisions per second, latency and cost of our rate limiter, beside a floor and its peers.
//!
//! Each case is run in rounds. In a round every server is started anew, loaded, checked and ended, one after the other in an
//! order that rotates, so that a machine that grows slower does so for all. What is compared is a server with the floor
//! of the same round; what is reported is the median of the rounds.

mod aims;
mod case;
mod connection;
mod frames;
mod load;
mod markdown;
mod peers;
mod plot;
mod redis;
mod requests;
mod results;
mod subject;

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use chancery_e2e::usage;
use clap::{Args, ValueEnum as _};

use self::{
    case::{Case, Cores},
    load::{Load, Pace, Seen},
    redis::Redis,
    requests::Keys,
    results::{Measured, Report, Round, Summary},
    subject::{Server, Subject},
};
use crate::{
    cores::{self, LOAD_CORE, NOT_PINNED, can_pin},
    machine::Machine,
    report::publish,
};

pub(crate) use self::{
    load::run as load,
    peers::{Options as Peer, run as serve},
};

/// What to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The servers to compare; all that this machine can run if none is named
    #[arg(long, value_enum, value_delimiter = ',')]
    servers: Vec<Subject>,
    /// The cases to run, by name; all if none is named
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
    /// How often each case is run with each server
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Half of the cases, once, for less time: shows that all works, in about a minute
    #[arg(long)]
    quick: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { servers: Vec::new(), cases: Vec::new(), rounds: 3, quick: false }
    }
}

impl Options {
    fn chosen_cases(&self) -> Result<Vec<Case>> {
        let all = case::all();
        for name in &self.cases {
            let names = || all.iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
            ensure!(all.iter().any(|case| case.name == name), "no case is called {name}; there are {}", names());
        }
        let chosen = |case: &Case| {
            let named = self.cases.iter().any(|name| name == case.name);
            named || self.cases.is_empty() && (!self.quick || case::QUICK.contains(&case.name))
        };
        let quicker = |case: Case| if self.quick { case.quick() } else { case };
        Ok(all.into_iter().filter(chosen).map(quicker).collect())
    }
}

/// Measures, prints and leaves the results in `out`.
pub(crate) async fn run(options: &Options, out: &Path) -> Result<()> {
    let cases = options.chosen_cases()?;
    ensure!(options.rounds > 0, "at least one round");
    let rounds = if options.quick { 1 } else { options.rounds };
    let bench = Bench::new(&options.servers, cases.first().context("no case")?).await?;
    let mut results = Vec::new();
    for case in cases {
        results.push(bench.measure(case, rounds).await?);
    }
    let report = Report { machine: Machine::describe(None), rounds, left_out: bench.left_out, cases: results };
    plot::draw(&report, out)?;
    publish(out, "ratelimit", &report, &markdown::write(&report))
}

/// Everything that outlives a case.
struct Bench {
    subjects: Vec<Subject>,
    left_out: Vec<String>,
    redis: Option<Redis>,
    pinned: bool,
    folder: tempfile::TempDir,
}

impl Bench {
    /// Finds out which servers this machine can run, each of which is started once for it.
    async fn new(wanted: &[Subject], case: &Case) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut left_out = Vec::new();
        let pinned = can_pin();
        if !pinned {
            left_out.push(NOT_PINNED.into());
        }
        let redis = match Redis::start(pinned, folder.path()).await {
            Ok(redis) => Some(redis),
            Err(error) => {
                left_out.push(format!("Redis: {error:#}"));
                None
            }
        };
        let mut bench = Self { subjects: Vec::new(), left_out, redis, pinned, folder };
        for subject in Subject::value_variants().iter().copied() {
            if !wanted.is_empty() && !wanted.contains(&subject) {
                continue;
            }
            match bench.rehearse(subject, case).await {
                Ok(()) => bench.subjects.push(subject),
                // One that was asked for by name must not be missed silently.
                Err(error) if !wanted.is_empty() => return Err(error.context(format!("{subject} does not run"))),
                Err(error) => {
                    eprintln!("ratelimit: without {subject}: {error:#}");
                    let reason = error.to_string();
                    bench.left_out.push(format!("{subject}: {}", reason.lines().next().unwrap_or_default()));
                }
            }
        }
        ensure!(bench.subjects.contains(&Subject::Floor), "without the floor nothing can be compared");
        Ok(bench)
    }

    async fn rehearse(&self, subject: Subject, case: &Case) -> Result<()> {
        self.start(subject, case).await?.check(case).await
    }

    async fn start(&self, subject: Subject, case: &Case) -> Result<Server> {
        let folder = self.folder.path().join(format!("{subject:?}"));
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        if let Some(redis) = &self.redis {
            redis.clear()?;
        }
        let cores = if self.pinned { case.cores } else { Cores::Shared };
        subject.start(&Case { cores, ..case.clone() }, self.redis.as_ref(), &folder).await
    }

    async fn measure(&self, case: Case, rounds: usize) -> Result<Summary> {
        let subjects = self.subjects.iter().filter(|subject| case.is_for(**subject));
        let mut measured: Vec<(Subject, Vec<Round>)> = subjects.map(|subject| (*subject, Vec::new())).collect();
        let (count, mut problems) = (measured.len(), Vec::new());
        for number in 0..case.rounds(rounds) {
            for turn in 0..count {
                let (subject, rounds) = &mut measured[(number + turn) % count];
                eprint!("ratelimit: {}, round {}, {subject}: ", case.name, number + 1);
                match self.round(*subject, &case, number).await {
                    Ok(round) => {
                        eprintln!("{:.0}/s", round.per_second);
                        rounds.push(round);
                    }
                    // One server's failure must not take the measurements of all others with it.
                    Err(error) => {
                        eprintln!("{error:#}");
                        problems.push(format!("{subject}, round {}: {error}", number + 1));
                    }
                }
            }
        }
        let servers = measured.into_iter().filter(|(_, rounds)| !rounds.is_empty());
        let servers = servers.map(|(subject, rounds)| Measured::new(subject, rounds)).collect();
        Ok(Summary::new(case, servers, problems))
    }

    async fn round(&self, subject: Subject, case: &Case, number: usize) -> Result<Round> {
        let mut server = self.start(subject, case).await?;
        let load = Load {
            to: server.address,
            connections: case.connections,
            pace: case.pace,
            keys: case.keys,
            descriptors: case.descriptors,
            warm_up: case.warm_up,
            measured: case.measured,
        };
        let empty = usage::memory(server.pid())?;
        let filled = if case.fill { Some(self.fill(&load, case)?) } else { None };
        let redis = self.redis.as_ref().filter(|_| subject.on_redis());
        let used = || anyhow::Ok((usage::cpu(server.pid())?, redis.map(Redis::cpu).transpose()?.unwrap_or_default()));
        let calls = || redis.map(Redis::calls).transpose();

        let (used_before, calls_before) = (used()?, calls()?);
        let seen = self.exert(&load, case.cores)?;
        let (used_after, calls_after) = (used()?, calls()?);
        let full = usage::memory(server.pid())?;
        let without_redis = server.without_redis().await?;
        server.check(case).await?;

        #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
        let (per_decision, seconds) = (1.0 / seen.answered.max(1) as f64, case.measured.as_secs_f64());
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let calls = calls_after.zip(calls_before).map(|(after, before)| after - before);
        #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
        Ok(Round {
            number,
            per_second: (seen.admitted + seen.refused) as f64 / seconds,
            refused_share: seen.refused as f64 / (seen.admitted + seen.refused).max(1) as f64,
            cpu_micros: micros(used_after.0 - used_before.0) * per_decision,
            redis_cpu_micros: redis.map(|_| micros(used_after.1 - used_before.1) * per_decision),
            redis_calls: calls.map(|calls| calls as f64 * per_decision),
            load_busy: seen.busy,
            memory_mb: [empty, full].map(|bytes| bytes as f64 / 1e6),
            bytes_per_key: case.fill.then(|| full.saturating_sub(empty) as f64 / f64::from(case.keys.count())),
            longest_while_filling_ms: filled.map(|seen| seen.latencies.last().map_or(0.0, |(ns, _)| *ns as f64 / 1e6)),
            without_redis: without_redis as f64 / (seen.answered.max(1) * case.descriptors as u64) as f64,
            failed: seen.failed,
            unanswered: seen.unanswered,
            latencies: seen.latencies,
        })
    }

    /// Asks for every key once.
    fn fill(&self, load: &Load, case: &Case) -> Result<Seen> {
        let load = Load {
            keys: Keys::Each(case.keys.count()),
            pace: Pace::Closed { in_flight: 16 },
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(60),
            ..load.clone()
        };
        let seen = self.exert(&load, case.cores)?;
        ensure!(seen.admitted >= case.keys.count().into(), "only {} keys were admitted", seen.admitted);
        Ok(seen)
    }

    /// Runs the load in a process of its own.
    fn exert(&self, load: &Load, cores: Cores) -> Result<Seen> {
        let pinned = self.pinned && cores == Cores::Apart;
        cores::exert("load", load, pinned.then_some(LOAD_CORE))
    }
}
