//! Which backups of a folder stay.
//!
//! A backup is known by its name, which says when it was made and at which revision, and by what it begins with; whatever else lies in
//! the folder is left alone. That it was verified says a file beside it, which holds the hash of what was verified: a host that makes
//! backups has no key, and cannot see for itself.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use chancery_runtime::file;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, PrimitiveDateTime, format_description::FormatItem, macros::format_description};

use super::format::hexadecimal;

const TIME: &[FormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// What every file of age begins with.
const AGE: &[u8] = b"age-encryption.org/";

/// How many backups are kept. Those of either rule stay, and without rules all do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// The newest, this many.
    pub keep: Option<u32>,
    /// Those that are younger than this.
    pub keep_for: Option<Duration>,
}

/// A backup in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where.
    pub path: PathBuf,
    /// When it was made.
    pub made_at: OffsetDateTime,
    /// Whether it is, byte for byte, what was verified.
    pub verified: bool,
}

/// What is noted beside a backup that was verified.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    sha256: String,
    #[serde(with = "time::serde::rfc3339")]
    verified_at: OffsetDateTime,
}

/// The name of a backup.
pub fn name(made_at: OffsetDateTime, revision: u64) -> String {
    // A time with a year of four digits; others do not come from a clock.
    let at = made_at.to_offset(time::UtcOffset::UTC).format(TIME).unwrap_or_default();
    format!("chancery-{at}-r{revision}.age")
}

fn made_at(path: &Path) -> Option<OffsetDateTime> {
    let name = path.file_name()?.to_str()?;
    let (at, revision) = name.strip_prefix("chancery-")?.strip_suffix(".age")?.split_once("-r")?;
    revision.parse::<u64>().ok()?;
    Some(PrimitiveDateTime::parse(at, TIME).ok()?.assume_utc())
}

/// Notes that the backup at `path` was verified, with the hash that it had.
///
/// # Errors
/// The folder cannot be written to.
pub fn mark(path: &Path, sha256: &str, now: OffsetDateTime) -> io::Result<()> {
    let mark = Mark { sha256: sha256.to_owned(), verified_at: now };
    file::replace(&mark_path(path), &serde_json::to_vec(&mark)?, file::PRIVATE)
}

/// The backups of `folder`, the newest first. Of those, what was verified is looked up until the first that was.
///
/// # Errors
/// The folder cannot be read.
pub fn list(folder: &Path) -> io::Result<Vec<Kept>> {
    let mut kept = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if let Some(made_at) = made_at(&path)
            && begins_as_age(&path)
        {
            kept.push(Kept { path, made_at, verified: false });
        }
    }
    kept.sort_by(|a, b| (b.made_at, &b.path).cmp(&(a.made_at, &a.path)));
    if let Some(newest) = kept.iter_mut().find(|kept| is_verified(&kept.path)) {
        newest.verified = true;
    }
    Ok(kept)
}

/// Those of `backups`, which come newest first, that may go. The newest never, nor the newest that was verified. Pure.
pub fn surplus(backups: &[Kept], Retention { keep, keep_for }: Retention, now: OffsetDateTime) -> Vec<&Kept> {
    if keep.is_none() && keep_for.is_none() {
        return Vec::new();
    }
    let verified = backups.iter().position(|kept| kept.verified);
    let stays = |(index, kept): &(usize, &Kept)| {
        let among_newest = keep.is_some_and(|keep| *index < keep as usize);
        let young = keep_for.is_some_and(|keep| now - kept.made_at < keep);
        *index == 0 || Some(*index) == verified || among_newest || young
    };
    backups.iter().enumerate().filter(|found| !stays(found)).map(|(_, kept)| kept).collect()
}

