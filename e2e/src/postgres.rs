//! A real Postgres for a test: in a directory of its own, on a free port, gone with the test.
//!
//! - Postgres refuses to run as root, so when we are root it runs as the user `postgres`.
//! - It runs under a shell that waits for the end of its input, which is a pipe that we hold: if the
//!   test is killed, the pipe breaks and Postgres goes as well.
//! - Without `fsync`, unless it is to be measured: nothing outlives the machine here anyway.
//!
//! - One that archives its log can be brought back to a moment after its base backup (`archive`).
//!
//! Where no Postgres is installed a test is skipped, loudly; in CI that is a failure.

mod archive;

use std::{
    fs::{self, File, Permissions},
    io::{self, Read, Seek, SeekFrom, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::wait::until;

/// How long Postgres may take to start, and to stop.
const DEADLINE: Duration = Duration::from_secs(30);

/// How Postgres is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// In order: connections are told, and closed.
    Fast,
    /// At once, as in a crash.
    Immediate,
}

/// A running Postgres, stopped and removed when dropped.
pub struct Postgres {
    binaries: PathBuf,
    user: Option<User>,
    port: u16,
    fsync: &'static str,
    /// Settings beside those that all have, as `name=value`.
    settings: Vec<String>,
    server: Option<Child>,
    databases: AtomicU32,
    /// Last: removed after the server is gone.
    directory: TempDir,
}

/// Whom to run as.
#[derive(Clone, Copy)]
struct User {
    id: u32,
    group: u32,
}

impl Postgres {
    /// Starts one, or answers `None` if none is installed.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        Self::start_with("off", false, None).await
    }

    /// Starts one that has all its files below `disk`.
    pub async fn start_on(disk: &Path) -> anyhow::Result<Option<Self>> {
        Self::start_with("off", false, Some(disk)).await
    }

    /// Starts one that syncs what it commits, as those of operators do.
    pub async fn start_durable() -> anyhow::Result<Option<Self>> {
        Self::start_with("on", false, None).await
    }

    async fn start_with(fsync: &'static str, archives: bool, disk: Option<&Path>) -> anyhow::Result<Option<Self>> {
        let Some(binaries) = find_binaries() else {
            ensure!(std::env::var_os("CI").is_none(), "no Postgres is installed, and CI must not skip its tests");
            // Not `eprintln!`, whose output of a passing test is not shown.
            writeln!(io::stderr(), "SKIPPED: no Postgres found by pg_config or below /usr/lib/postgresql")?;
            return Ok(None);
        };
        let user = if is_root()? { Some(User::named("postgres")?) } else { None };
        let directory = Self::directory(user, disk)?;
        let (port, databases) = (free_port()?, AtomicU32::new(0));
        let settings = Vec::new();
        let mut postgres = Self { binaries, user, port, fsync, settings, server: None, databases, directory };
        postgres.initialize()?;
        if archives {
            postgres.archive()?;
        }
        postgres.start_again().await?;
        Ok(Some(postgres))
    }

    /// One that concurrent tests share; it stops with the last of them.
    pub async fn shared() -> anyhow::Result<Option<Arc<Self>>> {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(running) = shared.upgrade() {
            return Ok(Some(running));
        }
        let started = Self::start().await?.map(Arc::new);
        *shared = started.as_ref().map_or_else(Weak::new, Arc::downgrade);
        Ok(started)
    }

    /// The URL of the database `postgres`.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Creates an empty database, and answers with its URL.
    pub async fn create_database(&self) -> anyhow::Result<String> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = PgConnection::connect(&self.url()).await?;
        let create = format!("CREATE DATABASE {name}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut connection).await?;
        connection.close().await?;
        Ok(self.url_of(&name))
    }

    /// What the database at `url` takes on the disk, in bytes.
    pub async fn size_of(&self, url: &str) -> anyhow::Result<u64> {
        let mut connection = PgConnection::connect(url).await?;
        let size: i64 =
            sqlx::query_scalar("SELECT pg_database_size(current_database())").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(size.try_into()?)
    }

    /// How many sessions `database` has, without the one that asks.
    pub async fn sessions(&self, database: &str) -> anyhow::Result<i64> {
        let mut connection = PgConnection::connect(&self.url()).await?;
        let count = sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE datname = $1")
            .bind(database)
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(count)
    }

    /// Ends every session that last ran a statement starting with `statement`, and says how many.
    pub async fn terminate_sessions(&self, statement: &str) -> anyhow::Result<u64> {
        let mut connection = PgConnection::connect(&self.url()).await?;
        let ended = sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE starts_with(ltrim(query), $1) AND pid <> pg_backend_pid()",
        )
        .bind(statement)
        .fetch_all(&mut connection)
        .await?
        .len();
        connection.close().await?;
        Ok(ended as u64)
    }

    /// Starts it again with TLS by this certificate, and lets in whom the file `hba` says. Whoever is trusted until then, as by
    /// [`Postgres::url`], may be so no more.
    pub async fn secure(&mut self, certificate: &Path, key: &Path, hba: &Path) -> anyhow::Result<()> {
        for (from, name) in [(certificate, "tls.crt"), (key, "tls.key")] {
            let to = self.directory.path().join(name);
            // Not `copy`, which takes the permissions with it: Postgres wants a key of its own that nobody else can read.
            fs::write(&to, fs::read(from)?)?;
            fs::set_permissions(&to, Permissions::from_mode(0o600))?;
            if let Some(user) = self.user {
                chown(&to, Some(user.id), Some(user.group))?;
            }
        }
        let at = |name: &str| self.directory.path().join(name).display().to_string();
        self.settings = vec![
            "ssl=on".into(),
            format!("ssl_cert_file={}", at("tls.crt")),
            format!("ssl_key_file={}", at("tls.key")),
        ];
        self.stop(Stop::Fast).await?;
        self.start_again().await?;
        let mut connection = PgConnection::connect(&self.url()).await?;
        fs::write(self.data().join("pg_hba.conf"), fs::read(hba)?)?;
        sqlx::query("SELECT pg_reload_conf()").execute(&mut connection).await?;
        Ok(connection.close().await?)
    }

    /// Starts another server that follows this one. From now on this one acknowledges what the other has written down.
    pub async fn replica(&self) -> anyhow::Result<Self> {
        let (directory, user) = (Self::directory(self.user, None)?, self.user);
        let (binaries, databases, settings) = (self.binaries.clone(), AtomicU32::new(0), Vec::new());
        let port = free_port()?;
        let mut replica = Self { binaries, user, port, fsync: "off", settings, server: None, databases, directory };
        let mut copy = replica.command("pg_basebackup");
        copy.arg("-D").arg(replica.data()).args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"]);
        copy.args(["-R", "-X", "stream", "-c", "fast", "--no-sync"]);
        run(copy)?;
        replica.start_again().await?;
        let mut connection = PgConnection::connect(&self.url()).await?;
        for statement in ["ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"] {
            sqlx::raw_sql(statement).execute(&mut connection).await?;
        }
        until("the replica keeps up", DEADLINE, async || {
            let synced = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            let synced: i64 = sqlx::query_scalar(synced).fetch_one(&mut connection).await?;
            ensure!(synced == 1, "it does not yet");
            Ok(())
        })
        .await?;
        Ok(replica)
    }

    /// Makes a replica a server of its own, that is written to.
    pub fn promote(&self) -> anyhow::Result<()> {
        let mut promote = self.command("pg_ctl");
        promote.arg("promote").arg("-D").arg(self.data()).args(["-w", "-t", "20"]);
        run(promote)
    }

    /// Stops the server; its data stays.
    pub async fn stop(&mut self, how: Stop) -> anyhow::Result<()> {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        let mut stop = self.command("pg_ctl");
        stop.arg("stop").arg("-D").arg(self.data()).args(["-m", mode, "-w", "-t", "20"]);
        let result = run(stop);
        self.end();
        result
    }

    /// Starts the server after [`Postgres::stop`], on the same port, and waits until it answers.
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        const UNTIL_INPUT_ENDS: &str = r#""$@" & server=$!; cat >/dev/null; kill -QUIT $server; wait $server"#;
        let log = File::create(self.log())?;
        let mut command = self.command_of(Path::new("/bin/sh"));
        command.args(["-c", UNTIL_INPUT_ENDS, "sh"]).arg(self.binaries.join("postgres"));
        command.arg("-D").arg(self.data()).arg("-k").arg(self.directory.path());
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command.args([
            "-c",
            &format!("fsync={}", self.fsync),
            "-c",
            "shared_buffers=16MB",
            "-c",
            "max_connections=200",
        ]);
        command.args(self.settings.iter().flat_map(|setting| ["-c", setting]));
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        self.server = Some(command.spawn().context("cannot start Postgres")?);

        let started = Instant::now();
        loop {
            match PgConnection::connect(&self.url()).await {
                Ok(connection) => return Ok(connection.close().await?),
                Err(error) if started.elapsed() > DEADLINE => {
                    self.end();
                    bail!("Postgres does not answer: {error}; its log ends with\n{}", self.end_of_log());
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn directory(user: Option<User>, disk: Option<&Path>) -> anyhow::Result<TempDir> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("chancery-postgres-");
        let directory = disk.map_or_else(|| builder.tempdir(), |disk| builder.tempdir_in(disk))?;
        if let Some(user) = user {
            chown(directory.path(), Some(user.id), Some(user.group))?;
        }
        Ok(directory)
    }

    fn initialize(&self) -> anyhow::Result<()> {
        let mut initdb = self.command("initdb");
        initdb.arg("-D").arg(self.data()).args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]);
        initdb.args(["--no-sync", "--no-instructions"]);
        run(initdb)
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn end_of_log(&self) -> String {
        let read = || -> io::Result<String> {
            let mut log = File::open(self.log())?;
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(2000)))?;
            let mut end = Vec::new();
            log.read_to_end(&mut end)?;
            Ok(String::from_utf8_lossy(&end).into_owned())
        };
        read().unwrap_or_else(|error| error.to_string())
    }

    /// Ends the server with its shell, however it is.
    #[expect(clippy::disallowed_methods, reason = "a destructor cannot wait otherwise")]
    fn end(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        drop(server.stdin.take());
        let started = Instant::now();
        while matches!(server.try_wait(), Ok(None)) {
            if started.elapsed() > DEADLINE {
                eprintln!("Postgres in {} does not stop", self.directory.path().display());
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn command(&self, program: &str) -> Command {
        self.command_of(&self.binaries.join(program))
    }

    fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).env("LC_ALL", "C");
        if let Some(User { id, group }) = self.user {
            command.uid(id).gid(group);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end();
    }
}

impl User {
    fn named(name: &str) -> anyhow::Result<Self> {
        let users = fs::read_to_string("/etc/passwd")?;
        let mut fields = users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&name))
            .with_context(|| format!("Postgres does not run as root, and there is no user {name:?}"))?
            .into_iter()
            .skip(2);
        let mut number = || -> anyhow::Result<u32> { Ok(fields.next().unwrap_or_default().parse()?) };
        Ok(Self { id: number()?, group: number()? })
    }
}

/// The directory of `initdb` and `postgres`, which are rarely on the path.
fn find_binaries() -> Option<PathBuf> {
    let configured = Command::new("pg_config").arg("--bindir").output().ok();
    let configured = configured.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .chain(configured)
        .filter(|directory| directory.join("initdb").is_file() && directory.join("postgres").is_file())
        .collect();
    found.sort();
    found.pop()
}

fn is_root() -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let file = tempfile::tempfile()?;
    Ok(file.metadata()?.uid() == 0)
}

/// A port that was free a moment ago.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn run(mut command: Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&said));
    }
    Ok(())
}
