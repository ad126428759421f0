//! Real Redis servers for tests: alone, as a cluster, with TLS, behind a sentinel; stopped, frozen and started at will.
//!
//! Where no `redis-server` is installed a test is skipped, loudly; in CI that is a failure.

mod far;
mod log;

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{RedisSettings, SaltCell, Shared};
use crate::store::{Ask, Charging, Clock, Memory, Outcome, Source, Store};
pub(crate) use far::Far;
pub(crate) use log::Log;

/// Long enough for anything here on a busy machine; a test that reaches it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until `condition` holds.
///
/// # Panics
/// It does not in time.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(2)).await;
    }
}

/// Nothing on disk, nothing from outside.
const PLAIN: &[&str] = &["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"];

/// A server of our own; it ends with the value.
pub(crate) struct RedisServer {
    pub(crate) port: u16,
    folder: TempDir,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl RedisServer {
    /// Starts one on a free port. `None`, after saying so, where none is installed.
    pub(crate) async fn start(arguments: &[&str]) -> Option<Self> {
        let mut server = Self::prepare(arguments)?;
        server.run().await;
        Some(server)
    }

    /// Chooses a port, and starts nothing yet.
    pub(crate) fn prepare(arguments: &[&str]) -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(
                !std::env::var("CI").is_ok_and(|value| value == "true"),
                "redis-server is needed, and CI must not skip its tests"
            );
            eprintln!("SKIPPED: redis-server is not installed");
            return None;
        }
        // Below the range that outgoing connections take theirs from; a cluster also needs the port plus 10,000.
        let port = (0..200)
            .map(|_| rand::random_range(11_000..21_000))
            .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
            .expect("a free port");
        let folder = tempfile::tempdir().unwrap();
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Some(Self { port, folder, arguments, process: None })
    }

    /// More arguments, for the next start.
    pub(crate) fn argue(&mut self, arguments: &[&str]) {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
    }

    /// Starts it, on the port it has, and waits until it answers.
    pub(crate) async fn run(&mut self) {
        let port = self.port.to_string();
        let listens: Vec<&str> =
            if self.arguments.iter().any(|argument| argument == "--tls-port") { vec![] } else { vec!["--port", &port] };
        let process = Command::new("redis-server")
            .args(&self.arguments)
            .args(listens)
            .args(if self.arguments.iter().any(|argument| argument == "--sentinel") { &[][..] } else { PLAIN })
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let port = self.port;
        until("redis-server listens", async || {
            tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok()
        })
        .await;
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Stops it from running, connections and all.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it run on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A command by another client, and what `redis-cli` prints.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        cli(self.port, arguments)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn cli(port: u16, arguments: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Three primaries that share the slots, and so many replicas of each.
pub(crate) async fn cluster(replicas: usize) -> Option<Vec<RedisServer>> {
    let mut nodes = Vec::new();
    for _ in 0..3 * (1 + replicas) {
        // Without full coverage, nodes answer for what is theirs while another is away; with it, for nothing.
        let coverage = ["--cluster-require-full-coverage", "no"];
        let settings = [&["--cluster-enabled", "yes", "--cluster-node-timeout", "500"], coverage.as_slice()].concat();
        nodes.push(RedisServer::start(&settings).await?);
    }
    let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let created = Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(&addresses)
        .args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(created.success(), "redis-cli --cluster create");
    for node in &nodes {
        until("the cluster is whole", async || node.cli(&["cluster", "info"]).contains("cluster_state:ok")).await;
    }
    Some(nodes)
}

/// What a process shares, over `url`; a generous deadline, unless the test is about it.
pub(crate) fn settings(url: &str) -> RedisSettings {
    RedisSettings { timeout: Duration::from_secs(2), ..RedisSettings::new(url.parse().unwrap()) }
}

pub(crate) fn shared(settings: RedisSettings) -> Arc<Shared> {
    let local = Arc::new(Memory::new(1_000, Clock::system()));
    Shared::start(settings, local, SaltCell::random()).unwrap()
}

pub(crate) async fn connected(shared: &Shared) {
    until("Redis answers", async || shared.answers()).await;
}

pub(crate) async fn charge(store: &dyn Store, ask: Ask) -> Outcome {
    match store.charge(&[ask]) {
        Charging::Done(outcomes) => outcomes[0],
        Charging::Waiting(outcomes) => outcomes.await[0],
    }
}

/// Whether Redis itself answers.
pub(crate) async fn by_redis(store: &dyn Store, ask: Ask) -> bool {
    charge(store, ask).await.source == Source::Redis
}
