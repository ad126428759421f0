//! The files of the data folder that a new machine needs: certificates, keys, the administrator's token, the authority of
//! `chancery dev`.
//!
//! Everything in the folder is taken that is a file, small, and no database: what is forgotten in a list is missed only when it is too
//! late. What is put back never replaces anything, and never lies outside of the folder, whatever the backup says.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Component, Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chancery_runtime::file;
use serde::{Deserialize, Serialize};

/// Larger files are left out, and told of.
const LARGEST: u64 = 1 << 20;

/// How many files there may be, and how deep.
pub(super) const MOST: usize = 1000;
const DEEPEST: usize = 8;

/// Folders of what is made anew by each start.
const SCRATCH: &str = "envoy-validate";

/// What a file of SQLite begins with.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// A file as it is in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUpFile {
    /// Where it lies in the data folder.
    pub path: String,
    /// Who may read it: its permissions.
    pub mode: u32,
    /// What is in it, as Base64.
    content: String,
}

/// What was found in a folder.
#[derive(Debug, Default)]
pub struct Collected {
    /// What is taken.
    pub files: Vec<BackedUpFile>,
    /// What is too large or lies too deep, and links to folders.
    pub left_out: Vec<PathBuf>,
}

/// Why files cannot be taken, or not be put back.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file or folder cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There are more than a data folder has.
    #[error("{} has more than {MOST} files", .0.display())]
    TooMany(PathBuf),
    /// The backup names a place outside of the folder, or has a file that cannot be decoded.
    #[error("{0:?} is no file of a data folder")]
    Malformed(String),
    /// Another file is there already.
    #[error("{} is there already and has other contents", .0.display())]
    Exists(PathBuf),
}

/// The files of `folder`, sorted.
///
/// # Errors
/// Something cannot be read, or there is too much of it.
pub fn collect(folder: &Path) -> Result<Collected, FilesError> {
    let mut collected = Collected::default();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((current, depth)) = folders.pop() {
        let failed = |source| FilesError::Io { path: current.clone(), source };
        for entry in fs::read_dir(&current).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(failed)?);
            if kind.is_dir() {
                if depth == 0 && entry.file_name() == SCRATCH {
                    continue;
                }
                if depth < DEEPEST {
                    folders.push((path, depth + 1));
                } else {
                    collected.left_out.push(path);
                }
            } else if fs::metadata(&path).is_ok_and(|about| about.is_dir()) {
                // A link to a folder elsewhere may lead in a circle.
                collected.left_out.push(path);
            } else if let Some(taken) = take(folder, &path)? {
                match taken {
                    Ok(file) => collected.files.push(file),
                    Err(path) => collected.left_out.push(path),
                }
            }
            if collected.files.len() > MOST {
                return Err(FilesError::TooMany(folder.to_owned()));
            }
        }
    }
    collected.files.sort_by(|a, b| a.path.cmp(&b.path));
    collected.left_out.sort();
    Ok(collected)
}

/// The file at `path`, or its path if it is too large; none: it is nothing to be kept.
fn take(folder: &Path, path: &Path) -> Result<Option<Result<BackedUpFile, PathBuf>>, FilesError> {
    let failed = |source| FilesError::Io { path: path.to_owned(), source };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside_a_database = ["-wal", "-shm", "-journal"].iter().any(|end| name.ends_with(end));
    // Through links, as certificates are often renewed behind one.
    let Some(about) = fs::metadata(path).ok().filter(|about| about.is_file()) else { return Ok(None) };
    if beside_a_database || name.starts_with('.') && name.ends_with(".tmp") {
        return Ok(None);
    }
    let mut content = Vec::new();
    fs::File::open(path).map_err(failed)?.take(LARGEST + 1).read_to_end(&mut content).map_err(failed)?;
    if content.starts_with(SQLITE) {
        return Ok(None);
    }
    if content.len() as u64 > LARGEST {
        return Ok(Some(Err(path.to_owned())));
    }
    let within = path.strip_prefix(folder).unwrap_or(path);
    let Some(within) = within.to_str() else { return Err(FilesError::Malformed(within.display().to_string())) };
    let (path, mode) = (within.to_owned(), about.mode() & 0o777);
    Ok(Some(Ok(BackedUpFile { path, mode, content: STANDARD.encode(content) })))
}

