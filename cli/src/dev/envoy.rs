//! The Envoy of `chancery dev`: found, started, started again when it dies, ended with us.
//!
//! It is supervised from a thread of its own. The system sends a child its parent-death signal when
//! the *thread* dies that started it, and the threads of an async runtime come and go; this one
//! lives until the child has ended.
//!
//! Envoy runs in a process group of its own: Ctrl-C in a terminal reaches the whole group of
//! `chancery dev`, and Envoy should end when its turn comes, not before.

use std::{
    env,
    fs::{File, OpenOptions},
    io,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use chancery_runtime::file;
use http::StatusCode;
use tokio::{
    process::{Child, Command},
    sync::watch,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{http::Http, process};

/// Where the set-up script puts Envoy, relative to the working copy.
const SET_UP: &str = ".dev/envoy/bin/envoy";

/// The first wait before Envoy is started again; doubles up to the last.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LAST_BACKOFF: Duration = Duration::from_secs(10);

/// After this time without an end, the next end counts as the first.
const STABLE: Duration = Duration::from_secs(30);

/// How long Envoy gets to end by itself.
const GRACE: Duration = Duration::from_secs(4);

/// How long to wait between two looks at whether Envoy is ready.
const POLL: Duration = Duration::from_millis(20);

/// How much of its log is shown when it does not come up.
const TAIL_LINES: usize = 15;

/// Finds the binary: what was asked for, `PATH`, then where the set-up script puts it.
pub(super) fn find(asked: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = asked {
        // A bare name is meant for PATH, as in a shell.
        let bare = path.components().count() == 1;
        let found = if path.is_file() { Some(path.to_owned()) } else { bare.then(|| on_path(path)).flatten() };
        return found.with_context(|| format!("there is no Envoy at {}", path.display()));
    }
    let working_dir = env::current_dir().ok();
    let program = env::current_exe().ok();
    let above = program.iter().flat_map(|program| program.ancestors().skip(1));
    let set_up = working_dir.iter().map(PathBuf::as_path).chain(above).map(|dir| dir.join(SET_UP));
    on_path(Path::new("envoy")).or_else(|| set_up.into_iter().find(|path| path.is_file())).context(
        "cannot find Envoy: not on PATH and not in .dev/; `make run` fetches it, --envoy FILE names one, \
         --no-envoy goes without",
    )
}

fn on_path(name: &Path) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|candidate| candidate.is_file())
}

/// How Envoy is started.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) binary: PathBuf,
    pub(super) config: PathBuf,
    pub(super) log: PathBuf,
}

/// A supervised Envoy. Dropping it ends it too.
#[derive(Debug)]
pub(super) struct Envoy {
    pid: watch::Receiver<Option<u32>>,
    log: PathBuf,
    stop: CancellationToken,
    supervisor: Option<JoinHandle<()>>,
}

impl Envoy {
    /// Starts to supervise; the log begins anew.
    pub(super) fn start(launch: Launch) -> Result<Self> {
        let log = launch.log.clone();
        File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, pid) = watch::channel(None);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let supervisor = std::thread::Builder::new()
            .name("envoy".to_owned())
            .spawn(move || runtime.block_on(supervise(&launch, &sender, &stopped)))?;
        Ok(Self { pid, log, stop, supervisor: Some(supervisor) })
    }

    /// Its process, if it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// Waits until it runs as another process than the last that was seen.
    pub(super) async fn restarted(&mut self) -> u32 {
        loop {
            if self.pid.changed().await.is_err() {
                return std::future::pending().await;
            }
            if let Some(pid) = *self.pid.borrow_and_update() {
                return pid;
            }
        }
    }

    /// Waits until it has loaded its first configuration. Answers its version.
    pub(super) async fn ready(&mut self, admin: SocketAddr, within: Duration) -> Result<String> {
        let http = Http::to(admin);
        let deadline = Instant::now() + within;
        loop {
            if let Ok((StatusCode::OK, _)) = http.get("/ready").await {
                break;
            }
            if Instant::now() > deadline {
                bail!("Envoy is not ready after {within:?}; its log ends with:\n{}", tail(&self.log));
            }
            tokio::time::sleep(POLL).await;
        }
        self.pid.mark_unchanged();
        let (_, info) = http.get("/server_info").await?;
        let info: serde_json::Value = serde_json::from_slice(&info).context("Envoy's server_info is not JSON")?;
        let version = info["version"].as_str().context("Envoy says no version")?;
        Ok(short_version(version).to_owned())
    }

    /// Asks it to end, and waits until it has.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        if let Some(supervisor) = self.supervisor.take() {
            // A panic of the supervisor has been printed; there is nothing left to wait for.
            let _ = tokio::task::spawn_blocking(|| supervisor.join()).await;
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}

