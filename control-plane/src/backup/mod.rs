//! Backups: all that a control plane has, in one encrypted file, and back.
//!
//! The database is asked directly, so that a backup can be made while no control plane runs, and needs no right in the API that could do
//! the same from afar. What is in it: every table of `store::state`, read at one instant, and the files of the data folder. It is
//! logical: what was made of SQLite can be restored to Postgres, and the other way.
//!
//! - [`create`] checks what it writes as [`verify`] does, so a state that is not whole is told at once, and not when it is needed.
//! - [`restore`] is one transaction, which commits only after the last byte of the backup was read and found whole.
//! - Between database and file is a queue of `QUEUE` rows: one end is async, the other a thread that compresses and encrypts.

pub mod check;
pub mod files;
pub mod format;
pub mod retention;
pub mod seal;

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use chancery_runtime::file::{self, Draft};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use tokio::{sync::mpsc, task::spawn_blocking};

use self::{
    check::Check,
    files::{Collected, FilesError},
    format::{Counts, FORMAT, FormatError, Header, Item, Reader, Writer, hexadecimal},
    seal::{Key, Lock, SealError},
};
use crate::store::{
    StoreError,
    state::{self, Expected, Piece, WriteError},
};

/// Rows on their way between database and file.
const QUEUE: usize = 64;

/// Where a backup is put.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A file, which is not there yet.
    File(PathBuf),
    /// A folder, under a name that says when it was made and at which revision.
    Folder(PathBuf),
}

/// What is backed up, and how.
#[derive(Debug)]
pub struct Plan {
    /// The URL of the database.
    pub database: String,
    /// The data folder; none: no files.
    pub folder: Option<PathBuf>,
    /// To whom it is encrypted.
    pub lock: Lock,
    /// If it is to be read back before it counts: by what.
    pub key: Option<Key>,
    /// Where it goes.
    pub to: Destination,
}

/// A backup that was made.
#[derive(Debug)]
pub struct Created {
    /// Where.
    pub path: PathBuf,
    /// What it says of itself.
    pub header: Header,
    /// How much of what is in it.
    pub counts: Counts,
    /// Its size.
    pub bytes: u64,
    /// Its hash, encrypted as it is.
    pub sha256: String,
    /// Files of the data folder that are too large for it.
    pub left_out: Vec<PathBuf>,
    /// Whether it was read back.
    pub verified: bool,
    /// What is wrong with the state that it holds.
    pub findings: Vec<String>,
}

/// A backup that was read.
#[derive(Debug)]
pub struct Verified {
    /// What it says of itself.
    pub header: Header,
    /// How much of what is in it.
    pub counts: Counts,
    /// Its hash, encrypted as it is.
    pub sha256: String,
    /// What is wrong with the state that it holds; nothing: it is whole.
    pub findings: Vec<String>,
}

/// What is restored, and whereto.
#[derive(Clone, Debug)]
pub struct Restoration {
    /// The backup.
    pub path: PathBuf,
    /// What opens it.
    pub key: Key,
    /// The URL of the database.
    pub database: String,
    /// The data folder; none: files stay in the backup.
    pub folder: Option<PathBuf>,
    /// Which database may be written to.
    pub expected: Expected,
    /// Whether a state that is not whole is restored all the same.
    pub accept_findings: bool,
}

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database cannot be written to.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The contents of the backup.
    #[error("the backup cannot be used")]
    Format(#[from] FormatError),
    /// Its encryption.
    #[error("the backup cannot be opened or sealed")]
    Seal(#[from] SealError),
    /// The files of the data folder.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The database was restored, and the files were not.
    #[error("the database is restored, the files of the data folder are not")]
    FilesLeft(#[source] FilesError),
    /// The file of the backup.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something is there already.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// It was made by a newer program.
    #[error(
        "the backup has schema {found}, this program knows {known}: restore it with the program that made it, {program}, or a newer one"
    )]
    Newer {
        /// Which it has.
        found: i64,
        /// The newest that is known.
        known: i64,
        /// The version of the program that made it.
        program: String,
    },
    /// What is in it is not whole.
    #[error("what the backup holds is not whole")]
    Findings(Vec<String>),
    /// The other end of the queue is gone, which says why.
    #[error("it broke off")]
    BrokeOff,
}

