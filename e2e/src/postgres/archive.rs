//! A Postgres that archives its log, and what becomes of it: its data is lost, and comes back as of a moment.
//!
//! The settings are those of `docs/operations/backup.md`.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use sqlx::{Connection as _, PgConnection, query_scalar, raw_sql};

use super::{Postgres, Stop, run};
use crate::wait::until;

/// How long the archive, and a recovery from it, may take.
const ARCHIVED_WITHIN: Duration = Duration::from_secs(60);

impl Postgres {
    /// Starts one that archives its log, or answers `None` if none is installed.
    pub async fn start_archiving() -> Result<Option<Self>> {
        Self::start_with("off", true, None).await
    }

    /// Copies the data as it is, with `pg_basebackup`, while it is written to.
    pub fn base_backup(&self) -> Result<()> {
        let mut command = self.command("pg_basebackup");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"]);
        command.arg("-D").arg(self.base()).args(["--checkpoint=fast", "--no-sync"]);
        run(command)
    }

    /// The time by the database's clock, as a target of a recovery.
    pub async fn now(&self) -> Result<String> {
        let mut connection = PgConnection::connect(&self.url()).await?;
        let now = query_scalar("SELECT clock_timestamp()::text").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(now)
    }

    /// Waits until everything that was committed is in the archive.
    pub async fn archived(&self) -> Result<()> {
        let mut connection = PgConnection::connect(&self.url()).await?;
        let segment: String =
            query_scalar("SELECT pg_walfile_name(pg_current_wal_lsn())").fetch_one(&mut connection).await?;
        raw_sql("SELECT pg_switch_wal()").execute(&mut connection).await?;
        let file = self.archive_folder().join(&segment);
        until("the log is archived", ARCHIVED_WITHIN, async || {
            ensure!(file.is_file(), "{} is not there", file.display());
            Ok(())
        })
        .await?;
        Ok(connection.close().await?)
    }

    /// Loses all data at once, as a disk that breaks, and recovers what there was at `time`: the base backup, and what the archive has.
    pub async fn lose_and_recover(&mut self, time: &str) -> Result<()> {
        self.stop(Stop::Immediate).await?;
        fs::remove_dir_all(self.data())?;
        fs::rename(self.base(), self.data())?;
        let restore = format!("cp {}/%f %p", self.archive_folder().display());
        let settings = format!(
            "restore_command = '{restore}'\nrecovery_target_time = '{time}'\nrecovery_target_action = 'promote'\n"
        );
        self.configure(&settings)?;
        fs::write(self.data().join("recovery.signal"), "")?;
        self.start_again().await?;
        until("Postgres has recovered", ARCHIVED_WITHIN, async || {
            let mut connection = PgConnection::connect(&self.url()).await?;
            let recovering: bool = query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut connection).await?;
            ensure!(!recovering, "it is still at it");
            Ok(())
        })
        .await
    }

    /// Has it archive its log.
    pub(super) fn archive(&self) -> Result<()> {
        let folder = self.archive_folder();
        let mut make = self.command_of(std::path::Path::new("/bin/mkdir"));
        make.arg(&folder);
        run(make)?;
        let command = format!("test ! -f {0}/%f && cp %p {0}/%f", folder.display());
        self.configure(&format!("archive_mode = on\narchive_command = '{command}'\n"))
    }

    fn configure(&self, settings: &str) -> Result<()> {
        let file = self.data().join("postgresql.conf");
        let before = fs::read_to_string(&file)?;
        // As it is owned now: by whom Postgres runs as.
        Ok(fs::write(&file, before + settings)?)
    }

    fn archive_folder(&self) -> PathBuf {
        self.directory.path().join("archive")
    }

    fn base(&self) -> PathBuf {
        self.directory.path().join("base")
    }
}
