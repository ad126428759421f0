//! Real Redis servers for a test: in a folder of their own, on free ports, gone with the test.
//!
//! Nothing is persisted, so a restart is a Redis that has lost everything: the worst a limiter can meet.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    port::free_port,
    process::Process,
    required::required,
    wait::{PATIENCE, until},
};

/// One Redis server. Dropping it kills it.
#[derive(Debug)]
pub struct Redis {
    /// Where it listens.
    pub address: SocketAddr,
    folder: PathBuf,
    arguments: Vec<String>,
    process: Process,
}

impl Redis {
    /// Starts one in `folder`, or answers `None` where none is installed and that may be (see [`required`]).
    pub async fn start(folder: &Path) -> Result<Option<Self>> {
        Self::start_with(folder, &[]).await
    }

    /// As [`Redis::start`], with more arguments.
    pub async fn start_with(folder: &Path, arguments: &[&str]) -> Result<Option<Self>> {
        if required("redis-server", installed().then_some(())).is_none() {
            return Ok(None);
        }
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Self::spawn(folder.to_owned(), address, arguments).await.map(Some)
    }

    async fn spawn(folder: PathBuf, address: SocketAddr, arguments: Vec<String>) -> Result<Self> {
        let port = address.port().to_string();
        let mut command = Command::new("redis-server");
        command.current_dir(&folder).args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(&arguments);
        let process = Process::spawn(&format!("redis-{port}"), command, &folder)?;
        let redis = Self { address, folder, arguments, process };
        until("Redis answers", PATIENCE, async || {
            ensure!(redis.cli(&["ping"])?.contains("PONG"), "no PONG yet");
            Ok(())
        })
        .await?;
        Ok(redis)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// What a command answers.
    pub fn cli(&self, command: &[&str]) -> Result<String> {
        cli(self.address, command)
    }

    /// How many times Redis has run `command` (lower case) since it started.
    pub fn calls(&self, command: &str) -> Result<u64> {
        let stats = self.cli(&["info", "commandstats"])?;
        let prefix = format!("cmdstat_{command}:calls=");
        let calls = stats.lines().find_map(|line| line.strip_prefix(&prefix)?.split(',').next()?.parse().ok());
        Ok(calls.unwrap_or(0))
    }

    /// Ends it at once, with all it knew.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same port, empty.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process.kill();
        *self = Self::spawn(self.folder.clone(), self.address, self.arguments.clone()).await?;
        Ok(())
    }

    /// Stops it where it stands: connections stay open, nothing is answered.
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(libc::SIGSTOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(libc::SIGCONT)
    }
}

/// Six Redis servers that form a cluster of three primaries, each with a replica.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts one, or answers `None` as [`Redis::start`] does.
    pub async fn start(folder: &Path) -> Result<Option<Self>> {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            let port = free_port();
            // Its second port is by default its first and 10,000, which may be out of range.
            let bus = free_port();
            let arguments = [
                "--cluster-enabled yes".to_owned(),
                format!("--cluster-config-file nodes-{port}.conf"),
                "--cluster-node-timeout 1000".to_owned(),
                format!("--cluster-port {bus}"),
                // A node answers for what is its own while another is away.
                "--cluster-require-full-coverage no".to_owned(),
                // Replicas are given what there is at once.
                "--repl-diskless-sync-delay 0".to_owned(),
            ];
            let arguments: Vec<&str> = arguments.iter().flat_map(|argument| argument.split(' ')).collect();
            let Some(node) = Redis::start_with(folder, &arguments).await? else { return Ok(None) };
            nodes.push(node);
        }
        let addresses: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(&addresses).args(["--cluster-replicas", "1", "--cluster-yes"]);
        succeeded(&create.output()?)?;
        let cluster = Self { nodes };
        cluster.whole(PATIENCE).await?;
        // One that has never had what its primary has does not take its place.
        until("replicas follow", PATIENCE, async || {
            for node in &cluster.nodes {
                let info = node.cli(&["info", "replication"])?;
                ensure!(!info.contains("master_link_status:down"), "{info}");
            }
            Ok(())
        })
        .await?;
        Ok(Some(cluster))
    }

    /// Its URL, by any of its nodes.
    pub fn url(&self) -> String {
        self.nodes[0].url()
    }

    /// Waits until every slot is served, as all living nodes see it.
    pub async fn whole(&self, within: Duration) -> Result<()> {
        until("the cluster is whole", within, async || {
            for node in &self.nodes {
                let Ok(info) = node.cli(&["cluster", "info"]) else { continue };
                ensure!(info.contains("cluster_state:ok"), "{} says {info}", node.address);
            }
            Ok(())
        })
        .await
    }

    /// Kills a primary (not the node of [`Cluster::url`]), whose replica will take its place.
    pub fn kill_a_primary(&mut self) -> Result<SocketAddr> {
        let mut others = self.nodes.iter_mut().skip(1);
        let primary = others
            .find(|node| node.cli(&["role"]).is_ok_and(|role| role.starts_with("master")))
            .context("no other primary")?;
        primary.kill();
        Ok(primary.address)
    }
}

