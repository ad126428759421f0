//! The Redis that servers count in: without persistence, on the load's core, and asked what it was asked.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    port::free_port,
    process::Process,
    wait::{PATIENCE, until},
};

use super::{
    connection::SILENCE,
    subject::{LOAD_CORE, on_core},
};
use crate::usage;

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

/// A server of our own.
pub(super) struct Redis {
    process: Process,
    address: SocketAddr,
}

impl Redis {
    /// Starts one, pinned to the load's core if asked to be.
    pub(super) async fn start(pinned: bool, folder: &Path) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command = on_core(pinned.then_some(LOAD_CORE), Path::new("redis-server"));
        command.args([
            "--port",
            &address.port().to_string(),
            "--bind",
            "127.0.0.1",
            "--appendonly",
            "no",
            "--save",
            "",
        ]);
        let process = Process::spawn("redis", command, folder)?;
        let redis = Self { process, address };
        until("Redis answers", PATIENCE, async || redis.ask(&["PING"])).await?;
        Ok(redis)
    }

    /// Where it serves.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Forgets all keys and all counts.
    pub(super) fn clear(&self) -> Result<()> {
        self.ask(&["FLUSHALL"])?;
        self.ask(&["CONFIG", "RESETSTAT"]).map(drop)
    }

    /// CPU time it has used.
    pub(super) fn cpu(&self) -> Result<Duration> {
        usage::cpu(self.process.pid())
    }

    /// How many commands came in since [`Self::clear`], as it was asked them: a script is one.
    pub(super) fn calls(&self) -> Result<u64> {
        Ok(calls(&self.ask(&["INFO", "commandstats"])?))
    }

    /// One command on a connection of its own; a string, simple or bulk, is the answer.
    fn ask(&self, command: &[&str]) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let parts: String = command.iter().map(|part| format!("${}\r\n{part}\r\n", part.len())).collect();
        stream.write_all(format!("*{}\r\n{parts}", command.len()).as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if let Some(length) = line.strip_prefix('$') {
            let mut text = vec![0; length.parse::<usize>().context("no such string")?];
            reader.read_exact(&mut text)?;
            return Ok(String::from_utf8(text)?);
        }
        ensure!(line.starts_with('+'), "Redis answers {line:?} to {command:?}");
        Ok(line[1..].to_owned())
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
