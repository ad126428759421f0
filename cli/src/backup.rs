//! Everything in one encrypted file, and back.
//!
//! The only commands that go to the database and not to a control plane: they have to work when none does. Which database, and which
//! data folder, is said as it is to the control plane: by flags, `CHANCERY_…` and the settings file with the environment beside it.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use chancery_control_plane::{
    backup::{
        self, BackupError, Created, Destination, Plan, Restoration, Verified,
        format::{Counts, Header},
        retention::{self, Retention},
        seal::{Key, Lock, SealError},
    },
    settings::Settings,
    store::state::Expected,
};
use clap::{Args, Subcommand};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Instant;

use crate::{
    failure::Failure,
    host,
    output::{self, OutputArgs},
};

/// `chancery backup`
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    command: BackupCommand,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Write all state, as it is at one revision, to an encrypted file
    Create(Box<CreateArgs>),
    /// Read a backup to its end and check all that is in it
    Verify(VerifyArgs),
    /// Put a backup into a database that holds nothing, all of it or none
    Restore(Box<RestoreArgs>),
}

/// What is backed up or restored.
#[derive(Debug, Args, Serialize)]
struct StateArgs {
    /// sqlite://PATH or postgres://USER:PASSWORD@HOST/DATABASE [default: as the control plane's settings have it]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Data folder of the control plane, with certificates and the admin's token [default: as the settings have it]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Settings file of the control plane; what the environment does not say is looked for in FILE with .env for .toml, too [default:
    /// /etc/chancery/control-plane.toml, if there is one and neither flags nor environment say what is meant]
    #[arg(long, value_name = "FILE", env = "CHANCERY_CONFIG")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Leave the files of the data folder alone
    #[arg(long)]
    #[serde(skip)]
    no_files: bool,
}

/// What opens a backup.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct KeyArgs {
    /// File with an age identity, as age-keygen writes it; may be repeated
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// File whose first line is the passphrase
    #[arg(long, value_name = "FILE", conflicts_with = "identity")]
    passphrase_file: Option<PathBuf>,
}

