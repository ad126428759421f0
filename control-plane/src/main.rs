//! `chancery-control-plane`: parses settings, runs until told to stop, drains.

use std::process::ExitCode;

use chancery_control_plane::{app, settings::Flags};
use chancery_runtime::telemetry;
use clap::Parser;

/// What thousands of streams took for a moment goes back to the system.
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
    let settings = chancery_runtime::settings::load(&flags, std::env::vars(), flags.config.as_deref())?;
    if flags.print_settings {
        print!("{}", chancery_runtime::settings::print::<app::Settings>(&settings)?);
        return Ok(());
    }
    let filter = telemetry::log_filter(&settings.log, |name| std::env::var(name).ok(), "info");
    telemetry::init_logs(&filter, settings.log_format)?;
    app::run(settings).await
}
