//! `chancery-rate-limiter`: parses settings, runs until told to stop, drains.

use std::process::ExitCode;

use chancery_rate_limiter::{app, settings::Flags};
use chancery_runtime::telemetry;
use clap::Parser;

/// A call's few allocations are a good part of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Flags::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> anyhow::Result<ExitCode> {
    let settings = chancery_runtime::settings::load(&flags, std::env::vars(), flags.settings.as_deref())?;
    if flags.print_settings {
        print!("{}", chancery_runtime::settings::print::<app::Settings>(&settings)?);
        return Ok(ExitCode::SUCCESS);
    }
    if flags.check {
        anyhow::ensure!(!settings.config.as_os_str().is_empty(), "--check needs --config");
        return Ok(check(&settings));
    }
    let filter = telemetry::log_filter(&settings.log, |name| std::env::var(name).ok(), "info");
    telemetry::init_logs(&filter, settings.log_format)?;
    app::run(settings).await?;
    Ok(ExitCode::SUCCESS)
}

/// What is wrong goes to standard error, one problem a line.
fn check(settings: &app::Settings) -> ExitCode {
    match app::check(settings) {
        Ok(summary) => {
            println!("{}: {summary}", settings.config.display());
            ExitCode::SUCCESS
        }
        Err(problems) => {
            for problem in problems {
                eprintln!("{problem}");
            }
            ExitCode::from(2)
        }
    }
}