/// `chancery backup create`
#[derive(Debug, Args)]
struct CreateArgs {
    /// A file that is not there yet, or a folder, in which it is named by time and revision
    #[arg(long, value_name = "FILE|DIR")]
    to: PathBuf,
    /// Who can read it: an age recipient (age1…); may be repeated
    #[arg(short, long, value_name = "RECIPIENT", required_unless_present_any = ["recipients_file", "passphrase_file"])]
    recipient: Vec<String>,
    /// File with recipients, one a line; may be repeated
    #[arg(short = 'R', long, value_name = "FILE")]
    recipients_file: Vec<PathBuf>,
    /// File whose first line is a passphrase, in place of recipients
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recipient", "recipients_file"])]
    passphrase_file: Option<PathBuf>,
    /// File with an age identity, to read the backup back and check it before it counts; with a passphrase that is always done
    #[arg(short, long, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// Then keep the newest N backups of the folder, those that --keep-for keeps, and the newest that was verified
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Then keep backups of the folder that are younger than this, as 30d, those that --keep keeps, and the newest that was verified
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    keep_for: Option<Duration>,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// `chancery backup verify`
#[derive(Debug, Args)]
struct VerifyArgs {
    /// The backup
    file: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// `chancery backup restore`
#[derive(Debug, Args)]
struct RestoreArgs {
    /// The backup
    file: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    /// Replace what the database holds, if this is its newest revision
    #[arg(long, value_name = "REVISION")]
    replace_revision: Option<u64>,
    /// Restore it even if what is in it is not whole, as `verify` says
    #[arg(long)]
    accept_findings: bool,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// What is said of a backup.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    file: String,
    /// What was backed up or restored, without user and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    made_at: String,
    revision: u64,
    #[serde(flatten)]
    counts: &'a Counts,
    /// The newest entry of the audit log, as `chancery audit verify --head` takes it.
    audit_head: Option<String>,
    sha256: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<bool>,
    seconds: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    findings: &'a [String],
}

/// Runs `chancery backup …`.
pub(crate) async fn backup(args: BackupArgs) -> Result<(), Failure> {
    match args.command {
        BackupCommand::Create(args) => create(*args).await,
        BackupCommand::Verify(args) => verify(args).await,
        BackupCommand::Restore(args) => restore(*args).await,
    }
}

async fn create(args: CreateArgs) -> Result<(), Failure> {
    let begun = Instant::now();
    let CreateArgs { to, recipient, recipients_file, passphrase_file, identity, keep, keep_for, state, output } = args;
    let in_folder = to.is_dir();
    if !in_folder && (keep.is_some() || keep_for.is_some()) {
        return Err(Failure::Usage(format!("--keep and --keep-for: {} is no folder", to.display())));
    }
    let (lock, key) = match &passphrase_file {
        Some(file) => (Lock::passphrase_file(file)?, Some(Key::passphrase_file(file)?)),
        None if identity.is_empty() => (Lock::recipients(&recipient, &recipients_file)?, None),
        None => (Lock::recipients(&recipient, &recipients_file)?, Some(Key::identity_files(&identity)?)),
    };
    let settings = state.settings()?;
    let folder = state.folder(&settings).filter(|folder| folder.is_dir());
    let destination = if in_folder { Destination::Folder(to.clone()) } else { Destination::File(to.clone()) };
    let database = settings.database_url();
    let plan = Plan { database: database.clone(), folder, lock, key, to: destination };
    let made = backup::create(plan, OffsetDateTime::now_utc()).await?;
    // One that is not whole is no reason to let go of others.
    let retention = Retention { keep, keep_for };
    let removed = if in_folder && made.findings.is_empty() {
        retention::apply(&to, &made.path, retention, OffsetDateTime::now_utc())
            .map_err(|source| Failure::Io { what: to.display().to_string(), source })?
    } else {
        Vec::new()
    };
    let Created { path, header, counts, bytes, sha256, left_out, verified, findings } = made;
    let shown = |paths: Vec<PathBuf>| paths.iter().map(|path| path.display().to_string()).collect();
    let told = Told {
        database: Some(place(&database)),
        bytes: Some(bytes),
        verified: Some(verified),
        left_out: shown(left_out),
        removed: shown(removed),
        findings: &findings,
        ..Told::of(path.display().to_string(), &header, &counts, &sha256, begun)
    };
    told.tell(output)
}

async fn verify(args: VerifyArgs) -> Result<(), Failure> {
    let begun = Instant::now();
    let VerifyArgs { file, key, output } = args;
    let Verified { header, counts, sha256, findings } = backup::verify(file.clone(), key.key()?).await?;
    if findings.is_empty() {
        // Whoever verifies may do so on a copy that cannot be written to; then it counts as not verified where it lies.
        if let Err(error) = retention::mark(&file, &sha256, OffsetDateTime::now_utc()) {
            eprintln!("chancery: cannot note beside {} that it was verified: {error}", file.display());
        }
    }
    let told = Told { findings: &findings, ..Told::of(file.display().to_string(), &header, &counts, &sha256, begun) };
    told.tell(output)
}

async fn restore(args: RestoreArgs) -> Result<(), Failure> {
    let begun = Instant::now();
    let RestoreArgs { file, key, replace_revision, accept_findings, state, output } = args;
    let settings = state.settings()?;
    let database = settings.database_url();
    let restoration = Restoration {
        path: file.clone(),
        key: key.key()?,
        database: database.clone(),
        folder: state.folder(&settings),
        expected: replace_revision.map_or(Expected::Empty, Expected::Revision),
        accept_findings,
    };
    let Verified { header, counts, sha256, findings } = backup::restore(restoration, OffsetDateTime::now_utc()).await?;
    // What was accepted is told, and no failure.
    for finding in &findings {
        eprintln!("chancery: {finding}");
    }
    let told = Told::of(file.display().to_string(), &header, &counts, &sha256, begun);
    Told { database: Some(place(&database)), ..told }.tell(output)
}

/// Where a database is, without who is let in.
fn place(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| *scheme != "sqlite") else {
        return url.to_owned();
    };
    let rest = rest.split_once('?').map_or(rest, |(place, _)| place);
    format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, place)| place))
}

impl StateArgs {
    fn settings(&self) -> Result<Settings, Failure> {
        self.settings_among(std::env::vars().collect(), || host::usual_settings("control-plane"))
    }

    /// The settings, in an environment and on a host that has `usual` ones.
    fn settings_among(
        &self,
        mut environment: BTreeMap<String, String>,
        usual: impl FnOnce() -> Option<PathBuf>,
    ) -> Result<Settings, Failure> {
        let says = |name: &str| environment.contains_key(name);
        let says_which = self.database.is_some() || says("CHANCERY_DATABASE");
        let is_meant = says_which || self.data_dir.is_some() || says("CHANCERY_DATA_DIR");
        let file = self.config.clone().or_else(|| if is_meant { None } else { usual() });
        if let Some(file) = &file {
            match host::environment_beside(file) {
                Ok(beside) => beside.into_iter().for_each(|(name, value)| {
                    environment.entry(name).or_insert(value);
                }),
                // It may say which database is meant, and another is not to be taken for that.
                Err(source) if !says_which => {
                    return Err(Failure::Io { what: file.with_extension("env").display().to_string(), source });
                }
                Err(_) => {}
            }
        }
        let settings = chancery_runtime::settings::load(self, environment, file.as_deref());
        settings.map_err(|error| Failure::Usage(chancery_runtime::telemetry::chain(&error)))
    }

    fn folder(&self, settings: &Settings) -> Option<PathBuf> {
        (!self.no_files).then(|| settings.data_dir.clone())
    }
}

impl KeyArgs {
    fn key(&self) -> Result<Key, SealError> {
        match &self.passphrase_file {
            Some(file) => Key::passphrase_file(file),
            None => Key::identity_files(&self.identity),
        }
    }
}

