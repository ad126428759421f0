//! What a process uses now, as Linux accounts for it.
//!
//! The heap itself cannot be seen from outside; what stands in for it is the memory that belongs to the process alone and to no file.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use chancery_e2e::estate::Estate;
use serde::Serialize;

/// One look at one process.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sample {
    /// Since the beginning.
    pub(crate) seconds: f64,
    /// Resident, in bytes.
    pub(crate) memory: f64,
    /// Of that, what is in no file.
    pub(crate) own_memory: f64,
    /// Open files, sockets among them.
    pub(crate) descriptors: f64,
    /// Threads.
    pub(crate) threads: f64,
}

/// All looks at one process.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Series {
    /// Its name.
    pub(crate) process: String,
    #[serde(skip)]
    pub(crate) pid: u32,
    /// In order.
    pub(crate) samples: Vec<Sample>,
}

impl Series {
    /// One for each of our programs in an estate, without samples yet.
    pub(crate) fn of(estate: &Estate) -> Vec<Self> {
        let named = |name: &str, pids: Vec<u32>| -> Vec<Self> {
            let one = |(number, pid)| Self { process: format!("{name} {}", number + 1), pid, samples: Vec::new() };
            pids.into_iter().enumerate().map(one).collect()
        };
        let control_planes = estate.control_planes.iter().map(|replica| replica.pid()).collect();
        let limiters = estate.limiters.iter().map(|limiter| limiter.pid()).collect();
        let sidecars = estate.sidecar.iter().map(|sidecar| sidecar.pid()).collect();
        [named("control plane", control_planes), named("rate limiter", limiters), named("sidecar", sidecars)].concat()
    }
}

impl Sample {
    /// Looks at a process.
    pub(crate) fn of(pid: u32, since: Duration) -> Result<Self> {
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
        let field = |name: &str| -> Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.and_then(|line| line.split_whitespace().next()).with_context(|| format!("no {name}"))?;
            Ok(number.parse()?)
        };
        #[expect(clippy::cast_precision_loss, reason = "there are not so many")]
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64;
        Ok(Self {
            seconds: since.as_secs_f64(),
            memory: field("VmRSS")? * 1024.0,
            own_memory: field("RssAnon")? * 1024.0,
            descriptors,
            threads: field("Threads")?,
        })
    }
}
