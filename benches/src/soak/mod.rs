//! `soak`: everything at work for a long time, and whether anything grows.
//!
//! Two control planes on Postgres, two limiters on Redis, an Envoy, scripted proxies, a sidecar. There are requests, limited ones, edits,
//! proxies that all reconnect at once, tokens that are made, rotated and revoked. Memory, descriptors and threads of each of our processes
//! are read every few seconds; after a time to warm up, a line is laid through them, and what that gains until the end must be
//! within bounds. Nothing may be lost.

mod growth;
mod plot;
mod sample;

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    api::Api,
    estate::{Estate, Observation, Plan},
    process::allow_files,
    scripted::keeper::Keepers,
};
use clap::Args;
use http::Method;
use serde::Serialize;
use serde_json::json;

use self::{
    growth::{Bound, Growth},
    sample::{Sample, Series},
};
use crate::{
    machine::Machine,
    report::{publish, table},
};

/// From one round of reconnects and tokens to the next.
const ROUND: Duration = Duration::from_secs(10);

/// The part of the time in which everything may still grow.
const WARM_UP: f64 = 0.4;

/// Memory may grow by so many bytes, and as many more an hour.
const MEMORY: Bound = Bound { always: 6e6, an_hour: 16e6 };

/// Descriptors, likewise: connections come and go.
const DESCRIPTORS: Bound = Bound { always: 12.0, an_hour: 8.0 };

/// Threads, likewise.
const THREADS: Bound = Bound { always: 3.0, an_hour: 2.0 };

/// What to run.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// How long
    #[arg(long, default_value_t = 30)]
    minutes: u32,
    /// Scripted proxies
    #[arg(long, default_value_t = 50)]
    proxies: usize,
    /// From one look at the processes to the next, in seconds
    #[arg(long, default_value_t = 5)]
    every: u32,
}

/// Everything of one run.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    machine: Machine,
    minutes: u32,
    warm_up: f64,
    proxies: usize,
    reconnects: u64,
    resent: u64,
    token_rounds: u64,
    observed: Observation,
    growth: Vec<Growth>,
    series: Vec<Series>,
}

/// Runs it, prints and leaves the results in `out`.
pub(crate) async fn run(options: &Options, out: &Path) -> Result<()> {
    let &Options { minutes, proxies, every } = options;
    ensure!(minutes > 0 && every > 0, "there is nothing to see");
    allow_files(4 * proxies + 2_000)?;
    let started = Estate::start(Plan { sidecar: true, ..Plan::default() }).await?;
    let mut estate = started.context("Envoy, Postgres and Redis are needed")?;
    let keepers = Keepers::start(&estate.authority, estate.to_xds.address, proxies)?;
    let (mut series, mut token_rounds) = (Series::of(&estate), 0);
    let observed = estate
        .observe("soak", async |estate, _| {
            let (begun, mut round) = (Instant::now(), 0);
            while begun.elapsed() < Duration::from_secs(u64::from(minutes) * 60) {
                for one in &mut series {
                    one.samples.push(Sample::of(one.pid, begun.elapsed())?);
                }
                if begun.elapsed() > ROUND * round {
                    round += 1;
                    // All connections end, and everybody comes again.
                    let servers: Vec<_> = estate.control_planes.iter().map(|replica| replica.xds).collect();
                    estate.to_xds.point_at(&servers);
                    use_tokens(&estate.api, round).await?;
                    token_rounds += 1;
                }
                tokio::time::sleep(Duration::from_secs(every.into())).await;
            }
            Ok(())
        })
        .await?;
    let growth: Vec<Growth> = series.iter().flat_map(grown).collect();
    let report = Report {
        machine: Machine::describe(None),
        minutes,
        warm_up: WARM_UP,
        proxies,
        reconnects: keepers.kept.returns.load(std::sync::atomic::Ordering::Relaxed),
        resent: keepers.kept.resent().values().sum(),
        token_rounds,
        observed,
        growth,
        series,
    };
    plot::draw(out, "soak", &report.series)?;
    publish(out, "soak", &report, &report.markdown())?;
    report.observed.nothing_lost()?;
    report.observed.nothing_lost_by_the_sidecar()?;
    ensure!(report.resent == 0, "{} resources were sent to proxies that had them", report.resent);
    let grown: Vec<_> = report.growth.iter().filter(|one| !one.is_within()).map(ToString::to_string).collect();
    ensure!(grown.is_empty(), "this grows: {}", grown.join("; "));
    Ok(())
}

fn grown(series: &Series) -> Vec<Growth> {
    let of = |what, value: fn(&Sample) -> f64, bound| {
        let points: Vec<_> = series.samples.iter().map(|sample| (sample.seconds, value(sample))).collect();
        Growth::measure(&series.process, what, &points, WARM_UP, bound)
    };
    vec![
        of("memory", |sample| sample.memory, MEMORY),
        of("own memory", |sample| sample.own_memory, MEMORY),
        of("descriptors", |sample| sample.descriptors, DESCRIPTORS),
        of("threads", |sample| sample.threads, THREADS),
    ]
}

/// A token is made, used, rotated, used, and revoked.
async fn use_tokens(admin: &Api, round: u32) -> Result<()> {
    let send = async |method: Method, path: &str, body: Option<&serde_json::Value>| {
        let answer = admin.json(method, path, body).await?;
        ensure!(answer.status < 300, "{path}: {} {}", answer.status, answer.text());
        if answer.body.is_empty() { Ok(serde_json::Value::Null) } else { answer.json() }
    };
    let body = json!({ "name": format!("soak-{round}"), "role": "viewer" });
    let made = send(Method::POST, "/api/v1/tokens", Some(&body)).await?;
    let id = made["id"].as_str().context("a token has an id")?;
    let rotated = send(Method::POST, &format!("/api/v1/tokens/{id}/rotate?grace=1m"), None).await?;
    for token in [&made, &rotated] {
        let secret = token["token"].as_str().context("a token is shown once")?;
        // The other replica hears of it a moment later.
        let reader = admin.with_token(secret);
        chancery_e2e::wait::until("a token is good", chancery_e2e::wait::PATIENCE, async || {
            reader.read("/api/v1/fleets").await
        })
        .await?;
    }
    send(Method::DELETE, &format!("/api/v1/tokens/{id}"), None).await?;
    Ok(())
}

impl Report {
    fn markdown(&self) -> String {
        let Self { machine, minutes, proxies, reconnects, resent, token_rounds, observed, growth, .. } = self;
        let mut text = format!("# Soak: {minutes} minutes\n\n{machine}\n\n");
        let sidecar = observed.sidecar.as_ref().map_or((0, 0), |seen| (seen.requests, seen.lost));
        let _ = writeln!(
            text,
            "{} requests ({} lost), {} limited ({} lost), {} by the sidecar ({} lost), {} edits stored ({} refused, {} unanswered), \
             {reconnects} reconnects of {proxies} scripted proxies ({resent} resources sent again), {token_rounds} tokens made, rotated \
             and revoked.\n\n![memory](soak.svg)\n",
            observed.open.requests,
            observed.open.lost,
            observed.limited.requests,
            observed.limited.lost,
            sidecar.0,
            sidecar.1,
            observed.edits_acknowledged,
            observed.edits_refused,
            observed.edits_unanswered,
        );
        let rows: Vec<_> = growth.iter().map(Growth::row).collect();
        text.push_str(&table(&["process", "what", "warmed up", "grown since", "may grow", "within"], &rows));
        text
    }
}