impl<'a> Told<'a> {
    fn of(file: String, header: &Header, counts: &'a Counts, sha256: &'a str, begun: Instant) -> Self {
        Self {
            file,
            database: None,
            made_at: header.made_at.format(&Rfc3339).unwrap_or_default(),
            revision: header.contents.revision,
            counts,
            audit_head: header.contents.audit.as_ref().map(|(sequence, hash)| format!("{sequence}:{hash}")),
            sha256,
            bytes: None,
            verified: None,
            seconds: (begun.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            left_out: Vec::new(),
            removed: Vec::new(),
            findings: &[],
        }
    }

    /// Prints it; what is wrong with the state is a failure.
    fn tell(&self, output: OutputArgs) -> Result<(), Failure> {
        output.print(self, Self::for_people)?;
        if self.findings.is_empty() { Ok(()) } else { Err(Failure::Problems(self.findings.to_vec())) }
    }

    fn for_people(&self) -> String {
        let mut rows = vec![["file".to_owned(), self.file.clone()]];
        let mut say = |what: &str, value: String| rows.push([what.to_owned(), value]);
        if let Some(database) = &self.database {
            say("database", database.clone());
        }
        say("made at", self.made_at.clone());
        say("revision", self.revision.to_string());
        for table in ["resources", "changes", "tokens", "audit", "endpoints"] {
            say(table, self.counts.rows.get(table).copied().unwrap_or(0).to_string());
        }
        say("files", self.counts.files.to_string());
        if let Some(head) = &self.audit_head {
            say("audit head", head.clone());
        }
        say("sha256", self.sha256.to_owned());
        if let Some(bytes) = self.bytes {
            say("bytes", bytes.to_string());
        }
        if let Some(verified) = self.verified {
            say("read back", if verified { "yes" } else { "no" }.to_owned());
        }
        say("seconds", self.seconds.to_string());
        for (what, paths) in [("left out", &self.left_out), ("removed", &self.removed)] {
            for path in paths {
                say(what, path.clone());
            }
        }
        output::table(["WHAT", "VALUE"], rows)
    }
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        BackupError::from(error).into()
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Findings(findings) => Self::Problems(findings),
            BackupError::Seal(error @ (SealError::WrongKey | SealError::NotSealed)) => Self::Failed(error.into()),
            BackupError::Seal(error) => Self::Usage(chancery_runtime::telemetry::chain(&error)),
            BackupError::Io { path, source } => Self::Io { what: path.display().to_string(), source },
            error => Self::Failed(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(database: Option<&str>, config: Option<&std::path::Path>) -> StateArgs {
        let (database, config) = (database.map(str::to_owned), config.map(Into::into));
        StateArgs { database, data_dir: None, config, no_files: false }
    }

    fn environment(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_database_is_the_one_that_the_control_plane_of_the_host_has() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("control-plane.toml");
        std::fs::write(&file, "data_dir = \"/there\"\n").unwrap();
        std::fs::write(folder.path().join("control-plane.env"), "CHANCERY_DATABASE=postgres://u:p@h/beside\n").unwrap();
        let usual = || Some(file.clone());
        let asked = |args: &StateArgs, variables: &[(&str, &str)]| {
            let settings = args.settings_among(environment(variables), usual).unwrap();
            (settings.database_url(), settings.data_dir)
        };
        let (beside, there) = ("postgres://u:p@h/beside".to_owned(), PathBuf::from("/there"));
        assert_eq!(asked(&args(None, None), &[]), (beside.clone(), there.clone()), "nothing is said");
        assert_eq!(asked(&args(None, Some(&file)), &[]), (beside, there.clone()), "the file is named");
        let said = asked(&args(None, Some(&file)), &[("CHANCERY_DATABASE", "postgres://h/said")]);
        assert_eq!(said, ("postgres://h/said".to_owned(), there), "the environment goes first");
        let flagged = asked(&args(Some("sqlite://own.db"), None), &[]);
        assert_eq!(flagged.0, "sqlite://own.db");
        assert_ne!(flagged.1, PathBuf::from("/there"), "what is meant is not the host's control plane");
        let elsewhere = asked(&args(None, None), &[("CHANCERY_DATA_DIR", "/own")]);
        assert_eq!(elsewhere, ("sqlite:///own/chancery.db".to_owned(), PathBuf::from("/own")));
    }

    #[test]
    fn an_environment_that_cannot_be_read_is_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("control-plane.toml");
        std::fs::write(&file, "").unwrap();
        std::fs::create_dir(folder.path().join("control-plane.env")).unwrap();
        let asked = |database| args(database, Some(&file)).settings_among(BTreeMap::new(), || None);
        let error = asked(None).unwrap_err().to_string();
        assert!(error.contains("control-plane.env"), "{error}");
        assert_eq!(asked(Some("sqlite://own.db")).unwrap().database_url(), "sqlite://own.db");
    }

    #[test]
    fn a_place_has_no_password() {
        assert_eq!(
            place("postgres://chancery:p@ss@db.internal:5432/chancery?password=p"),
            "postgres://db.internal:5432/chancery"
        );
        assert_eq!(place("postgres:///chancery?host=/run"), "postgres:///chancery");
        assert_eq!(place("sqlite:///data/a@b.db"), "sqlite:///data/a@b.db");
    }
}
