//! `chancery-bench`: what Chancery costs and how quick it is, measured with the real thing.
//!
//! Each part prints a table and leaves it, with every sample as JSON, in `bench-results/`.

mod aims;
mod api;
mod catalog;
mod config_push;
mod cores;
mod machine;
mod plot;
mod ratelimit;
mod report;
mod sidecar;
mod sizing;
mod soak;
mod statistics;
mod xds_faults;
mod xds_fleet;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "chancery-bench", about = "Measures Chancery with a real Envoy, and beside its peers")]
struct Arguments {
    #[command(subcommand)]
    part: Part,
    /// Where results go
    #[arg(long, global = true, default_value = "bench-results")]
    out: PathBuf,
}

#[derive(Subcommand)]
enum Part {
    /// Everything, with its defaults
    All,
    /// From the API's answer to an edit until a real Envoy serves it, and what an edit costs
    ConfigPush(config_push::Options),
    /// What a service owner waits for: edits, reads, plans and starts, by the size of the catalog and the store
    Api(api::Options),
    /// Decisions per second, latency and cost of the rate limiter, beside a floor and its peers
    Ratelimit(ratelimit::Options),
    /// What the sidecar adds to a request, beside no proxy, a bare hyper proxy and Envoy
    Sidecar(sidecar::Options),
    /// Thousands of scripted proxies on one control plane, beside go-control-plane
    XdsFleet(xds_fleet::Options),
    /// How much later proxies have an edit while other clients misbehave, and what that leaves in memory
    XdsFaults(xds_faults::Options),
    /// What deployments of different sizes need, worked out from what `api`, `xds-fleet` and `ratelimit` left
    Sizing,
    /// Everything at work for a long time, and whether memory or descriptors grow; not part of `all`
    Soak(soak::Options),
    /// A server that `ratelimit` compares ours with
    Serve(ratelimit::Peer),
    /// The load of `ratelimit`, as it starts it itself
    #[command(hide = true)]
    Load { load: String },
    /// The upstream of `sidecar`, or the bare proxy that it compares ours with
    ServeHttp(sidecar::Server),
    /// A server that `xds-fleet` compares ours with
    ServeXds(xds_fleet::FloorServer),
    /// The load of `sidecar`, as it starts it itself
    #[command(hide = true)]
    LoadHttp { load: String },
}

fn main() -> Result<()> {
    let Arguments { part, out } = Arguments::parse();
    match part {
        // These are measured, or measure: they choose their own threads.
        Part::Sizing => sizing::run(&out),
        Part::Serve(options) => ratelimit::serve(&options),
        Part::Load { load } => ratelimit::load(&load),
        Part::ServeHttp(options) => sidecar::serve(&options),
        Part::LoadHttp { load } => sidecar::load(&load),
        Part::All => with_runtime(async {
            config_push::run(&config_push::Options::default(), &out).await?;
            api::run(&api::Options::default(), &out).await?;
            ratelimit::run(&ratelimit::Options::default(), &out).await?;
            sidecar::run(&sidecar::Options::default(), &out).await?;
            xds_fleet::run(&xds_fleet::Options::default(), &out).await?;
            xds_faults::run(&xds_faults::Options::default(), &out).await?;
            sizing::run(&out)
        }),
        Part::ConfigPush(options) => with_runtime(config_push::run(&options, &out)),
        Part::Api(options) => with_runtime(api::run(&options, &out)),
        Part::Sidecar(options) => with_runtime(sidecar::run(&options, &out)),
        Part::XdsFleet(options) => with_runtime(xds_fleet::run(&options, &out)),
        Part::XdsFaults(options) => with_runtime(xds_faults::run(&options, &out)),
        Part::Soak(options) => with_runtime(soak::run(&options, &out)),
        Part::ServeXds(options) => with_runtime(xds_fleet::serve(&options)),
        Part::Ratelimit(options) => with_runtime(ratelimit::run(&options, &out)),
    }
}

fn with_runtime(part: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(part)
}
