//! The Envoy that validates: a process per question, alone in a folder of ours.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, OpenOptionsExt as _},
        process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use chancery_runtime::file;
use rcgen::{CertificateParams, KeyPair};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    time::timeout,
};

use super::{
    harmless::{CERTIFICATE_FILE, KEY_FILE},
    words::Ended,
};

/// How long it may take to say its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);

/// How much of what it writes is read.
const MOST_OUTPUT: u64 = 64 * 1024;

/// A program that cannot be used to validate.
#[derive(Debug, thiserror::Error)]
pub enum UnusableEnvoy {
    /// There is no such file.
    #[error("envoy_validate names {0}, where there is no file")]
    Missing(PathBuf),
    /// It could not be started.
    #[error("{0} cannot be started")]
    Start(PathBuf, #[source] io::Error),
    /// It said no version in time.
    #[error("{0} --version has not answered after {VERSION_DEADLINE:?}")]
    Silent(PathBuf),
    /// It is no Envoy.
    #[error("{program} --version does not answer as an Envoy: {said}")]
    Stranger {
        /// The program.
        program: PathBuf,
        /// The beginning of what it said.
        said: String,
    },
    /// The folder for what it reads cannot be made.
    #[error("cannot prepare {0}")]
    Folder(PathBuf, #[source] io::Error),
    /// The stand-in for certificates of proxies cannot be made.
    #[error("cannot make a certificate")]
    Certificate(#[source] rcgen::Error),
}

/// The program, and where it is started.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    folder: PathBuf,
    number: AtomicU64,
}

impl Program {
    /// The program at `path`, if it is an Envoy; with its version. `folder` is its own: what is in there is removed.
    pub(super) async fn find(path: &Path, folder: PathBuf) -> Result<(Self, String), UnusableEnvoy> {
        // It is started in another folder.
        let path = fs::canonicalize(path).map_err(|_| UnusableEnvoy::Missing(path.to_owned()))?;
        prepare(&folder)?;
        let folder = fs::canonicalize(&folder).map_err(|error| UnusableEnvoy::Folder(folder, error))?;
        let program = Self { path, folder, number: AtomicU64::new(0) };
        let version = program.version().await?;
        Ok((program, version))
    }

    async fn version(&self) -> Result<String, UnusableEnvoy> {
        let output = timeout(VERSION_DEADLINE, self.command().arg("--version").stdout(Stdio::piped()).output()).await;
        let output = output.map_err(|_| UnusableEnvoy::Silent(self.path.clone()))?;
        let output = output.map_err(|error| UnusableEnvoy::Start(self.path.clone(), error))?;
        let said = String::from_utf8_lossy(&output.stdout);
        // `… version: <commit>/1.40.0/Clean/RELEASE/BoringSSL`
        let version = said.split_once("version: ").and_then(|(_, rest)| rest.split('/').nth(1));
        version.filter(|_| output.status.success()).map(str::to_owned).ok_or_else(|| UnusableEnvoy::Stranger {
            program: self.path.clone(),
            said: said.trim().chars().take(100).collect(),
        })
    }

    /// What it says to `bootstrap`. Dropped, it is killed.
    pub(super) async fn validate(&self, bootstrap: &[u8]) -> io::Result<Ended> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let config = Config::write(self.folder.join(format!("{number}.pb")), bootstrap)?;
        let mut command = self.command();
        command
            .args(["--mode", "validate", "--log-level", "critical", "--disable-hot-restart", "--concurrency", "1"])
            // What is sent over xDS may have fields that an older Envoy does not know.
            .arg("--allow-unknown-static-fields")
            .arg("--config-path")
            .arg(&config.path);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (stderr, status) = tokio::try_join!(beginning(stderr), child.wait())?;
        Ok(Ended { code: status.code(), signal: status.signal(), stderr })
    }

    /// With nothing of our environment, which holds what is ours.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.env_clear().current_dir(&self.folder).stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Makes the folder, with a certificate that stands for those of proxies.
fn prepare(folder: &Path) -> Result<(), UnusableEnvoy> {
    let failed = |error| UnusableEnvoy::Folder(folder.to_owned(), error);
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(folder).map_err(failed)?;
    let key = KeyPair::generate().map_err(UnusableEnvoy::Certificate)?;
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).map_err(UnusableEnvoy::Certificate)?;
    for (name, text) in [(CERTIFICATE_FILE, certificate.pem()), (KEY_FILE, key.serialize_pem())] {
        file::replace(&folder.join(name), text.as_bytes(), file::PRIVATE).map_err(failed)?;
    }
    Ok(())
}

/// A file that only its owner reads, and that goes when it is dropped.
struct Config {
    path: PathBuf,
}

impl Config {
    fn write(path: PathBuf, contents: &[u8]) -> io::Result<Self> {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(file::PRIVATE).open(&path)?;
        let config = Self { path };
        file.write_all(contents)?;
        Ok(config)
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The beginning of what comes; the rest is read too, or the writer would wait for ever.
async fn beginning(mut from: impl AsyncRead + Unpin) -> io::Result<String> {
    let mut bytes = Vec::new();
    (&mut from).take(MOST_OUTPUT).read_to_end(&mut bytes).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
