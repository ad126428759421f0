//! `sidecar`: what our sidecar adds to a request, beside no proxy, a bare hyper proxy and Envoy.
//!
//! The application's way out is measured: load → proxy → upstream, in plaintext. Sidecar and Envoy take the same configuration over
//! xDS from the same control plane. In a round every subject is started anew, loaded and ended, one after the other in
//! an order that rotates. First come closed loops, which tell what a request costs; half of what the slowest subject carried there is
//! the rate of the open loops, which tell how long it takes.

mod case;
mod load;
mod markdown;
mod results;
mod serve;
mod subject;

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{process::allow_files, usage};
use clap::{Args, ValueEnum as _};
use plotters::style::RGBColor;

use self::{
    case::{Case, Protocol},
    load::{Load, Pace, Seen},
    results::{Closed, Measured, Memory, Open, QUANTILES, Report, Summary},
    subject::{Running, Site, Subject},
};
pub(crate) use self::{
    load::run as load,
    serve::{Options as Server, run as serve},
};
use crate::{
    cores::{LOAD_CORE, NOT_PINNED, can_pin, exert},
    machine::Machine,
    plot::{self, Curve},
    report::publish,
    statistics::{median, restored},
};

/// File descriptors beside those of connections, each of which may take two of a proxy.
const OTHER_FILES: usize = 500;

/// How long a subject is left alone before its memory is read.
const QUIET: Duration = Duration::from_secs(1);

/// What to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// The subjects to compare with no proxy; all that this machine can run if none is named
    #[arg(long, value_enum, value_delimiter = ',')]
    subjects: Vec<Subject>,
    /// The cases to run (http1, http2, grpc); all if none is named
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
    /// How often each case is run with each subject
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections that are held open while memory is read
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// One round of a second each: shows that all works, in about a minute
    #[arg(long)]
    quick: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { subjects: Vec::new(), cases: Vec::new(), rounds: 3, connections: 1_000, quick: false }
    }
}

impl Options {
    fn chosen_cases(&self) -> Result<Vec<Case>> {
        let mut all = case::all(self.quick);
        let names = all.iter().map(|case| case.name).collect::<Vec<_>>().join(", ");
        for name in &self.cases {
            ensure!(all.iter().any(|case| case.name == name), "no case is called {name}; there are {names}");
        }
        all.retain(|case| self.cases.is_empty() || self.cases.iter().any(|name| name == case.name));
        Ok(all)
    }
}

/// Measures, prints and leaves the results in `out`.
pub(crate) async fn run(options: &Options, out: &Path) -> Result<()> {
    let cases = options.chosen_cases()?;
    ensure!(options.rounds > 0, "at least one round");
    let rounds = if options.quick { 1 } else { options.rounds };
    allow_files(2 * options.connections + OTHER_FILES)?;
    let bench = Bench::start(&options.subjects).await?;
    let mut results = Vec::new();
    for case in cases {
        results.push(bench.measure(case, rounds).await?);
    }
    let memory = bench.memory(options.connections, rounds).await?;
    let (machine, left_out) = (Machine::describe(bench.site.envoy()), bench.left_out);
    let report = Report { machine, rounds, left_out, cases: results, memory, connections: options.connections };
    for summary in &report.cases {
        draw(summary, out)?;
    }
    publish(out, "sidecar", &report, &markdown::write(&report))
}

/// Everything that outlives a case.
struct Bench {
    site: Site,
    subjects: Vec<Subject>,
    left_out: Vec<String>,
    pinned: bool,
}

/// What one subject has gone through in one case.
struct Course {
    subject: Subject,
    closed: Vec<Closed>,
    open: Vec<Open>,
}

impl Bench {
    /// Finds out who can be measured on this machine.
    async fn start(wanted: &[Subject]) -> Result<Self> {
        let pinned = can_pin();
        let mut left_out: Vec<String> = if pinned { vec![] } else { vec![NOT_PINNED.into()] };
        let site = Site::start(pinned).await?;
        let mut subjects = Vec::new();
        for subject in Subject::value_variants().iter().copied() {
            let always = subject == Subject::Direct || wanted.is_empty();
            if !always && !wanted.contains(&subject) {
                continue;
            }
            if subject == Subject::Envoy && site.envoy().is_none() {
                ensure!(wanted.is_empty(), "Envoy 1.40 is not on this machine");
                left_out.push(format!("{subject}: it is not on this machine"));
                continue;
            }
            subjects.push(subject);
        }
        Ok(Self { site, subjects, left_out, pinned })
    }

    async fn measure(&self, case: Case, rounds: usize) -> Result<Summary> {
        let course = |subject: &Subject| Course { subject: *subject, closed: Vec::new(), open: Vec::new() };
        let mut courses: Vec<Course> = self.subjects.iter().map(course).collect();
        let mut problems = Vec::new();
        self.rounds(&case, rounds, None, &mut courses, &mut problems).await;
        let carried = |course: &Course| median(course.closed.iter().map(|round| round.per_second).collect());
        let slowest = courses.iter().filter_map(carried).reduce(f64::min);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate, far below 2^32")]
        let rate = slowest.map(|slowest| (slowest / 2.0) as u32).filter(|rate| *rate > 0);
        if rate.is_some() {
            self.rounds(&case, rounds, rate, &mut courses, &mut problems).await;
        }
        let measured = |Course { subject, closed, open }: Course| Measured::new(subject, closed, open);
        Ok(Summary { case, per_second: rate, subjects: courses.into_iter().map(measured).collect(), problems })
    }

