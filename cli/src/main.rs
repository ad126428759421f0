//! The `chancery` command: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    chancery::run(chancery::Cli::parse())
}