/// A Redis server, another that follows it, and three sentinels that know which of them is the master.
#[derive(Debug)]
pub struct Sentinels {
    servers: Vec<Redis>,
    ports: Vec<u16>,
    _sentinels: Vec<Process>,
}

impl Sentinels {
    /// Starts them, or answers `None` as [`Redis::start`] does.
    pub async fn start(folder: &Path) -> Result<Option<Self>> {
        let Some(master) = Redis::start(folder).await? else { return Ok(None) };
        let of = ["--replicaof".to_owned(), "127.0.0.1".to_owned(), master.address.port().to_string()];
        let of: Vec<&str> = of.iter().map(String::as_str).collect();
        let Some(replica) = Redis::start_with(folder, &of).await? else { return Ok(None) };
        until("the replica follows", PATIENCE, async || {
            let info = replica.cli(&["info", "replication"])?;
            ensure!(info.contains("master_link_status:up"), "{info}");
            Ok(())
        })
        .await?;
        let (mut ports, mut sentinels) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let port = free_port();
            let file = folder.join(format!("sentinel-{port}.conf"));
            let settings = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n",
                master.address.port()
            );
            std::fs::write(&file, settings)?;
            let mut command = Command::new("redis-server");
            command.current_dir(folder).arg(&file).arg("--sentinel");
            sentinels.push(Process::spawn(&format!("sentinel-{port}"), command, folder)?);
            ports.push(port);
        }
        let all = Self { servers: vec![master, replica], ports, _sentinels: sentinels };
        until("the sentinels know each other and the replica", PATIENCE, async || {
            for port in &all.ports {
                let told = cli(([127, 0, 0, 1], *port).into(), &["sentinel", "master", "main"])?;
                let value = |key: &str| told.lines().skip_while(|line| *line != key).nth(1).map(str::to_owned);
                let (others, replicas) = (value("num-other-sentinels"), value("num-slaves"));
                ensure!(others.as_deref() == Some("2") && replicas.as_deref() == Some("1"), "{told}");
            }
            Ok(())
        })
        .await?;
        Ok(Some(all))
    }

    /// Their URL.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/main", hosts.join(","))
    }

    /// Kills the master, whose replica will take its place.
    pub fn kill_the_master(&mut self) {
        self.servers[0].kill();
    }
}

/// Whether server and client are on `PATH`.
pub fn installed() -> bool {
    ["redis-server", "redis-cli"].iter().all(|name| Command::new(name).arg("--version").output().is_ok())
}

fn cli(address: SocketAddr, command: &[&str]) -> Result<String> {
    let mut cli = Command::new("redis-cli");
    cli.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]).args(command);
    succeeded(&cli.output()?)
}

fn succeeded(output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "redis-cli: {text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}
