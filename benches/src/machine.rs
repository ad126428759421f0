//! What a measurement was made on, without which its numbers mean nothing; and what it may use of it.

use std::{fs, path::Path, process::Command};

use serde::Serialize;

/// A description of this machine and of what was measured on it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    memory: String,
    kernel: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    envoy: Option<String>,
    revision: String,
}

impl Machine {
    /// This one, and the Envoy that took part.
    pub(crate) fn describe(envoy: Option<&Path>) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores,
            memory: memory().unwrap_or_default(),
            kernel: output("uname", &["-sr"]),
            envoy: envoy.map(|envoy| {
                let version = output(&envoy.to_string_lossy(), &["--version"]);
                version.split("version: ").last().unwrap_or_default().into()
            }),
            revision: output("git", &["describe", "--always", "--dirty"]),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, cores, memory, kernel, envoy, revision } = self;
        write!(f, "{cpu}, {cores} cores, {memory} memory, {kernel}; ")?;
        if let Some(envoy) = envoy {
            write!(f, "Envoy {envoy}; ")?;
        }
        write!(f, "Chancery {revision}")
    }
}

fn memory() -> Option<String> {
    let kilobytes: u64 = field("/proc/meminfo", "MemTotal")?.trim_end_matches("kB").trim().parse().ok()?;
    Some(format!("{} GB", kilobytes.div_ceil(1 << 20)))
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
