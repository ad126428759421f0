//! `xds-fleet`: thousands of proxies on one server, over mTLS, each with a connection, a certificate and a stream of its own.
//!
//! The proxies are scripts that ask as Envoy does and apply nothing; they share the machine with the server, so
//! times include theirs. Memory is the server's resident set, CPU the server's alone. The same resources are served to the same
//! scripts, in the same run, by bare services that decide nothing (`floor.rs`) and, where there is Go, by go-control-plane.
//!
//! Per server and size of the fleet: connections without a stream, which have carried one request that was refused (what TLS and
//! HTTP/2 keep when they are in use), then the streams and all they ask for; changes of one endpoint, one after the other; changes of
//! many endpoints at once, as a rollout of their services makes them; then the server is killed and the fleet comes back, once with
//! nothing and once saying what it holds.

mod floor;
mod results;
mod subject;

use std::{
    fs,
    ops::Range,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    certificates::Authority,
    process::allow_files,
    scripted::{
        Fleet, PORT, called,
        script::{Catalog, Envelope, Script},
    },
    usage,
};
use clap::Args;

pub(crate) use self::floor::{Options as FloorServer, serve};
use self::{
    results::{Changes, Measured, Report},
    subject::{CHANGED, PeerCommand, Server, Subject, program},
};
use crate::{
    machine::Machine,
    report::{Samples, milliseconds, publish},
};

/// A fleet that is not served by then has failed.
const LOST: Duration = Duration::from_secs(300);

/// How long a server is left alone before its memory is read, and its CPU after the last answer.
const QUIET: Duration = Duration::from_secs(2);

/// How many endpoints are changed at once, if there are as many services.
const TOGETHER: usize = 100;

/// File descriptors beside those of the proxies.
const OTHER_FILES: usize = 200;

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Sizes of the fleet
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 5_000, 10_000])]
    proxies: Vec<usize>,
    /// Services, and as many routes
    #[arg(long, default_value_t = 1_000)]
    services: usize,
    /// Changes per server and size, of one endpoint and of many at once
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    changes: u16,
    /// A first look: 300 proxies, 100 services, 10 changes
    #[arg(long)]
    quick: bool,
    /// Leave the peer out
    #[arg(long)]
    alone: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { proxies: vec![1_000, 5_000, 10_000], services: 1_000, changes: 20, quick: false, alone: false }
    }
}

/// Measures, prints and leaves the results in `out`.
pub(crate) async fn run(options: &Options, out: &Path) -> Result<()> {
    let quick = Options { proxies: vec![300], services: 100, changes: 10, ..Options::default() };
    let Options { proxies, services, changes, .. } = if options.quick { &quick } else { options };
    let most = proxies.iter().max().copied().context("no size of a fleet is given")?;
    ensure!(*services > 0 && !proxies.contains(&0), "nothing to measure");
    allow_files(most + OTHER_FILES)?;
    let mut others = vec![Subject::Tonic, Subject::Http2];
    if !options.alone && program(Subject::Snapshot).is_some() {
        others.extend([Subject::Snapshot, Subject::Linear]);
    } else {
        eprintln!("xds-fleet: WITHOUT go-control-plane: `scripts/setup bench` builds it where there is Go");
    }
    let (mut measured, mut gave_up) = (Vec::new(), Vec::new());
    let together = TOGETHER.min(*services);
    for &count in proxies {
        let size = Size { count, changes: *changes, together };
        let folder = tempfile::tempdir()?;
        let authority = Authority::create(folder.path(), "authority")?;
        eprintln!("xds-fleet: {count} proxies, {services} services: certificates");
        let fleet = Fleet::new(&authority, count)?;
        let mut server = Server::ours(folder.path(), &authority, *services, *services).await?;
        let catalog = fleet.explore(server.xds()).await?;
        let resources = folder.path().join("resources");
        fs::write(&resources, catalog.encode())?;
        measured.push(measure(Subject::Chancery, &mut server, &fleet, &catalog, size).await?);
        drop(server);
        for &subject in &others {
            let program = program(subject).context("the program is gone")?;
            let mut server = Server::peer(PeerCommand {
                program,
                subject,
                resources: resources.clone(),
                authority: authority.file(),
                identity: authority.server()?,
                folder: folder.path().to_owned(),
            })
            .await?;
            // Its versions are its own; and both have served one proxy before memory is read.
            let catalog = fleet.explore(server.xds()).await?;
            match measure(subject, &mut server, &fleet, &catalog, size).await {
                Ok(one) => measured.push(one),
                // A peer may be out of its depth; that says something too.
                Err(error) => {
                    let memory = usage::memory(server.pid()).map_or(0, |bytes| bytes >> 20);
                    let reason = format!("{subject} with {count} proxies, at {memory} MB: {error:#}");
                    eprintln!("xds-fleet: GAVE UP: {reason}");
                    gave_up.push(reason.lines().next().unwrap_or_default().to_owned());
                }
            }
        }
    }
    let machine = Machine::describe(None);
    let report = Report { machine, services: *services, changes: *changes, together, measured, gave_up };
    publish(out, "xds-fleet", &report, &report.markdown())
}

