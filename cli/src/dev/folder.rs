//! The data folder: one `chancery dev` at a time, and no `dev.json` that is not true.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use chancery_runtime::file;
use tracing::warn;

/// The folder, locked until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is missing, locks it, and clears away what a killed run left.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = || format!("cannot use the data folder {}", path.display());
        // It holds the CA's key and the admin's token.
        DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(failed)?;
        let path = path.canonicalize().with_context(failed)?;
        let lock = lock(&path)?;
        let folder = Self { path, _lock: lock };
        folder.remove_dev_json();
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn dev_json(&self) -> PathBuf {
        self.join("dev.json")
    }

    pub(super) fn remove_dev_json(&self) {
        match fs::remove_file(self.dev_json()) {
            Err(error) if error.kind() != ErrorKind::NotFound => warn!(%error, "cannot remove dev.json"),
            _ => {}
        }
    }
}

/// The system lets go of the lock when the process ends, so none is left behind by a crash.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("dev.lock");
    let failed = || format!("cannot lock {}", path.display());
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(file::PRIVATE)
        .open(&path)
        .with_context(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let _ = lock.read_to_string(&mut owner);
            let owner = owner.trim();
            bail!(
                "another `chancery dev` (process {owner}) uses the data folder {}; take another one with --data-dir, \
                 and other ports with --port-offset",
                folder.display()
            );
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
    }
    lock.set_len(0).with_context(failed)?;
    lock.rewind().with_context(failed)?;
    writeln!(lock, "{}", std::process::id()).with_context(failed)?;
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_used_once_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = Folder::open(&path).unwrap();
        let error = Folder::open(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.contains("--data-dir") && error.contains("--port-offset"), "{error}");
        drop(first);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn what_a_killed_run_claimed_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("dev.json"), "{}").unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        assert!(!folder.dev_json().exists());
    }
}
