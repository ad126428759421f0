//! `chancery-bench`: what Chancery costs and how quick it is, measured with a real Envoy.
//!
//! Each part prints a table and leaves it, with every sample as JSON, in `bench-results/`.

mod config_push;
mod machine;
mod report;
mod usage;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "chancery-bench", about = "Measures Chancery with a real Envoy")]
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
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.part {
        Part::All => config_push::run(&config_push::Options::default(), &arguments.out).await,
        Part::ConfigPush(options) => config_push::run(&options, &arguments.out).await,
    }
}
