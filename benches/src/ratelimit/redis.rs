//! The Redis that servers count in: on the load's core, and asked what it was asked.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use chancery_e2e::{redis::Redis as Process, usage};

use crate::cores::{LOAD_CORE, move_to};

/// Commands that run others: with one of them, what it runs is not counted as well.
const SCRIPTS: [&str; 6] = ["eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"];

/// Commands that decide nothing.
const ASIDE: [&str; 12] = [
    "info",
    "config|resetstat",
    "flushall",
    "ping",
    "hello",
    "auth",
    "select",
    "client|setinfo",
    "client|setname",
    "client|id",
    "script|load",
    "function|load",
];

/// A server of our own, without persistence.
pub(super) struct Redis(Process);

impl Redis {
    /// Starts one, pinned to the load's core if asked to be.
    pub(super) async fn start(pinned: bool, folder: &Path) -> Result<Self> {
        let redis = Process::start(folder).await?.context("redis-server is not on this machine")?;
        if pinned {
            move_to(LOAD_CORE, redis.pid())?;
        }
        Ok(Self(redis))
    }

    /// Host and port.
    pub(super) fn address(&self) -> String {
        self.0.address.to_string()
    }

    /// Forgets all keys and all counts.
    pub(super) fn clear(&self) -> Result<()> {
        self.0.cli(&["flushall"])?;
        self.0.cli(&["config", "resetstat"]).map(drop)
    }

    /// CPU time it has used.
    pub(super) fn cpu(&self) -> Result<Duration> {
        usage::cpu(self.0.pid())
    }

    /// How many commands came in since [`Self::clear`], as it was asked them: a script is one.
    pub(super) fn calls(&self) -> Result<u64> {
        Ok(calls(&self.0.cli(&["info", "commandstats"])?))
    }
}

fn calls(commandstats: &str) -> u64 {
    let commands = commandstats.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name, rest.split(',').next()?.parse::<u64>().ok()?))
    });
    let sum = |wanted: &dyn Fn(&str) -> bool| -> u64 {
        commands.clone().filter(|(name, _)| wanted(name)).map(|(_, calls)| calls).sum()
    };
    match sum(&|name| SCRIPTS.contains(&name)) {
        0 => sum(&|name| !ASIDE.contains(&name)),
        scripts => scripts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_script_runs_is_not_counted_again() {
        let stats = "# Commandstats\r\ncmdstat_info:calls=1,usec=9\r\ncmdstat_set:calls=40,usec=9\r\n";
        assert_eq!(calls(stats), 40);
        assert_eq!(calls(&format!("{stats}cmdstat_evalsha:calls=7,usec=1\r\n")), 7);
    }
}