/// `1.40.0` of `<commit>/1.40.0/Clean/RELEASE/BoringSSL`.
fn short_version(version: &str) -> &str {
    version.split('/').nth(1).unwrap_or(version)
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

async fn supervise(launch: &Launch, pid: &watch::Sender<Option<u32>>, stop: &CancellationToken) {
    let mut backoff = FIRST_BACKOFF;
    loop {
        let begun = Instant::now();
        let ended = match spawn(launch) {
            Ok(child) => {
                pid.send_replace(child.id());
                let status = run(child, stop).await;
                pid.send_replace(None);
                status.map_or_else(|error| error.to_string(), |status| status.to_string())
            }
            Err(error) => format!("cannot start {}: {error}", launch.binary.display()),
        };
        if stop.is_cancelled() {
            return;
        }
        if begun.elapsed() > STABLE {
            backoff = FIRST_BACKOFF;
        }
        warn!(ended, retry_in = ?backoff, path = %launch.log.display(), "Envoy ended, it will be started again");
        tokio::select! {
            () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(LAST_BACKOFF),
            () = stop.cancelled() => return,
        }
    }
}

fn spawn(launch: &Launch) -> io::Result<Child> {
    let log = OpenOptions::new().append(true).create(true).mode(file::PRIVATE).open(&launch.log)?;
    let mut command = Command::new(&launch.binary);
    command
        .arg("--config-path")
        .arg(&launch.config)
        // Shared memory of a fixed name, which would make two of them disturb each other.
        .arg("--disable-hot-restart")
        .args(["--concurrency", "2"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true);
    process::end_with_parent(&mut command);
    command.spawn()
}

/// Waits for the end of Envoy, and brings it about when asked to.
async fn run(mut child: Child, stop: &CancellationToken) -> io::Result<ExitStatus> {
    tokio::select! {
        status = child.wait() => return status,
        () = stop.cancelled() => {}
    }
    process::terminate(&child);
    match tokio::time::timeout(GRACE, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            child.start_kill()?;
            child.wait().await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    /// A stand-in for Envoy: a shell script.
    fn launch(dir: &Path, script: &str) -> Launch {
        let binary = dir.join("envoy");
        std::fs::write(&binary, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        Launch { binary, config: dir.join("envoy.json"), log: dir.join("envoy.log") }
    }

    async fn pid(envoy: &mut Envoy) -> u32 {
        let pid = tokio::time::timeout(DEADLINE, envoy.pid.wait_for(Option::is_some)).await.unwrap().unwrap();
        pid.unwrap()
    }

    fn runs(pid: u32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    #[tokio::test]
    async fn ends_when_asked_even_if_it_will_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut gentle = Envoy::start(launch(dir.path(), "exec sleep 1000")).unwrap();
        let gentle_pid = pid(&mut gentle).await;
        assert!(runs(gentle_pid));
        gentle.stop().await;
        assert!(!runs(gentle_pid));

        let mut dropped = Envoy::start(launch(dir.path(), "exec sleep 1000")).unwrap();
        let dropped_pid = pid(&mut dropped).await;
        drop(dropped);
        assert!(!runs(dropped_pid));
    }

    #[tokio::test]
    async fn is_started_again_when_it_dies() {
        let dir = tempfile::tempdir().unwrap();
        let once = dir.path().join("once");
        let script = format!("[ -e {0} ] && exec sleep 1000; touch {0}; exit 3", once.display());
        let mut envoy = Envoy::start(launch(dir.path(), &script)).unwrap();
        let second = async {
            loop {
                let pid = envoy.restarted().await;
                if once.exists() && runs(pid) {
                    return pid;
                }
            }
        };
        tokio::time::timeout(DEADLINE, second).await.unwrap();
        envoy.stop().await;
    }

    #[tokio::test]
    async fn one_that_does_not_come_up_shows_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut envoy = Envoy::start(launch(dir.path(), "echo bad configuration >&2; exit 1")).unwrap();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = envoy.ready(nobody, Duration::from_secs(1)).await.unwrap_err().to_string();
        assert!(error.contains("bad configuration"), "{error}");
    }

    #[test]
    fn a_version_is_short() {
        assert_eq!(short_version("9c861d9e/1.40.0/Clean/RELEASE/BoringSSL"), "1.40.0");
        assert_eq!(short_version("1.40.0"), "1.40.0");
    }

    #[test]
    fn one_that_was_asked_for_and_is_not_there_is_an_error() {
        let error = find(Some(Path::new("/nonexistent/envoy"))).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/envoy"), "{error}");
        assert_eq!(find(Some(Path::new("sh"))).unwrap().file_name().unwrap(), "sh");
    }
}