/// Makes a backup. Whatever was committed before this is called is in it.
///
/// # Errors
/// There is none then, nor half a one.
pub async fn create(plan: Plan, now: OffsetDateTime) -> Result<Created, BackupError> {
    let (to_file, from_database) = mpsc::channel(QUEUE);
    let database = plan.database.clone();
    let written = spawn_blocking(move || write_file(&plan, now, from_database));
    let (read, written) = tokio::join!(state::read(&database, to_file), written);
    match (read, flat(written)) {
        (_, Ok(created)) => Ok(created),
        (Err(error), Err(BackupError::BrokeOff)) => Err(error.into()),
        (_, Err(error)) => Err(error),
    }
}

/// Reads a backup to its end, and checks all of it.
///
/// # Errors
/// It cannot be opened, or is damaged.
pub async fn verify(path: PathBuf, key: Key) -> Result<Verified, BackupError> {
    flat(spawn_blocking(move || read_file(&path, &key, |_| Ok(()))).await)
}

/// Restores a backup. No control plane may work with the database until this is done.
///
/// # Errors
/// The database is as it was, except for [`BackupError::FilesLeft`].
pub async fn restore(restoration: Restoration, now: OffsetDateTime) -> Result<Verified, BackupError> {
    let Restoration { path, key, database, folder, expected, accept_findings } = restoration;
    let (to_database, from_file) = mpsc::channel(QUEUE);
    let said = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let into = folder.clone();
    let reading = spawn_blocking(move || {
        let mut files = Vec::new();
        let give = |piece| to_database.blocking_send(piece).map_err(|_| BackupError::BrokeOff);
        let read = read_file(&path, &key, |found| {
            match found {
                Found::Header(header) => give(Piece::Begin(header.contents.clone()))?,
                Found::Item(Item::File(file)) => {
                    if let Some(folder) = &into {
                        files::check(folder, std::slice::from_ref(&file))?;
                        if files.len() > files::MOST {
                            return Err(FilesError::TooMany(folder.clone()).into());
                        }
                        files.push(file);
                    }
                }
                Found::Item(Item::Row(table, row)) => give(Piece::Row(table, row))?,
            }
            Ok(())
        })?;
        if !read.findings.is_empty() && !accept_findings {
            return Err(BackupError::Findings(read.findings));
        }
        give(Piece::End)?;
        Ok((read, files))
    });
    let (written, read) = tokio::join!(state::write(&database, expected, (&said, now), from_file), reading);
    let (read, files) = match (written, flat(read)) {
        (Ok(()), read) => read?,
        (Err(error), Ok(_) | Err(BackupError::BrokeOff)) => return Err(error.into()),
        (Err(_), Err(error)) => return Err(error),
    };
    if let Some(folder) = folder {
        let put = spawn_blocking(move || files::put(&folder, &files));
        flat(put.await.map(|put| put.map_err(BackupError::FilesLeft)))?;
    }
    Ok(read)
}

/// What a thread answered; that it panicked goes on.
fn flat<T>(answered: Result<Result<T, BackupError>, tokio::task::JoinError>) -> Result<T, BackupError> {
    match answered {
        Ok(answer) => answer,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(BackupError::BrokeOff),
        },
    }
}

