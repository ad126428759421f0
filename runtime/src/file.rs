//! Files that are either wholly there or not there at all.
//!
//! Contents are written beside the target, flushed to the disk and moved into place in one step, so
//! that neither a crash nor a reader at the wrong moment ever sees half a file. The mode is set
//! before the first byte is written: a private key is never readable for others, not even briefly.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// The mode of a file that only its owner may read.
pub const PRIVATE: u32 = 0o600;

/// The mode of a file that anybody may read.
pub const PUBLIC: u32 = 0o644;

/// Writes `contents` to `path`, replacing what is there.
///
/// # Errors
/// The folder does not exist or cannot be written to, or the disk is full; `path` is as before.
pub fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut draft = Draft::new(path, mode)?;
    draft.file.write_all(contents)?;
    draft.file.sync_all()?;
    fs::rename(&draft.path, path)?;
    sync_folder(path)
}

/// Writes `contents` to `path` unless something is there already; says whether it did.
///
/// Of several that try at the same time, one succeeds.
///
/// # Errors
/// As for [`replace`].
pub fn create(path: &Path, contents: &[u8], mode: u32) -> io::Result<bool> {
    let mut draft = Draft::new(path, mode)?;
    draft.file.write_all(contents)?;
    draft.create(path)
}

/// A file that is written piece by piece and is not in its place yet; removed unless it was moved there.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    /// Begins one in the folder of `target`.
    ///
    /// # Errors
    /// The folder does not exist or cannot be written to.
    pub fn new(target: &Path, mode: u32) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = target.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let draft = format!(".{}.{}-{number}.tmp", name.to_string_lossy(), std::process::id());
        let path = target.with_file_name(draft);
        // A leftover of a crashed process that had our number.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        Ok(Self { path, file })
    }

    /// Where it lies until it is in its place.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Flushes it to the disk and moves it to `target`, in the same folder, unless something is there already; says whether it did.
    ///
    /// # Errors
    /// The disk is full, or the folder is gone.
    pub fn create(self, target: &Path) -> io::Result<bool> {
        self.file.sync_all()?;
        // Unlike a rename, a link never replaces.
        match fs::hard_link(&self.path, target) {
            Ok(()) => sync_folder(target).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl io::Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the new name itself survive a loss of power.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn replaces_in_one_step_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tls.key");
        replace(&path, b"one", PUBLIC).unwrap();
        replace(&path, b"two", PRIVATE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, PRIVATE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_one_creates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let created: Vec<bool> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|number: u32| {
                    let path = &path;
                    scope.spawn(move || create(path, number.to_string().as_bytes(), PRIVATE).unwrap())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(created.iter().filter(|created| **created).count(), 1);
        let winner = created.iter().position(|created| *created).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), winner.to_string());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(replace(&dir.path().join("none/file"), b"", PUBLIC).is_err());
    }
}
