//! `chancery-sidecar`: parses settings, runs until told to stop, drains.

use std::process::ExitCode;

use chancery_runtime::telemetry;
use chancery_sidecar::{app, settings::Flags};
use clap::Parser;

/// A request's few allocations are a good part of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Flags::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> anyhow::Result<()> {
    let settings = chancery_runtime::settings::load(&flags, std::env::vars(), flags.settings.as_deref())?;
    if flags.print_settings {
        print!("{}", chancery_runtime::settings::print::<app::Settings>(&settings)?);
        return Ok(());
    }
    let filter = telemetry::log_filter(&settings.log, |name| std::env::var(name).ok(), "info");
    telemetry::init_logs(&filter, settings.log_format)?;
    app::run(settings).await
}