/// How much is measured of one server.
#[derive(Clone, Copy)]
struct Size {
    /// Proxies.
    count: usize,
    /// Changes of one endpoint, and of many.
    changes: u16,
    /// Endpoints that are changed together.
    together: usize,
}

async fn measure(
    subject: Subject,
    server: &mut Server,
    fleet: &Fleet,
    catalog: &Catalog,
    Size { count, changes, together }: Size,
) -> Result<Measured> {
    eprintln!("xds-fleet: {count} proxies on {subject}");
    let cold = Script::cold(catalog, Envelope::endpoints);

    tokio::time::sleep(QUIET).await;
    let before = usage::memory(server.pid())?;
    let round = Arc::new(fleet.renewed());
    let mut running = round.connect_all(server.xds(), &cold).await?;
    tokio::time::sleep(QUIET).await;
    let connected = usage::memory(server.pid())?;
    round.open_all(&mut running, &cold);
    round.tally.all_synced(count, LOST).await?;
    tokio::time::sleep(QUIET).await;
    let served = usage::memory(server.pid())?;

    let single = change(server, &round, CHANGED..CHANGED + 1, changes, count).await?;
    let changed = usage::memory(server.pid())?;
    let many = change(server, &round, 0..together, changes, count).await?;
    drop(running);

    // All are as they were, but for the one that those who return hold an old version of.
    server.edit(0..together, PORT).await?;
    server.edit(CHANGED..CHANGED + 1, PORT + 1).await?;
    let mut returned = [Duration::ZERO; 2];
    let (mut bytes, mut put_off) = ([0; 2], [0; 2]);
    for (at, script) in [cold, Script::returning(catalog, &called(CHANGED))].iter().enumerate() {
        server.restart().await?;
        let (round, begun) = (Arc::new(fleet.renewed()), Instant::now());
        let running = round.start_all(server.xds(), script);
        round.tally.all_synced(count, LOST).await?;
        returned[at] = begun.elapsed();
        bytes[at] = round.tally.received.load(Ordering::Relaxed) / count as u64;
        put_off[at] = round.tally.put_off.load(Ordering::Relaxed);
        drop(running);
    }
    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    let per_proxy = |memory: u64| (memory.saturating_sub(before) as f64 / count as f64 / 102.4).round() / 10.0;
    let [cold_ms, returning_ms] = returned.map(milliseconds);
    Ok(Measured {
        subject,
        proxies: count,
        idle_kb: before / 1024,
        connection_kb: per_proxy(connected),
        served_kb: per_proxy(served),
        stream_kb: per_proxy(changed),
        single,
        many,
        cold_ms,
        returning_ms,
        bytes,
        put_off,
    })
}

/// Moves the endpoints of `services` to another port, together, and so many times: each as soon as all proxies have the one before.
async fn change(
    server: &mut Server,
    round: &Fleet,
    services: Range<usize>,
    changes: u16,
    count: usize,
) -> Result<Changes> {
    let pid = server.pid();
    let cpu = || anyhow::Ok([usage::cpu(pid)?, usage::kernel_cpu(pid)?]);
    let before = cpu()?;
    let mut reach = Samples::default();
    for port in PORT + 1..=PORT + changes {
        round.tally.begin_change(0);
        server.edit(services.clone(), port).await?;
        round.tally.change_reached(count, LOST).await?.into_iter().for_each(|time| reach.push(time));
    }
    tokio::time::sleep(QUIET).await;
    let after = cpu()?;
    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    let deliveries = (usize::from(changes) * count) as f64;
    let per_delivery = |at: usize| ((after[at] - before[at]).as_secs_f64() * 1e7 / deliveries).round() / 10.0;
    Ok(Changes {
        reach_ms: [0.5, 0.99, 1.0].map(|share| milliseconds(reach.quantile(share))),
        cpu_per_delivery_us: per_delivery(0),
        kernel_per_delivery_us: per_delivery(1),
    })
}
