//! `xds-faults`: what clients that misbehave cost the proxies that do not, and the server.
//!
//! For each fault a control plane of its own with a fleet that behaves, over mTLS. A route is edited again and again at a
//! steady pace: for a while in peace, then while clients misbehave, then in peace again. What the fault costs is how much later
//! the proxies have an edit than in the two times of peace around it, so that a machine that grows slower does not look like one. Memory
//! and CPU are the server's. All clients share the machine with the server, so delays are theirs as well; those who misbehave get what
//! the others leave of its cores, as in reality they have cores of their own.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use chancery_e2e::{
    faults::{Fault, Misbehaving, stage::Stage},
    process::{allow_files, yield_to_others},
};
use clap::Args;
use serde::Serialize;
use tokio::runtime::{Handle, Runtime};

use crate::{
    machine::Machine,
    report::{Samples, milliseconds, publish, table},
};

/// Longer than the server takes to find out that a socket is not read.
const NOTICED: Duration = Duration::from_secs(90);

/// How long the server is left alone before its memory is read.
const QUIET: Duration = Duration::from_secs(2);

/// How long the clients may take to do all that they are to, beyond the time that is given.
const LATE: Duration = Duration::from_secs(600);

/// How much later p99 may be because of a fault.
const AIM_MS: f64 = 10.0;

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Proxies that behave
    #[arg(long, default_value_t = 200)]
    proxies: usize,
    /// Services, and as many routes
    #[arg(long, default_value_t = 1_000)]
    services: usize,
    /// How long clients misbehave; there is peace for half as long before, and after
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// How often clients reconnect, and others are refused, all together, in that time
    #[arg(long, default_value_t = 10_000)]
    reconnects: u32,
    /// From one edit to the next
    #[arg(long, default_value_t = 50)]
    every_ms: u32,
    /// A first look: 50 proxies, 100 services, 10 seconds
    #[arg(long)]
    quick: bool,
    /// Only faults that are called so, in part
    #[arg(long)]
    only: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        let (proxies, services, seconds, reconnects, every_ms) = (200, 1_000, 60, 10_000, 50);
        Self { proxies, services, seconds, reconnects, every_ms, quick: false, only: None }
    }
}

/// Everything of one run.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    machine: Machine,
    proxies: usize,
    services: usize,
    seconds: u32,
    measured: Vec<Measured>,
}

/// What one fault does.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    fault: String,
    clients: usize,
    rounds: u64,
    peace: Span,
    fault_on: Span,
    /// Resident memory of the server: before, at most meanwhile, after.
    memory: [u64; 3],
}

/// A time in which edits were made.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    edits: u32,
    /// From the request of an edit until a proxy has it: of all proxies.
    reach: Samples,
    seconds: f64,
    /// CPU time of the server.
    cpu_seconds: f64,
    most_memory: u64,
}

/// Measures, prints and leaves the results in `out`.
pub(crate) async fn run(options: &Options, out: &Path) -> Result<()> {
    let quick = Options { proxies: 50, services: 100, seconds: 10, reconnects: 1_500, ..Options::default() };
    let &Options { proxies, services, seconds, .. } = if options.quick { &quick } else { options };
    ensure!(proxies > 0 && services > 0 && seconds > 0, "nothing to measure");
    let settings = if options.quick { &quick } else { options };
    allow_files(2 * proxies + 1_000)?;
    let wanted = |fault: &Fault| options.only.as_ref().is_none_or(|only| fault.to_string().contains(only.as_str()));
    let mut measured = Vec::new();
    for fault in Fault::ALL.into_iter().filter(wanted) {
        eprintln!("xds-faults: {fault}");
        measured.push(measure(fault, settings).await?);
    }
    ensure!(!measured.is_empty(), "no fault is called so");
    let report = Report { machine: Machine::describe(None), proxies, services, seconds, measured };
    publish(out, "xds-faults", &report, &report.markdown())
}

async fn measure(fault: Fault, options: &Options) -> Result<Measured> {
    let mut stage = Stage::set(options.proxies, options.services, fault).await?;
    let whole = Duration::from_secs(options.seconds.into());
    let every = Duration::from_millis(options.every_ms.into());
    let (mut peace, mut fault_on) = (Span::default(), Span::default());
    peace.edit(&mut stage, whole / 2, every, None).await?;
    tokio::time::sleep(QUIET).await;
    let before = stage.memory()?;

    let aside = Aside::new()?;
    let clients = stage.misbehave_on(&aside.handle, pause(fault, options));
    let rounds = match fault {
        Fault::Reconnects | Fault::Refused => options.reconnects.into(),
        _ => fault.clients() as u64,
    };
    fault_on.edit(&mut stage, whole, every, Some((&clients, rounds))).await?;
    clients.check()?;
    let rounds = clients.rounds();
    drop(clients);
    stage.left_alone(NOTICED).await?;
    stage.settled().await?;
    tokio::time::sleep(QUIET).await;
    let after = stage.memory()?;

    peace.edit(&mut stage, whole / 2, every, None).await?;
    let memory = [before, fault_on.most_memory, after];
    Ok(Measured { fault: fault.to_string(), clients: fault.clients(), rounds, peace, fault_on, memory })
}

