//! `config-push`: how long an edit takes until a real Envoy serves it, and what it costs.
//!
//! Two passes, because a client that requests without pause uses what is to be measured. In the first, time runs from
//! the API's answer to a write until a response shows it, on one kept connection. In the second nobody
//! requests, each edit waits for the proxy's acknowledgement, and CPU and bytes are accounted for.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use chancery_e2e::{
    bootstrap::{Protocol, XDS_CLUSTER},
    client::{Connection, get},
    envoy::Envoy,
    scene::Scene,
    usage,
    wait::{PATIENCE, until},
};
use clap::Args;
use serde::Serialize;

use crate::{
    catalog::{configure, host, pick, route},
    machine::Machine,
    report::{Samples, milliseconds, publish, table},
};

/// An edit that is not served by then has failed.
const LOST: Duration = Duration::from_secs(60);

/// How often a start is measured.
const STARTS: usize = 5;

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Edits per catalog
    #[arg(long, default_value_t = 300)]
    edits: usize,
    /// Catalogs to measure with, each as ROUTES:SERVICES
    #[arg(long, value_delimiter = ',', default_values_t = CATALOGS.map(str::to_owned))]
    catalogs: Vec<String>,
    /// Let Envoy speak state of the world instead of delta
    #[arg(long)]
    sotw: bool,
}

/// The last one tells what other services cost, beside the second.
const CATALOGS: [&str; 4] = ["10:1", "1000:100", "5000:500", "1000:1000"];

