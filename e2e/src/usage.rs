//! What a process has used, as Linux accounts for it.

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};

/// Ticks per second in `/proc`; 100 on every architecture this runs on.
const TICKS: u64 = 100;

/// CPU time of all threads of a process, user and system, to 10 ms.
pub fn cpu(pid: u32) -> Result<Duration> {
    Ok(times(pid)?.into_iter().sum())
}

/// The part of [`cpu`] that the kernel took.
pub fn kernel_cpu(pid: u32) -> Result<Duration> {
    let [_user, kernel] = times(pid)?;
    Ok(kernel)
}

/// User and system time.
fn times(pid: u32) -> Result<[Duration; 2]> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("no such process, or no Linux")?;
    // The name in brackets may hold anything; fields are counted after it. utime and stime are the 14th and 15th.
    let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat without a name")?;
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>).collect::<Result<Vec<_>, _>>()?;
    let [user, kernel] = ticks[..] else { bail!("/proc/PID/stat ends early") };
    Ok([user, kernel].map(|ticks| Duration::from_millis(ticks * 1000 / TICKS)))
}

/// Resident memory of a process, in bytes.
pub fn memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024)
}
