//! Our own programs and others, as processes that end with the test.
//!
//! Output goes to files, not pipes: it survives a SIGKILL, and nobody has to keep reading. A test
//! that fails shows the end of it.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::wait::until;

/// How much of its output a failing test shows.
const SHOWN_BYTES: usize = 6_000;

/// A running program.
///
/// Dropping it kills it; so does the end of this process, on Linux.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command`; its output goes to `<name>.out` and `<name>.err` in `folder`, after what is already there.
    pub fn spawn(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let stdout = folder.join(format!("{name}.out"));
        let stderr = folder.join(format!("{name}.err"));
        // A restarted program must not be taken for ready by the line of its predecessor.
        if stdout.exists() {
            fs::rename(&stdout, folder.join(format!("{name}.before.out")))?;
        }
        let append = |path: &Path| File::options().create(true).append(true).open(path);
        command.stdin(Stdio::null()).stdout(append(&stdout)?).stderr(append(&stderr)?);
        end_with_parent(&mut command);
        let child = command.spawn().with_context(|| format!("cannot start {:?}", command.get_program()))?;
        Ok(Self { name: name.to_owned(), child, stdout, stderr })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the line `{"event":"ready",…}` on its standard output.
    pub async fn ready(&mut self, within: Duration) -> Result<Value> {
        let what = format!("{} is ready", self.name);
        let line = until(&what, within, async || {
            // An exit is final, whatever time is left.
            if let Some(status) = self.child.try_wait()? {
                return Ok(Err(status));
            }
            let output = fs::read_to_string(&self.stdout)?;
            let line = output
                .lines()
                .find_map(|line| serde_json::from_str::<Value>(line).ok().filter(|json| json["event"] == "ready"));
            Ok(Ok(line.context("has not said so yet")?))
        })
        .await;
        match line {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(status)) => bail!("{} ended with {status} before it was ready\n{}", self.name, self.tail()),
            Err(error) => Err(error.context(self.tail())),
        }
    }

    /// Ends it at once (SIGKILL), without a chance to tidy up.
    pub fn kill(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub async fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM)?;
        until(&format!("{} ends", self.name), within, async || self.child.try_wait()?.context("still runs")).await
    }

    /// Sends a signal, by its number.
    #[expect(unsafe_code, reason = "std sends no signal but SIGKILL")]
    pub fn signal(&self, signal: i32) -> Result<()> {
        let pid = i32::try_from(self.child.id())?;
        // SAFETY: no memory is involved; the child is not yet reaped, so the id is still its own.
        let sent = unsafe { libc::kill(pid, signal) };
        ensure!(sent == 0, "cannot signal {}: {}", self.name, std::io::Error::last_os_error());
        Ok(())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// All it wrote to standard error, where programs log, since the first one of this name in the folder.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// All it wrote to standard output.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    fn tail(&self) -> String {
        let end = |text: String| {
            let start = text.ceil_char_boundary(text.len().saturating_sub(SHOWN_BYTES));
            text[start..].to_owned()
        };
        let (out, err) = (end(self.output()), end(self.log()));
        format!("--- {}: end of its output\n{out}\n--- {}: end of its log\n{err}\n---", self.name, self.name)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
    }
}

/// One of our own programs, from the build this test or benchmark belongs to.
pub fn own_program(name: &str) -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    // A test lies in `target/debug/deps`, a program one folder above.
    let found = executable.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("{name} is not built beside {}: run `cargo build --workspace --bins`", executable.display())
    })
}

/// Lets this process and those it starts open so many files.
#[expect(unsafe_code, reason = "std has no limits of resources")]
pub fn allow_files(wanted: usize) -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write the struct that they are given.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    ensure!(done, "cannot raise the limit of open files: {}", std::io::Error::last_os_error());
    let most = limit.rlim_max;
    ensure!(
        most >= wanted as u64,
        "{wanted} open files are needed and {most} allowed: raise the hard limit (ulimit -Hn)"
    );
    Ok(())
}

/// This thread gets what the others leave of the cores.
#[expect(unsafe_code, reason = "std has no priorities")]
pub fn yield_to_others() {
    // SAFETY: it touches no memory. Lowering one's own priority is always allowed.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}

/// Lets the system kill the child when the thread that starts it ends, even by SIGKILL.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "only code between fork and exec can ask for this")]
fn end_with_parent(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe, and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn end_with_parent(_: &mut Command) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::PATIENCE;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn reads_the_ready_line_among_others() {
        let folder = tempfile::tempdir().unwrap();
        let script = r#"echo starting; echo '{"event":"ready","api":"127.0.0.1:1"}'; exec sleep 60"#;
        let mut process = Process::spawn("shell", shell(script), folder.path()).unwrap();
        assert_eq!(process.ready(PATIENCE).await.unwrap()["api"], "127.0.0.1:1");
        assert!(process.terminate(PATIENCE).await.unwrap().code().is_none());
    }

    #[tokio::test]
    async fn a_program_that_ends_early_is_reported_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::spawn("shell", shell("echo no database >&2; exit 3"), folder.path()).unwrap();
        let error = format!("{:#}", process.ready(PATIENCE).await.unwrap_err());
        assert!(error.contains("exit status: 3") && error.contains("no database"), "{error}");
    }
}