impl Default for Options {
    fn default() -> Self {
        Self { edits: 300, catalogs: CATALOGS.map(str::to_owned).to_vec(), sotw: false }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    machine: Machine,
    protocol: &'static str,
    edits: usize,
    catalogs: Vec<Measured>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    routes: usize,
    services: usize,
    /// Time the write itself took.
    write: Samples,
    /// From the answer of the write to the first response that shows it.
    served: Samples,
    control_plane_cpu_per_edit_ms: f64,
    envoy_cpu_per_edit_ms: f64,
    bytes_per_edit: f64,
    /// Envoy's own record of how long it took to take an update, by subscription.
    envoy_update_ms: Vec<String>,
    /// Without configuration, and with all of it.
    control_plane_memory_mb: [f64; 2],
    /// From the start of the program to its readiness, with all of it configured.
    start: Samples,
}

/// Measures, prints and leaves the results in `out`.
pub(crate) async fn run(options: &Options, out: &Path) -> Result<()> {
    let program = chancery_e2e::required::envoy().context("config-push needs Envoy")?;
    let protocol = if options.sotw { Protocol::StateOfTheWorld } else { Protocol::Delta };
    let mut catalogs = Vec::new();
    for catalog in &options.catalogs {
        let sizes = catalog.split_once(':').and_then(|(r, s)| Some((r.parse().ok()?, s.parse().ok()?)));
        let (routes, services) = sizes.with_context(|| format!("{catalog} is not ROUTES:SERVICES"))?;
        ensure!(routes >= 1 && services >= 1, "{catalog}: at least one of each");
        eprintln!("config-push: {routes} routes, {services} services, {} edits", options.edits);
        catalogs.push(measure(protocol, routes, services, options.edits).await?);
    }
    let report = Report {
        machine: Machine::describe(Some(&program)),
        protocol: if options.sotw { "state of the world" } else { "delta" },
        edits: options.edits,
        catalogs,
    };
    publish(out, "config-push", &report, &markdown(&report))
}

async fn measure(protocol: Protocol, routes: usize, services: usize, edits: usize) -> Result<Measured> {
    let mut scene = Scene::start(protocol).await?.context("config-push needs Envoy")?;
    let idle = usage::memory(scene.control_plane.pid())?;
    configure(&scene.api, routes, services).await?;
    let mut connection = Connection::open(scene.web).await?;
    let last = routes - 1;
    shown(&mut connection, last, "start").await.context("the catalog does not arrive at Envoy")?;

    let (mut write, mut served) = (Samples::default(), Samples::default());
    for edit in 0..edits {
        let (target, body) = (pick(edit, routes), format!("edit-{edit}"));
        let document = route(target, services, &body);
        let begun = Instant::now();
        scene.api.put(&document).await?;
        let answered = Instant::now();
        shown(&mut connection, target, &body).await?;
        served.push(answered.elapsed());
        write.push(answered - begun);
    }

    let (pid, envoy) = (scene.control_plane.pid(), &scene.envoy);
    let before = (usage::cpu(pid)?, usage::cpu(envoy.pid())?, received(envoy).await?);
    for edit in 0..edits {
        scene.api.put_and_wait(&route(pick(edit, routes), services, &format!("again-{edit}"))).await?;
    }
    let after = (usage::cpu(pid)?, usage::cpu(envoy.pid())?, received(envoy).await?);
    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    let per_edit = |total: f64| (total / edits as f64 * 1e3).round() / 1e3;
    let envoy_update_ms = update_durations(envoy).await?;
    let loaded = usage::memory(pid)?;

    let mut start = Samples::default();
    for _ in 0..STARTS {
        scene.control_plane.terminate().await?;
        let begun = Instant::now();
        scene.control_plane.start_again().await?;
        start.push(begun.elapsed());
    }
    #[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
    let (megabytes, bytes) = (|bytes: u64| (bytes as f64 / 1e5).round() / 10.0, (after.2 - before.2) as f64);
    Ok(Measured {
        routes,
        services,
        write,
        served,
        control_plane_cpu_per_edit_ms: per_edit(milliseconds(after.0 - before.0)),
        envoy_cpu_per_edit_ms: per_edit(milliseconds(after.1 - before.1)),
        bytes_per_edit: per_edit(bytes).round(),
        envoy_update_ms,
        control_plane_memory_mb: [megabytes(idle), megabytes(loaded)],
        start,
    })
}

/// Requests without pause until the response shows `body`.
async fn shown(connection: &mut Connection, number: usize, body: &str) -> Result<()> {
    let (host, begun) = (host(number), Instant::now());
    loop {
        let response = connection.send(get(&host, "/version")).await?;
        if response.body == body.as_bytes() {
            return Ok(());
        }
        if begun.elapsed() > LOST {
            bail!("{host} does not show {body:?} after {LOST:?}: {} {}", response.status, response.text());
        }
    }
}

async fn received(envoy: &Envoy) -> Result<u64> {
    envoy.stat(&format!("cluster.{XDS_CLUSTER}.upstream_cx_rx_bytes_total")).await
}

/// Envoy's histograms of the time an update took it, from its receipt until it is in force on the main thread.
///
/// It adds up its histograms every few seconds, so they are waited for.
async fn update_durations(envoy: &Envoy) -> Result<Vec<String>> {
    until("Envoy adds up its histograms", PATIENCE, async || {
        // Not those of each cluster's endpoints: no edit here changes one.
        let text = envoy.ask("/stats?filter=^(http|listener_manager|cluster_manager).*update_duration").await?.text();
        ensure!(text.contains("P100("), "it has: {text}");
        Ok(text.lines().filter_map(update_duration).collect())
    })
    .await
}

/// A histogram that holds more than zeros, in a few words.
fn update_duration(line: &str) -> Option<String> {
    let (name, quantiles) = line.split_once(".update_duration: ")?;
    let quantile = |name: &str| {
        let (_, rest) = quantiles.split_once(&format!("{name}("))?;
        // Two readings: of the last interval, and since the start.
        rest.split(')').next()?.split(',').nth(1)?.parse::<f64>().ok()
    };
    let [p50, p99, max] = ["P50", "P99", "P100"].map(quantile);
    let max = max.filter(|max| *max > 0.0)?;
    Some(format!("{name}: p50 {:.1}, p99 {:.1}, max {max:.1}", p50?, p99?))
}

fn markdown(report: &Report) -> String {
    let header = [
        "routes",
        "services",
        "p50 ms",
        "p99 ms",
        "max ms",
        "write p50",
        "CPU/edit ms",
        "Envoy CPU/edit",
        "bytes/edit",
        "idle MB",
        "loaded MB",
        "start ms",
    ];
    let rows: Vec<Vec<String>> = report
        .catalogs
        .iter()
        .map(|row| {
            let ms = |time: Duration| format!("{:.1}", milliseconds(time));
            vec![
                row.routes.to_string(),
                row.services.to_string(),
                ms(row.served.quantile(0.5)),
                ms(row.served.quantile(0.99)),
                ms(row.served.quantile(1.0)),
                ms(row.write.quantile(0.5)),
                format!("{:.2}", row.control_plane_cpu_per_edit_ms),
                format!("{:.2}", row.envoy_cpu_per_edit_ms),
                row.bytes_per_edit.to_string(),
                format!("{:.1}", row.control_plane_memory_mb[0]),
                format!("{:.1}", row.control_plane_memory_mb[1]),
                ms(row.start.quantile(0.5)),
            ]
        })
        .collect();
    let envoy: Vec<String> = report
        .catalogs
        .iter()
        .flat_map(|row| row.envoy_update_ms.iter().map(|line| format!("- {} routes: {line}", row.routes)))
        .collect();
    format!(
        "# config-push\n\n{}\n\n{} edits of one route per catalog, {} xDS over mTLS, one Envoy. Times run from the API's \
         answer to the first response\nthat shows the edit; CPU and bytes are per edit, for the control plane and for Envoy, \
         without traffic.\n\n{}\nEnvoy's own time to take an update, in ms:\n\n{}\n",
        report.machine,
        report.edits,
        report.protocol,
        table(&header, &rows),
        envoy.join("\n"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_of_envoy_is_read() {
        let line = "cluster_manager.cds.update_duration: P0(nan,0) P50(nan,1.08) P99(2,3.09) P99.9(2,3.1) P100(2,3.1)";
        let wanted = "cluster_manager.cds: p50 1.1, p99 3.1, max 3.1";
        assert_eq!(update_duration(line).as_deref(), Some(wanted));
        assert_eq!(update_duration("cluster_manager.cds.update_duration: No recorded values"), None);
    }
}
