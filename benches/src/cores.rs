//! Cores: what is measured has one of its own, whoever loads it has the other; and loads that are processes of their own.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};
use serde::{Serialize, de::DeserializeOwned};

/// The core of what is measured, where it has one of its own.
pub(crate) const SERVER_CORE: &str = "0";

/// The core of the load and of whatever helps it there.
pub(crate) const LOAD_CORE: &str = "1";

/// What a report says if [`can_pin`] says no.
pub(crate) const NOT_PINNED: &str =
    "Cores of their own: there are no two, or no `taskset`. Everything shares what there is.";

/// A program, on one core or wherever the system puts it.
pub(crate) fn on_core(core: Option<&str>, program: &Path) -> Command {
    let Some(core) = core else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", core]).arg(program);
    command
}

/// Keeps a process that runs, with all its threads, on one core.
pub(crate) fn move_to(core: &str, pid: u32) -> Result<()> {
    let mut taskset = Command::new("taskset");
    let output = taskset.args(["--all-tasks", "--cpu-list", "--pid", core, &pid.to_string()]).output()?;
    ensure!(output.status.success(), "cannot pin {pid}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Whether there are two cores, and the program that assigns them.
pub(crate) fn can_pin() -> bool {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let taskset = on_core(Some(LOAD_CORE), Path::new("true")).status();
    cores > 1 && taskset.is_ok_and(|status| status.success())
}

/// Runs this program's subcommand `name` with `load` as its argument, and reads what came of it. This blocks until it ends:
/// nothing else is to happen meanwhile.
pub(crate) fn exert<S: DeserializeOwned>(name: &str, load: &impl Serialize, core: Option<&str>) -> Result<S> {
    let mut command = on_core(core, &env::current_exe()?);
    command.arg(name).arg(serde_json::to_string(load)?).stdin(Stdio::null());
    let output = command.output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let reason = errors.lines().filter(|line| !line.is_empty()).take(4).collect::<Vec<_>>().join(" ");
    ensure!(output.status.success(), "the load ended with {}: {reason}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}
