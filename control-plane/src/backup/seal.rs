//! Who may read a backup: the outer layers of the file, which are gzip within age (<https://age-encryption.org/v1>).
//!
//! Nothing of it is ours, so `age -d -i KEY FILE | gunzip` shows the lines without Chancery. A host that makes backups needs the public
//! half alone (recipients), and can then read none of them. A passphrase is for those who have nowhere to keep a key.

use std::{
    fmt, fs,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use age::{secrecy::SecretString, x25519};
use chancery_runtime::Secret;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};

/// The most work that a passphrase is stretched by, as a power of two: some seconds, and a gigabyte.
const MOST_WORK: u8 = 20;

/// Files with keys are short.
const LONGEST_KEY_FILE: u64 = 1 << 20;

/// What a backup is encrypted to.
#[derive(Clone)]
pub enum Lock {
    /// Whoever holds one of the keys to these.
    Recipients(Vec<x25519::Recipient>),
    /// Whoever knows this.
    Passphrase(Secret<String>),
}

/// What opens a backup.
#[derive(Clone)]
pub enum Key {
    /// Any of these.
    Identities(Vec<x25519::Identity>),
    /// This.
    Passphrase(Secret<String>),
}

/// Why there is no lock or key, or why it does not fit.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something is no recipient.
    #[error("{place} is no recipient of age (age1…)")]
    Recipient {
        /// Where it stands. Not what it is: it may be a key.
        place: String,
    },
    /// Something is no identity.
    #[error("{place} is no identity of age (AGE-SECRET-KEY-1…)")]
    Identity {
        /// Where it stands.
        place: String,
    },
    /// There is nothing in a file.
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
    /// Nothing to encrypt to.
    #[error("there is nobody to encrypt to")]
    Nobody,
    /// It is not encrypted as we do it.
    #[error("it is not a file of age, or its beginning is damaged")]
    NotSealed,
    /// The key is another.
    #[error("the key does not open it")]
    WrongKey,
    /// A layer cannot be written or read.
    #[error("it cannot be written or read")]
    Io(#[source] io::Error),
}

impl Lock {
    /// Encrypts to these recipients and to those in files, one in a line.
    ///
    /// # Errors
    /// A file cannot be read, something is no recipient, or there is none.
    pub fn recipients(texts: &[String], files: &[PathBuf]) -> Result<Self, SealError> {
        let mut recipients = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let place = || SealError::Recipient { place: format!("recipient {}", index + 1) };
            recipients.push(text.trim().parse().map_err(|_| place())?);
        }
        for path in files {
            recipients.extend(parsed(path, |place| SealError::Recipient { place })?);
        }
        if recipients.is_empty() { Err(SealError::Nobody) } else { Ok(Self::Recipients(recipients)) }
    }

    /// Encrypts to the passphrase in a file's first line.
    ///
    /// # Errors
    /// The file cannot be read, or has none.
    pub fn passphrase_file(path: &Path) -> Result<Self, SealError> {
        passphrase(path).map(Self::Passphrase)
    }

    /// A layer that compresses and encrypts what is written to it.
    pub(super) fn seal<W: Write>(&self, to: W) -> Result<Sealing<W>, SealError> {
        let encryptor = match self {
            Self::Passphrase(text) => age::Encryptor::with_user_passphrase(SecretString::from(text.expose().clone())),
            Self::Recipients(recipients) => {
                let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
                age::Encryptor::with_recipients(recipients).map_err(|error| match error {
                    age::EncryptError::Io(error) => SealError::Io(error),
                    _ => SealError::Nobody,
                })?
            }
        };
        let encrypted = encryptor.wrap_output(to).map_err(SealError::Io)?;
        Ok(Sealing(GzEncoder::new(encrypted, Compression::fast())))
    }
}

impl Key {
    /// The identities in a file, as `age-keygen` writes it.
    ///
    /// # Errors
    /// The file cannot be read, or has something else in it.
    pub fn identity_files(paths: &[PathBuf]) -> Result<Self, SealError> {
        let mut identities = Vec::new();
        for path in paths {
            identities.extend(parsed(path, |place| SealError::Identity { place })?);
        }
        Ok(Self::Identities(identities))
    }

    /// The passphrase in a file's first line.
    ///
    /// # Errors
    /// The file cannot be read, or has none.
    pub fn passphrase_file(path: &Path) -> Result<Self, SealError> {
        passphrase(path).map(Self::Passphrase)
    }

    /// What was written through [`Lock::seal`].
    pub(super) fn open<R: Read>(&self, from: R) -> Result<impl Read, SealError> {
        let decryptor = age::Decryptor::new(from).map_err(refused)?;
        let opened = match self {
            Self::Identities(identities) => {
                decryptor.decrypt(identities.iter().map(|identity| identity as &dyn age::Identity))
            }
            Self::Passphrase(text) => {
                let mut identity = age::scrypt::Identity::new(SecretString::from(text.expose().clone()));
                identity.set_max_work_factor(MOST_WORK);
                decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
            }
        };
        Ok(GzDecoder::new(BufReader::new(opened.map_err(refused)?)))
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// What is written to it is compressed and encrypted; nothing of it counts before [`Sealing::finish`].
pub(super) struct Sealing<W: Write>(GzEncoder<age::stream::StreamWriter<W>>);

impl<W: Write> Sealing<W> {
    /// Writes the last of it, by which a reader knows that nothing is missing.
    pub(super) fn finish(self) -> io::Result<W> {
        self.0.finish()?.finish()
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn refused(error: age::DecryptError) -> SealError {
    match error {
        age::DecryptError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => SealError::Io(error),
        age::DecryptError::NoMatchingKeys
        | age::DecryptError::DecryptionFailed
        | age::DecryptError::KeyDecryptionFailed
        | age::DecryptError::ExcessiveWork { .. } => SealError::WrongKey,
        _ => SealError::NotSealed,
    }
}

/// What stands in the lines of a file that are not empty and no comments.
fn parsed<T: std::str::FromStr>(path: &Path, wrong: impl Fn(String) -> SealError) -> Result<Vec<T>, SealError> {
    let text = read(path)?;
    let mut found = Vec::new();
    for (index, line) in text.expose().lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            let place = || wrong(format!("line {} of {}", index + 1, path.display()));
            found.push(line.parse().map_err(|_| place())?);
        }
    }
    if found.is_empty() { Err(SealError::Empty(path.to_owned())) } else { Ok(found) }
}

fn passphrase(path: &Path) -> Result<Secret<String>, SealError> {
    let text = read(path)?;
    match text.expose().lines().next() {
        Some(line) if !line.is_empty() => Ok(Secret::new(line.to_owned())),
        _ => Err(SealError::Empty(path.to_owned())),
    }
}

fn read(path: &Path) -> Result<Secret<String>, SealError> {
    let failed = |source| SealError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    fs::File::open(path).map_err(failed)?.take(LONGEST_KEY_FILE).read_to_string(&mut text).map_err(failed)?;
    Ok(Secret::new(text))
}