/// Whether `files` can be put into `folder`.
///
/// # Errors
/// One of them lies elsewhere, or another is in its place.
pub fn check(folder: &Path, files: &[BackedUpFile]) -> Result<(), FilesError> {
    for file in files {
        let (path, content) = placed(folder, file)?;
        match fs::read(&path) {
            Ok(there) if there != content => return Err(FilesError::Exists(path)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(FilesError::Io { path, source }),
        }
    }
    Ok(())
}

/// Puts `files` into `folder`, which is made if it is missing. What is there already stays.
///
/// # Errors
/// As [`check`] has them, or a file cannot be written.
pub fn put(folder: &Path, files: &[BackedUpFile]) -> Result<(), FilesError> {
    check(folder, files)?;
    for file in files {
        let (path, content) = placed(folder, file)?;
        let failed = |source| FilesError::Io { path: path.clone(), source };
        let parent = path.parent().unwrap_or(folder);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
        file::create(&path, &content, file.mode & 0o777).map_err(failed)?;
    }
    Ok(())
}

fn placed(folder: &Path, file: &BackedUpFile) -> Result<(PathBuf, Vec<u8>), FilesError> {
    let malformed = || FilesError::Malformed(file.path.clone());
    let path = Path::new(&file.path);
    let inside = path.components().all(|component| matches!(component, Component::Normal(_)));
    if !inside || path.as_os_str().is_empty() {
        return Err(malformed());
    }
    let content = STANDARD.decode(&file.content).map_err(|_| malformed())?;
    if content.len() as u64 > LARGEST {
        return Err(malformed());
    }
    Ok((folder.join(path), content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_new_machine_needs_is_taken_and_put_back() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(old.path().join("tls")).unwrap();
        fs::create_dir_all(old.path().join(SCRATCH)).unwrap();
        fs::create_dir_all(old.path().join("link")).unwrap();
        for (path, content) in [
            ("tls/tls.key", b"secret".as_slice()),
            ("admin-token", b"chy_x"),
            ("chancery.db", b"SQLite format 3\0 and more"),
            ("chancery.db-wal", b"log"),
            (".admin-token.7-0.tmp", b"half"),
            ("envoy-validate/config", b"scratch"),
            ("large.log", &vec![b'x'; LARGEST as usize + 1]),
        ] {
            fs::write(old.path().join(path), content).unwrap();
        }
        fs::set_permissions(old.path().join("tls/tls.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        std::os::unix::fs::symlink(old.path().join("tls/tls.key"), old.path().join("link/tls.key")).unwrap();
        let Collected { files, left_out } = collect(old.path()).unwrap();
        let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["admin-token", "link/tls.key", "tls/tls.key"]);
        assert_eq!(left_out, [old.path().join("large.log")]);

        let folder = new.path().join("data");
        put(&folder, &files).unwrap();
        assert_eq!(fs::read(folder.join("link/tls.key")).unwrap(), b"secret");
        assert_eq!(fs::metadata(folder.join("tls/tls.key")).unwrap().mode() & 0o777, 0o600);
        put(&folder, &files).unwrap();
        fs::write(folder.join("admin-token"), "another").unwrap();
        assert!(matches!(put(&folder, &files), Err(FilesError::Exists(_))));
        assert_eq!(fs::read(folder.join("admin-token")).unwrap(), b"another");
    }

    #[test]
    fn nothing_is_put_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/x", "a/../../x", "", "."] {
            let file = BackedUpFile { path: path.to_owned(), mode: 0o600, content: String::new() };
            assert!(matches!(put(folder.path(), &[file]), Err(FilesError::Malformed(_))), "{path}");
        }
    }
}