    /// Closed loops, or open ones at this rate.
    async fn rounds(
        &self,
        case: &Case,
        rounds: usize,
        rate: Option<u32>,
        courses: &mut [Course],
        problems: &mut Vec<String>,
    ) {
        let count = courses.len();
        for number in 0..rounds {
            for turn in 0..count {
                let course = &mut courses[(number + turn) % count];
                let kind = if rate.is_some() { "open" } else { "closed" };
                eprint!("sidecar: {}, {kind}, round {}, {}: ", case.name, number + 1, course.subject);
                match self.round(course, case, number, rate).await {
                    Ok(what) => eprintln!("{what}"),
                    // One subject's failure must not take the measurements of all others with it.
                    Err(error) => {
                        eprintln!("{error:#}");
                        problems.push(format!("{}, {kind}, round {}: {error}", course.subject, number + 1));
                    }
                }
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    async fn round(&self, course: &mut Course, case: &Case, round: usize, rate: Option<u32>) -> Result<String> {
        let running = self.site.subject(course.subject, case.protocol).await?;
        let pace = rate.map_or(Pace::Closed, |per_second| Pace::Open { per_second });
        let Case { protocol, connections, streams, warm_up, measured, .. } = *case;
        let load = Load { to: running.address, protocol, connections, streams, pace, warm_up, measured };
        let cpu = || running.pid().map(usage::cpu).transpose();
        let (cpu_before, upstream_before) = (cpu()?, self.site.upstream_cpu()?);
        let seen: Seen = exert("load-http", &load, self.pinned.then_some(LOAD_CORE))?;
        let (cpu_after, upstream_after) = (cpu()?, self.site.upstream_cpu()?);
        let memory = running.pid().map(usage::memory).transpose()?;
        running.answers(case.protocol).await.context("it does not answer after the load")?;

        let all = (seen.answered + seen.failed).max(1) as f64;
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / all;
        let cpu_micros = cpu_after.zip(cpu_before).map(|(after, before)| micros(after - before));
        let failed = (seen.failed + seen.unanswered) as f64 / all;
        if rate.is_some() {
            let latencies = restored(&seen.latencies);
            let micros = QUANTILES.map(|share| latencies.value_at_quantile(share) as f64 / 1e3);
            course.open.push(Open { round, micros, cpu_micros, failed, latencies: seen.latencies });
            return Ok(format!("p99 {:.0} µs", micros[1]));
        }
        let per_second = seen.counted as f64 / case.measured.as_secs_f64();
        course.closed.push(Closed {
            round,
            per_second,
            cpu_micros,
            upstream_micros: micros(upstream_after - upstream_before),
            load_busy: seen.busy,
            memory_mb: memory.map(megabytes),
            failed,
        });
        Ok(format!("{per_second:.0}/s"))
    }

    /// What each holds when nothing is asked of it, and with connections.
    async fn memory(&self, connections: usize, rounds: usize) -> Result<Vec<Memory>> {
        let mut all = Vec::new();
        for subject in self.subjects.iter().copied().filter(|subject| *subject != Subject::Direct) {
            let (mut idle, mut occupied) = (Vec::new(), Vec::new());
            for round in 0..rounds {
                let running = self.site.subject(subject, Protocol::Http1).await?;
                idle.push(held(&running).await?);
                let open = running.occupied(connections).await?;
                occupied.push(held(&running).await?);
                drop(open);
                eprintln!(
                    "sidecar: memory, round {}, {subject}: {:.1} MB, {:.1} MB",
                    round + 1,
                    idle[round],
                    occupied[round]
                );
            }
            let [idle_mb, occupied_mb] = [idle, occupied].map(|values| median(values).unwrap_or(f64::NAN));
            all.push(Memory { subject, idle_mb, occupied_mb });
        }
        Ok(all)
    }
}

/// Resident memory, a while after the last request.
async fn held(running: &Running) -> Result<f64> {
    tokio::time::sleep(QUIET).await;
    Ok(megabytes(usage::memory(running.pid().context("nothing runs")?)?))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn draw(summary: &Summary, out: &Path) -> Result<()> {
    let curves: Vec<Curve<'_>> = summary
        .subjects
        .iter()
        .map(|one| Curve { label: one.subject.to_string(), colour: colour(one.subject), latencies: &one.latencies })
        .collect();
    let name = summary.case.name;
    plot::draw(out, &format!("sidecar-{name}"), &format!("{name}: latency by percentile, open loop"), &curves)
}

fn colour(subject: Subject) -> RGBColor {
    match subject {
        Subject::Direct => RGBColor(180, 180, 180),
        Subject::Floor => RGBColor(90, 90, 90),
        Subject::Sidecar => RGBColor(0, 114, 178),
        Subject::Envoy => RGBColor(213, 94, 0),
    }
}