/// Threads for clients that misbehave, which make way for all others.
struct Aside {
    handle: Handle,
    threads: Option<Runtime>,
}

impl Aside {
    fn new() -> Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let threads = builder.worker_threads(2).on_thread_start(yield_to_others).enable_all().build()?;
        Ok(Self { handle: threads.handle().clone(), threads: Some(threads) })
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // A task may not wait for threads.
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// How long a client waits from one round to the next, where it would otherwise keep the machine busy with nothing but
/// handshakes.
fn pause(fault: Fault, options: &Options) -> Option<Duration> {
    let clients = u32::try_from(fault.clients()).unwrap_or(u32::MAX);
    match fault {
        Fault::Reconnects | Fault::Refused => {
            Some(Duration::from_secs(options.seconds.into()) * clients / options.reconnects.max(1))
        }
        Fault::Liar => Some(Duration::from_millis(100) * clients),
        _ => None,
    }
}

impl Span {
    /// Makes edits for so long, and until the clients have misbehaved often enough.
    async fn edit(
        &mut self,
        stage: &mut Stage,
        time: Duration,
        every: Duration,
        clients: Option<(&Misbehaving, u64)>,
    ) -> Result<()> {
        let (begun, cpu) = (Instant::now(), stage.cpu()?);
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let enough = || clients.is_none_or(|(clients, rounds)| clients.rounds() >= rounds);
        while begun.elapsed() < time || !enough() {
            ensure!(begun.elapsed() < time + LATE, "the clients do not misbehave often enough");
            ticks.tick().await;
            stage.edit().await?.into_iter().for_each(|reached| self.reach.push(reached));
            self.edits += 1;
            self.most_memory = self.most_memory.max(stage.memory()?);
        }
        self.seconds += begun.elapsed().as_secs_f64();
        self.cpu_seconds += (stage.cpu()? - cpu).as_secs_f64();
        Ok(())
    }

    fn quantile(&self, share: f64) -> f64 {
        milliseconds(self.reach.quantile(share))
    }

    /// Of one core, in percent.
    fn cpu(&self) -> f64 {
        self.cpu_seconds / self.seconds * 100.0
    }
}

impl Measured {
    fn later(&self, share: f64) -> f64 {
        self.fault_on.quantile(share) - self.peace.quantile(share)
    }

    fn row(&self) -> Vec<String> {
        let both = |share| format!("{:.1} {:.1}", self.peace.quantile(share), self.fault_on.quantile(share));
        let [before, most, after] = self.memory.map(|bytes| (bytes >> 20).to_string());
        let later_p99 = self.later(0.99);
        vec![
            self.fault.clone(),
            self.clients.to_string(),
            self.rounds.to_string(),
            both(0.5),
            both(0.99),
            format!("{:+.1}", self.later(0.5)),
            format!("{later_p99:+.1}"),
            format!("{:.0} {:.0}", self.peace.cpu(), self.fault_on.cpu()),
            format!("{before} {most} {after}"),
            if later_p99 <= AIM_MS { "met" } else { "missed" }.to_owned(),
        ]
    }
}

impl Report {
    fn markdown(&self) -> String {
        let header =
            ["fault", "clients", "rounds", "p50 ms", "p99 ms", "later p50", "later p99", "CPU %", "memory MB", "aim"];
        let rows: Vec<_> = self.measured.iter().map(Measured::row).collect();
        format!(
            "# xds-faults\n\n{}\n\n{} proxies that behave, {} services and as many routes; delta ADS over mTLS on loopback, all clients \
             on the same machine as the server.\nClients misbehave for {} s, in `rounds`. p50 and p99: from the request of an edit until a \
             proxy that behaves has it, in peace and during the\nfault; `later` the difference, in ms. CPU: of the server, in percent \
             of a core, in peace and during the fault. Memory: of the server,\nbefore, at most meanwhile, after. The aim: p99 at most \
             {AIM_MS} ms later.\n\n{}",
            self.machine,
            self.proxies,
            self.services,
            self.seconds,
            table(&header, &rows),
        )
    }
}
