//! Every part fails in every way, one after the other, under load: requests through a real Envoy and a sidecar, limits, edits.
//!
//! What each test asks: requests that do not depend on the part are all answered, every edit that was acknowledged is stored, and
//! all becomes well without a person. What was seen besides goes into tables, `fault-suite/` in the folder of the build, from which
//! docs/operations/failures.md is written.

#[path = "fault_suite/disk.rs"]
mod disk;
#[path = "fault_suite/failover.rs"]
mod failover;
#[path = "fault_suite/killed.rs"]
mod killed;
#[path = "fault_suite/names_and_clocks.rs"]
mod names_and_clocks;
#[path = "fault_suite/network.rs"]
mod network;

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Where tables go.
fn tables() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    Ok(test.ancestors().nth(3).context("a test lies in a folder of the build")?.join("fault-suite"))
}