/// Removes what may go, and says what went.
///
/// # Errors
/// The folder cannot be read, or a file not be removed.
pub fn apply(folder: &Path, made: &Path, retention: Retention, now: OffsetDateTime) -> io::Result<Vec<PathBuf>> {
    let backups = list(folder)?;
    let mut gone = Vec::new();
    for Kept { path, .. } in surplus(&backups, retention, now) {
        // By its time the newest may be another, where a clock was wrong.
        if path == made {
            continue;
        }
        match fs::remove_file(path) {
            Ok(()) => {}
            // Another run was here.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        // It may never have been verified.
        let _ = fs::remove_file(mark_path(path));
        gone.push(path.clone());
    }
    Ok(gone)
}

fn mark_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".verified");
    name.into()
}

fn begins_as_age(path: &Path) -> bool {
    let mut begin = [0; AGE.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut begin)).is_ok() && begin == AGE
}

fn is_verified(path: &Path) -> bool {
    let mark = fs::read(mark_path(path)).ok().and_then(|mark| serde_json::from_slice::<Mark>(&mark).ok());
    mark.is_some_and(|mark| hash(path).is_ok_and(|hash| hash == mark.sha256))
}

fn hash(path: &Path) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok(hexadecimal(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-28 12:00 UTC);

    /// Backups of this many hours ago, of which those are verified.
    fn backups(hours: &[i64], verified: &[i64]) -> Vec<Kept> {
        let kept = |hours: &i64| Kept {
            path: format!("{hours}").into(),
            made_at: NOW - time::Duration::hours(*hours),
            verified: verified.contains(hours),
        };
        hours.iter().map(kept).collect()
    }

    fn gone(hours: &[i64], verified: &[i64], keep: Option<u32>, keep_for: Option<u64>) -> Vec<String> {
        let keep_for = keep_for.map(|hours| Duration::from_secs(hours * 3600));
        let backups = backups(hours, verified);
        let gone = surplus(&backups, Retention { keep, keep_for }, NOW);
        gone.into_iter().map(|kept| kept.path.display().to_string()).collect()
    }

    #[test]
    fn either_rule_keeps() {
        let hours = [1, 5, 9, 30];
        assert_eq!(gone(&hours, &[], None, None), [""; 0]);
        assert_eq!(gone(&hours, &[], Some(2), None), ["9", "30"]);
        assert_eq!(gone(&hours, &[], None, Some(6)), ["9", "30"]);
        assert_eq!(gone(&hours, &[], Some(1), Some(10)), ["30"]);
        assert_eq!(gone(&hours, &[], Some(9), Some(1)), [""; 0]);
    }

    #[test]
    fn the_newest_stays_and_the_newest_verified() {
        assert_eq!(gone(&[10, 20, 30], &[], Some(0), Some(1)), ["20", "30"]);
        assert_eq!(gone(&[10, 20, 30], &[30], Some(0), Some(1)), ["20"]);
    }

    #[test]
    fn only_backups_go_with_their_marks() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let content = b"age-encryption.org/v1\nand so on";
        let names: Vec<String> = (1..=4).map(|hour| name(NOW - time::Duration::hours(hour), hour as u64)).collect();
        assert_eq!(names[0], "chancery-20261128T110000Z-r1.age");
        for name in &names {
            fs::write(path(name), content).unwrap();
        }
        let others = ["notes.age", "chancery-20261128T110000Z-r1.age.bak", "chancery-2026-r1.age"];
        for other in others {
            fs::write(path(other), content).unwrap();
        }
        let fake = "chancery-20200101T000000Z-r1.age";
        fs::write(path(fake), "what somebody wrote").unwrap();
        let sha256 = hexadecimal(&Sha256::digest(content));
        mark(&path(&names[2]), &sha256, NOW).unwrap();
        mark(&path(&names[1]), "of something else", NOW).unwrap();
        let gone =
            apply(folder.path(), Path::new("elsewhere"), Retention { keep: Some(1), keep_for: None }, NOW).unwrap();
        assert_eq!(gone, [path(&names[1]), path(&names[3])]);
        let mut left: Vec<String> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        let mut expected = others.map(str::to_owned).to_vec();
        expected.extend([fake.to_owned(), names[0].clone(), names[2].clone(), format!("{}.verified", names[2])]);
        expected.sort();
        assert_eq!(left, expected);
    }
}