/// Writes what comes from the database, and the files, to where they go.
fn write_file(plan: &Plan, now: OffsetDateTime, mut pieces: mpsc::Receiver<Piece>) -> Result<Created, BackupError> {
    let Some(Piece::Begin(contents)) = pieces.blocking_recv() else { return Err(BackupError::BrokeOff) };
    let Collected { files, left_out } = match &plan.folder {
        Some(folder) => files::collect(folder)?,
        None => Collected::default(),
    };
    let path = match &plan.to {
        Destination::File(path) => path.clone(),
        Destination::Folder(folder) => folder.join(retention::name(now, contents.revision)),
    };
    if path.exists() {
        return Err(BackupError::Exists(path));
    }
    let failed = |source| BackupError::Io { path: path.clone(), source };
    let source = plan.database.split_once(':').map_or("", |(scheme, _)| scheme);
    let source = if source.starts_with("postgres") { "postgres" } else { source };
    let mut check = Check::of(&contents);
    let program = env!("CARGO_PKG_VERSION").to_owned();
    let header = Header { format: FORMAT, program, made_at: now, source: source.to_owned(), contents };

    let draft = Hashed::to(Draft::new(&path, file::PRIVATE).map_err(failed)?);
    let sealing = plan.lock.seal(BufWriter::new(draft))?;
    let mut writer = Writer::begin(BufWriter::new(sealing), &header).map_err(|error| at(&path, error))?;
    for file in files {
        writer.item(Item::File(file)).map_err(|error| at(&path, error))?;
    }
    loop {
        match pieces.blocking_recv() {
            Some(Piece::Row(table, row)) => {
                check.row(table, &row);
                writer.item(Item::Row(table, row)).map_err(|error| at(&path, error))?;
            }
            Some(Piece::End) => break,
            Some(Piece::Begin(_)) | None => return Err(BackupError::BrokeOff),
        }
    }
    let (sealing, counts) = writer.end().map_err(|error| at(&path, error))?;
    let sealing = sealing.into_inner().map_err(|error| failed(error.into_error()))?;
    let draft = sealing.finish().map_err(failed)?.into_inner().map_err(|error| failed(error.into_error()))?;
    let (draft, bytes, sha256) = draft.done();
    let findings = check.end();
    if let Some(key) = &plan.key {
        let read = read_file(draft.path(), key, |_| Ok(()))?;
        if (&read.counts, &read.header, &read.sha256) != (&counts, &header, &sha256) {
            return Err(FormatError::Damaged("what was read back is not what was written").into());
        }
    }
    if !draft.create(&path).map_err(failed)? {
        return Err(BackupError::Exists(path));
    }
    let verified = plan.key.is_some() && findings.is_empty();
    if verified {
        retention::mark(&path, &sha256, now).map_err(failed)?;
    }
    Ok(Created { path, header, counts, bytes, sha256, left_out, verified, findings })
}

/// An error of writing, which is one of the file at `path`.
fn at(path: &Path, error: FormatError) -> BackupError {
    match error {
        FormatError::Write(source) => BackupError::Io { path: path.to_owned(), source },
        error => error.into(),
    }
}

/// What is found in a backup.
enum Found<'a> {
    Header(&'a Header),
    Item(Item),
}

/// Reads a backup to its end and checks it; each thing is given to `found` first.
fn read_file(
    path: &Path,
    key: &Key,
    mut found: impl FnMut(Found<'_>) -> Result<(), BackupError>,
) -> Result<Verified, BackupError> {
    let failed = |source| BackupError::Io { path: path.to_owned(), source };
    let mut file = Hashed::to(BufReader::new(File::open(path).map_err(failed)?));
    let opened = key.open(&mut file)?;
    let (mut reader, header) = Reader::begin(BufReader::new(opened))?;
    let known = state::schema_version();
    if header.contents.schema > known {
        let (found, program) = (header.contents.schema, header.program);
        return Err(BackupError::Newer { found, known, program });
    }
    found(Found::Header(&header))?;
    let mut check = Check::of(&header.contents);
    while let Some(item) = reader.item()? {
        if let Item::Row(table, row) = &item {
            check.row(*table, row);
        }
        found(Found::Item(item))?;
    }
    let counts = reader.counts().clone();
    drop(reader);
    // Whatever follows is no part of it, and yet of the file's hash.
    io::copy(&mut file, &mut io::sink()).map_err(failed)?;
    let (_, _, sha256) = file.done();
    Ok(Verified { header, counts, sha256, findings: check.end() })
}

/// What goes through it is counted and hashed.
struct Hashed<T> {
    inner: T,
    hash: Sha256,
    bytes: u64,
}

impl<T> Hashed<T> {
    fn to(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), bytes: 0 }
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn done(self) -> (T, u64, String) {
        (self.inner, self.bytes, hexadecimal(&self.hash.finalize()))
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.passed(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: io::Read> io::Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.passed(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
